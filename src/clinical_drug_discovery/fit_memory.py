"""What the fit of a ranker takes, said from a graph's degrees before anything is formed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.decoder_fit import NUM_STEPS
from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.kernels import DISEASE, DRUG, Chain, meet, steps_from
from clinical_drug_discovery.lists import MOST_LISTS, NUM_TRIED, NUM_UNTRIED
from clinical_drug_discovery.pairs import TREATS
from clinical_drug_discovery.propagation import MOST_EDGES
from clinical_drug_discovery.treatment_decoder import DIM, MOST_ASKED

_ENTRY = 8  # bytes of a number in a sparse matrix, with its column
_CHUNKS = 32 + 16  # diseases whose features stand at once: of the scales, and while copied
Counts = npt.NDArray[np.float64]


def rank_fit_bytes(graph: KnowledgeGraph) -> int:
    """Bytes for the evidence of paths and the training lists, beside the graph.

    With T treated diseases, K known pairs, D drugs, S diseases, B features of paths and G ways in
    which drugs are alike. Of every chain of one or two steps, 8 bytes for each path, or pair of
    ends if those are fewer, four times for drugs (counts and cosines, both also transposed) and
    three times for diseases; the same for three steps from disease to disease. Walks 4 T S for
    each relation, what treated diseases share 8 T T; lists of C candidates, 2 C (T B + K G);
    features of some diseases, 4 B D each. The lists are gone when the treatment decoder is fitted.

    Args:
        graph: on the CPU.
    """
    known = [k for k in graph.edge_types if (k.src_type, k.dst_type) == (DRUG, DISEASE)]
    known = [k for k in known if k.relation in TREATS]
    if not known:
        return 0
    pairs = int(sum(_degrees(graph, k).sum() for k in known))
    num_drugs, num_diseases = _size(graph, DRUG), _size(graph, DISEASE)
    back = [EdgeType(DISEASE, k.relation, DRUG) for k in known]
    treated = int(np.count_nonzero(sum(_degrees(graph, k) for k in back)))
    drugs, diseases = (_chains(graph, kind) for kind in (DRUG, DISEASE))
    matrices = 4 * sum(drugs.values()) + 3 * sum(diseases.values())
    same = [k for k in graph.edge_types if k.src_type == k.dst_type == DISEASE]
    for kind in same:
        far = _onward(graph, kind, _onward(graph, kind, _degrees(graph, kind)))
        matrices += min(float(far.sum()), num_diseases**2)
    direct = sum(meet(a, b) for a in drugs for b in diseases)
    ways = len(drugs) + 1 + 2 * sum(k.src_type == k.dst_type == DRUG for k in graph.edge_types)
    others = len(diseases) + 1 + 4 * len(same)
    num_base = direct + 3 * others + 2 * ways + len(steps_from(graph, DRUG)) + 4
    share = min(1.0, MOST_LISTS / max(treated, 1))
    candidates = min(num_drugs, NUM_TRIED + NUM_UNTRIED)
    lists = 2 * candidates * share * (treated * num_base + pairs * (ways + 5))
    dense = 4 * len(same) * treated * num_diseases + 8 * treated**2
    lists += 4 * _CHUNKS * num_base * num_drugs
    return int(_ENTRY * matrices + dense + max(lists, decoder_bytes(graph)))


def decoder_bytes(graph: KnowledgeGraph) -> int:
    """Bytes for the fit of treatment decoders, which are fitted one after the other.

    With N nodes of the types next to drugs and diseases, C numbers of a vector and L steps: the
    vectors that each step keeps, and eight arrays of theirs at a time, 4 N C (L + 8); the scores of
    the diseases asked for, and what the softmax makes of them, 6 arrays; the matrices in both
    directions.

    Args:
        graph: on the CPU.
    """
    ends = {DRUG, DISEASE}
    near = [k for k in graph.edge_types if {k.src_type, k.dst_type} & ends]
    counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
    types = {t for k in near for t in (k.src_type, k.dst_type)}
    vectors = 4 * DIM * (NUM_STEPS + 8) * sum(_size(graph, t) for t in types)
    edges = 2 * _ENTRY * sum(counts[k] for k in near if counts[k] <= MOST_EDGES)
    return int(vectors + edges + 6 * 4 * MOST_ASKED * _size(graph, DRUG))


def _chains(graph: KnowledgeGraph, start: str) -> dict[Chain, float]:
    """Of each chain out of a type how many entries its counts can have."""
    entries: dict[Chain, float] = {}
    for first in steps_from(graph, start):
        degrees = _degrees(graph, EdgeType(first.dst_type, first.relation, first.src_type))
        entries[(first,)] = float(degrees.sum())
        for second in steps_from(graph, first.dst_type):
            most = _size(graph, start) * _size(graph, second.dst_type)
            paths = float(degrees @ _degrees(graph, second))
            entries[first, second] = min(paths, most)
    return entries


def _degrees(graph: KnowledgeGraph, kind: EdgeType) -> Counts:
    """How many edges of a type leave each node."""
    r = graph.edge_types.index(EdgeType(kind.dst_type, kind.relation, kind.src_type))
    return graph.indptr_of(r).diff().numpy().astype(np.float64)


def _onward(graph: KnowledgeGraph, kind: EdgeType, values: Counts) -> Counts:
    """For each node the sum of its neighbours' values."""
    r = graph.edge_types.index(kind)
    first, _ = graph.span(graph.ends[r][0])
    total = np.concatenate([[0.0], np.cumsum(values[graph.src_of(r).numpy() - first])])
    at = graph.indptr_of(r).numpy()
    return np.asarray(np.diff(total[at - at[0]]))


def _size(graph: KnowledgeGraph, kind: str) -> int:
    first, stop = graph.span(graph.node_type_names.index(kind))
    return stop - first
