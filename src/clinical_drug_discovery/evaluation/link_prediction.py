"""Hold out facts of every relation, and rank each target among all nodes of the target's type.

This link prediction must not weaken the ranking of drugs for diseases. `hold_out_facts` therefore
keeps all edges between a drug and a disease that the drug treats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph.knowledge_graph import IntArray, KnowledgeGraph, without_edges
from ..ranking.treatments import Pairs, drug_disease_types, pair_keys, pairs_of
from .gnn_scores import Scores
from .metrics import filtered_ranks, pair_metrics
from .split import edges_between

_CHUNK_SIZE = 256  # sources ranked at a time; their scores for 28,000 candidates take 29 MB

#: Maps sources (n,), an index into `relations` and a range of M candidates to scores (n, M).
Scorer = Callable[[IntArray, int, tuple[int, int]], Scores]


@dataclass(frozen=True)
class HeldOutFacts:
    """K directed edges that were removed from a graph; each fact has an edge in each direction."""

    edge_type: IntArray  #: shape (K,), indices into the graph's `edge_types`
    src: IntArray  #: shape (K,), node numbers of the sources
    dst: IntArray  #: shape (K,), node numbers of the targets


def hold_out_facts(
    graph: KnowledgeGraph, *, share: float, max_facts: int, seed: int
) -> tuple[KnowledgeGraph, HeldOutFacts]:
    """Hold out a few facts of each relation that does not mean a treatment.

    All edges between the two nodes of a held-out fact are removed, whatever their relation.

    Args:
        graph: on the CPU.
        share: fraction of each relation's facts, rounded up. At least one fact is not held out.
        max_facts: maximum number of held-out facts of each relation.
        seed: seed of the sample. The sample does not depend on the order of rows in the file.

    Returns:
        The graph without the held-out facts, and these facts.
    """
    rng = np.random.default_rng(seed)
    treats = pairs_of(graph)
    treated = pair_keys(graph, treats.drug, treats.disease)
    edges, kinds = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for r, reverse in enumerate(graph.reverse_edge_type):
        if reverse < r or graph.edge_types[r].relation in graph.vocabulary.treats:
            continue
        src, dst = graph.src_of(r).numpy(), graph.dst_of(r).numpy()
        eligible = np.ones(len(src), bool) if reverse != r else src < dst
        for kind, (drug, disease) in ((r, (src, dst)), (reverse, (dst, src))):
            if kind in drug_disease_types(graph):
                eligible &= ~np.isin(pair_keys(graph, drug, disease), treated)
        facts = np.flatnonzero(eligible)
        number = max(0, min(int(np.ceil(share * len(facts))), max_facts, len(facts) - 1))
        chosen = rng.choice(facts, number, replace=False)
        forward = np.stack([src[chosen], dst[chosen]], axis=1).astype(np.int64)
        edges += [forward, forward[:, ::-1]]
        kinds += [np.full(number, r), np.full(number, reverse)]
    src, dst = np.concatenate(edges).T
    held_out = HeldOutFacts(np.concatenate(kinds), src, dst)
    return without_edges(graph, edges_between(graph, src, dst)), held_out


def held_out_pairs(graph: KnowledgeGraph, pairs: Pairs) -> HeldOutFacts:
    """Return the edges which state that the drug of a pair treats the disease of the pair.

    Args:
        graph: a graph that still contains these edges.
        pairs: pairs of drugs and diseases.
    """
    none: IntArray = np.empty(0, np.int64)
    kinds, src, dst = [none], [none], [none]
    for r in drug_disease_types(graph):
        if graph.edge_types[r].relation in graph.vocabulary.treats:
            has = graph.has_edges(pairs.drug, np.full(len(pairs), r), pairs.disease)
            drug, disease = pairs.drug[has], pairs.disease[has]
            kinds += [np.full(len(drug), r), np.full(len(drug), graph.reverse_edge_type[r])]
            src += [drug, disease]
            dst += [disease, drug]
    return HeldOutFacts(np.concatenate(kinds), np.concatenate(src), np.concatenate(dst))


def removed_edges(graph: KnowledgeGraph, src: IntArray, dst: IntArray) -> HeldOutFacts:
    """Return the edges of any type between two nodes, which a training graph lacks.

    Args:
        graph: the whole graph, on the CPU.
        src: shape (K,), node numbers.
        dst: shape (K,), node numbers; the edges in both directions are returned.
    """
    both = np.concatenate([src, dst]), np.concatenate([dst, src])
    gone = np.flatnonzero(edges_between(graph, *both))
    columns = (graph.edge_type, graph.src, graph.dst)
    return HeldOutFacts(*(column.numpy()[gone].astype(np.int64) for column in columns))


def part_of(
    facts: HeldOutFacts, *, validation: bool, validation_share: float, seed: int
) -> HeldOutFacts:
    """Return the validation part or the test part of held-out facts.

    Both directions of a fact are in the same part, and so are all facts with the same two nodes.

    Args:
        facts: held-out facts.
        validation: True returns the validation part, False the test part.
        validation_share: fraction of the facts in the validation part.
        seed: seed of the sample.
    """
    ends = np.sort(np.stack([facts.src, facts.dst]), axis=0)
    distinct, fact = np.unique(ends, axis=1, return_inverse=True)
    drawn = np.random.default_rng(seed).random(int(distinct.shape[1]))
    chosen = (drawn[fact.ravel()] < validation_share) == validation
    return HeldOutFacts(facts.edge_type[chosen], facts.src[chosen], facts.dst[chosen])


def relation_metrics(
    graph: KnowledgeGraph,
    facts: Sequence[HeldOutFacts],
    removed: HeldOutFacts,
    scores_of: Scorer,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rank the targets of held-out edges, and return the metrics of each edge type.

    A target is ranked among all nodes of its type, except the source itself and the other targets
    of the source. These other targets are those in the graph and those removed from it.

    Args:
        graph: the training graph, on the CPU.
        facts: held-out facts to rank, which the graph does not contain.
        removed: all edges that were removed from the graph: these facts, those of the other part,
            and edges of other relations between the same nodes.
        scores_of: function that scores candidates of one type for some sources.
        seed: seed of the bootstrap.

    Returns:
        One record for each edge type with held-out edges, with `source_type`, `relation`,
        `target_type`, `num_targets`, `num_candidates` and the metrics of `metrics.pair_metrics`.
        The bootstrap resamples sources.

    Raises:
        InputError: a score is NaN or infinite.
    """
    edge_type, src, dst = (
        np.concatenate([getattr(part, name) for part in facts])
        for name in ("edge_type", "src", "dst")
    )
    records = []
    for r in np.unique(edge_type).tolist():
        kind, chosen = graph.edge_types[r], edge_type == r
        gone = removed.edge_type == r
        also = removed.src[gone], removed.dst[gone]
        ranks, sources = _rank_targets(graph, r, src[chosen], dst[chosen], also, scores_of)
        first, stop = graph.node_range(graph.endpoint_types[r][1])
        names = zip(("source_type", "relation", "target_type"), kind, strict=True)
        sizes = {"num_targets": len(ranks), "num_candidates": stop - first}
        records.append({**dict(names), **sizes, **pair_metrics(ranks, sources, seed=seed)})
    return records


