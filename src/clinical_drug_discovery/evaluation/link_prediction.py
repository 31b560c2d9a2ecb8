"""Link prediction for every relation: held-out facts, each end ranked among all nodes of its type.

It asks another question than the ranking of drugs for diseases, which must not suffer from it: no
pair of a drug and a disease that it helps is touched here, and whatever leaves the graph leaves it
for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.evaluation.metrics import filtered_ranks, pair_metrics
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, without_edges
from clinical_drug_discovery.ranking.bilinear_score import Scores
from clinical_drug_discovery.ranking.treatments import (
    TREATS,
    Pairs,
    drug_disease_types,
    pair_keys,
    pairs_of,
)

_CHUNK = 256  # sources ranked at a time: 29 MB of scores for 28,000 candidates

#: From sources (n,), a relation (its place in `relations`) and a range of nodes to (n, range).
Scorer = Callable[[IntArray, int, tuple[int, int]], Scores]


@dataclass(frozen=True)
class HeldOutFacts:
    """K directed edges that a training graph does not have, both directions of every fact."""

    edge_type: IntArray  #: shape (K,), indices into `edge_types`
    src: IntArray  #: shape (K,), node numbers
    dst: IntArray  #: shape (K,), node numbers


def hold_out_facts(
    graph: KnowledgeGraph, *, share: float, most: int, seed: int
) -> tuple[KnowledgeGraph, HeldOutFacts]:
    """Hold out a few facts of every relation but those that say which drug helps.

    Between the two ends of a held-out fact no edge stays, under whatever relation. Pairs of a drug
    and a disease that it helps are never drawn: the graph keeps all of them.

    Args:
        graph: on the CPU.
        share: of the facts of each relation, rounded up, but never all of them; 0 for none.
        most: facts of a relation at most.
        seed: of the draw, which depends on the facts alone, never on the order of the file.

    Returns:
        The graph without them, and what was held out.
    """
    rng = np.random.default_rng(seed)
    helps = pairs_of(graph)
    helped = pair_keys(graph, helps.drug, helps.disease)
    ends, kinds = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for r, mirror in enumerate(graph.reverse_edge_type):
        if mirror < r or graph.edge_types[r].relation in TREATS:
            continue
        src, dst = graph.src_of(r).numpy(), graph.dst_of(r).numpy()
        free = np.ones(len(src), bool) if mirror != r else src < dst
        for way, (drug, disease) in ((r, (src, dst)), (mirror, (dst, src))):
            if way in drug_disease_types(graph):
                free &= ~np.isin(pair_keys(graph, drug, disease), helped)
        facts = np.flatnonzero(free)
        number = max(0, min(int(np.ceil(share * len(facts))), most, len(facts) - 1))
        drawn = rng.choice(facts, number, replace=False)
        one_way = np.stack([src[drawn], dst[drawn]], axis=1).astype(np.int64)
        ends += [one_way, one_way[:, ::-1]]
        kinds += [np.full(number, r), np.full(number, mirror)]
    src, dst = np.concatenate(ends).T
    held_out = HeldOutFacts(np.concatenate(kinds), src, dst)
    return without_edges(graph, _between(graph, src, dst)), held_out


def held_out_pairs(graph: KnowledgeGraph, pairs: Pairs) -> HeldOutFacts:
    """The facts that a graph has of some pairs, under relations that say that the drug helps.

    Args:
        graph: that still has them.
        pairs: of drugs and diseases.
    """
    none: IntArray = np.empty(0, np.int64)
    kinds, src, dst = [none], [none], [none]
    for r in drug_disease_types(graph):
        if graph.edge_types[r].relation in TREATS:
            has = graph.has_edges(pairs.drug, np.full(len(pairs), r), pairs.disease)
            drug, disease = pairs.drug[has], pairs.disease[has]
            kinds += [np.full(len(drug), r), np.full(len(drug), graph.reverse_edge_type[r])]
            src += [drug, disease]
            dst += [disease, drug]
    return HeldOutFacts(np.concatenate(kinds), np.concatenate(src), np.concatenate(dst))


def relation_metrics(
    graph: KnowledgeGraph, facts: Sequence[HeldOutFacts], scores_of: Scorer, *, seed: int = 0
) -> list[dict[str, Any]]:
    """How well the targets of held-out edges are found, one record for each edge type.

    Args:
        graph: for training, on the CPU; its edges are what is known.
        facts: what it does not have.
        scores_of: scores candidates of one type for sources.
        seed: of the bootstrap.

    Returns:
        For each edge type with held-out edges, in order, `source_type`, `relation`, `target_type`,
        `num_targets`, `num_candidates` and `metrics.pair_metrics`, the intervals over sources. A
        target is ranked among all nodes of its type without the source itself, which no fact joins
        to itself, and without the other targets known for it, held out or not.

    Raises:
        InputError: a score is NaN or infinite.
    """
    edge_type, src, dst = (
        np.concatenate([getattr(part, name) for part in facts])
        for name in ("edge_type", "src", "dst")
    )
    records = []
    for r in np.unique(edge_type).tolist():
        kind, own = graph.edge_types[r], edge_type == r
        span = graph.node_range(graph.endpoint_types[r][1])
        relation = graph.relations.index(kind.relation)
        ranks, clusters = _ranks(graph, r, src[own], dst[own], relation, span, scores_of)
        names = zip(("source_type", "relation", "target_type"), kind, strict=True)
        sizes = {"num_targets": len(ranks), "num_candidates": span[1] - span[0]}
        records.append({**dict(names), **sizes, **pair_metrics(ranks, clusters, seed=seed)})
    return records


def _ranks(
    graph: KnowledgeGraph,
    edge_type: int,
    src: IntArray,
    dst: IntArray,
    relation: int,
    span: tuple[int, int],
    scores_of: Scorer,
) -> tuple[npt.NDArray[np.float64], IntArray]:
    """The rank of every target, and the source that each is of."""
    # What is known of a source is what arrives at it along the mirror.
    mirror = graph.reverse_edge_type[edge_type]
    indptr, first = (
        graph.indptr_of(mirror).numpy(),
        graph.node_range(graph.endpoint_types[mirror][1])[0],
    )
    ranks, clusters = [], []
    sources = np.unique(src)
    for start in range(0, len(sources), _CHUNK):
        chunk = sources[start : start + _CHUNK]
        asked = np.flatnonzero(np.isin(src, chunk))
        row = np.searchsorted(chunk, src[asked])
        known = np.zeros((len(chunk), span[1] - span[0]), bool)
        for i, source in enumerate(chunk.tolist()):
            at = indptr[source - first], indptr[source - first + 1]
            known[i, graph.src.numpy()[slice(*at)] - span[0]] = True
            if span[0] <= source < span[1]:
                known[i, source - span[0]] = True
        candidate = dst[asked] - span[0]
        known[row, candidate] = True
        ranks.append(filtered_ranks(scores_of(chunk, relation, span), known, row, candidate))
        clusters.append(src[asked])
    return np.concatenate(ranks), np.concatenate(clusters)


def _between(graph: KnowledgeGraph, src: IntArray, dst: IntArray) -> npt.NDArray[np.bool_]:
    """Which edges join the ends of some pairs, whatever their type, shape (E,)."""
    is_end = np.zeros(graph.num_nodes, bool)
    is_end[src] = is_end[dst] = True
    pairs = np.unique(src.astype(np.int64) * graph.num_nodes + dst)
    found = np.zeros(graph.num_edges, bool)
    for r in range(len(graph.edge_types)):
        start, stop = graph.edge_type_ptr[r : r + 2].tolist()
        from_, to = graph.src_of(r).numpy(), graph.dst_of(r).numpy()
        near = np.flatnonzero(is_end[from_] & is_end[to])
        keys = from_[near].astype(np.int64) * graph.num_nodes + to[near]
        found[start:stop][near] = np.isin(keys, pairs)
    return found