def _rank_targets(
    graph: KnowledgeGraph,
    r: int,
    src: IntArray,
    dst: IntArray,
    removed: tuple[IntArray, IntArray],
    scores_of: Scorer,
) -> tuple[npt.NDArray[np.float64], IntArray]:
    """Return the rank of the target and the number of the source for held-out edges of type r."""
    first, stop = candidates = graph.node_range(graph.endpoint_types[r][1])
    relation = graph.relations.index(graph.edge_types[r].relation)
    # The known targets of a node are the sources of the reverse edges into this node.
    reverse = graph.reverse_edge_type[r]
    indptr = graph.indptr_of(reverse).numpy()
    first_source = graph.node_range(graph.endpoint_types[reverse][1])[0]
    ranks, ranked = [], []
    sources = np.unique(src)
    for start in range(0, len(sources), _CHUNK_SIZE):
        chunk = sources[start : start + _CHUNK_SIZE]
        edges = np.flatnonzero(np.isin(src, chunk))
        row = np.searchsorted(chunk, src[edges])
        known = np.zeros((len(chunk), stop - first), bool)
        for i, source in enumerate(chunk.tolist()):
            at = slice(*indptr[source - first_source : source - first_source + 2])
            known[i, graph.src.numpy()[at] - first] = True
            if first <= source < stop:
                known[i, source - first] = True
        here = np.isin(removed[0], chunk)
        known[np.searchsorted(chunk, removed[0][here]), removed[1][here] - first] = True
        candidate = dst[edges] - first
        ranks.append(filtered_ranks(scores_of(chunk, relation, candidates), known, row, candidate))
        ranked.append(src[edges])
    return np.concatenate(ranks), np.concatenate(ranked)
