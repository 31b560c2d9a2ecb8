"""The ranker that is kept with a model: path evidence, what the model says, and probabilities.

score = log-softmax of the path networks + weight x log-softmax of the treatment decoder + 0.2 x
lift by the model's own decoder. The first weight is fitted on diseases of which neither has
learned anything, one for diseases with known drugs and one for those without. The model itself has
learned from every known pair: its weight cannot be fitted so, and of known pairs what it is
expected to say takes the place of what it says. Of diseases without known drugs it is not asked.

What the fit of a ranker takes, said from a graph's degrees before anything is formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    EdgeType,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.ranking.bilinear_score import EmbeddingScore, LinkScore, NetworkScores
from clinical_drug_discovery.ranking.calibration import (
    Calibration,
    Expectation,
    fit_calibration,
    fit_expectation,
    fit_weight,
)
from clinical_drug_discovery.ranking.drug_similarity import Chain, meet, steps_from
from clinical_drug_discovery.ranking.listwise_examples import MOST_LISTS, NUM_TRIED, NUM_UNTRIED
from clinical_drug_discovery.ranking.metapath_features import PathEvidence
from clinical_drug_discovery.ranking.path_ranker import PathRanker, fit_ranker
from clinical_drug_discovery.ranking.propagation import MOST_EDGES
from clinical_drug_discovery.ranking.treatment_decoder import (
    DIM,
    MOST_ASKED,
    NUM_STEPS,
    fit_decoders,
)
from clinical_drug_discovery.ranking.treatments import TREATS, treatments
from clinical_drug_discovery.system.errors import InputError

# Of the weight by diseases that were left out: the model whose embeddings are asked has seen what
# treats them, of which the pairs that are looked for have no part.
_TRUST = 0.5
# Of the model's own decoder beside the paths, and beside the treatment decoder alone. With twice as
# much diseases' best 50 drugs get worse, with half of it the best one.
_OWN, _OWN_ALONE = 0.2, 0.4
_DIGITS = 4  # of a score: finer differences are rounding, and drugs alike in all should tie


@dataclass(frozen=True)
class Blend:
    """How scores of diseases of one kind are put together, and what they then mean."""

    weight: float  #: of the treatment decoder's log-chances beside those of the paths
    expected: Expectation | None  #: of the model's own decoder; None: it is not asked
    calibration: Calibration


@dataclass(frozen=True)
class DrugRanker:
    """All that it takes to rank drugs for a disease, beside the graph."""

    paths: PathRanker
    embedding: EmbeddingScore | None
    network: LinkScore | None
    with_known: Blend  #: for diseases with a known drug
    without_known: Blend  #: for diseases without any
    path_names: tuple[str, ...]  #: what the features count: must be what the graph gives

    def scores(self, evidence: PathEvidence, diseases: IntArray) -> Floats:
        """Score all drugs for diseases.

        Args:
            evidence: of the graph.
            diseases: shape (n,), numbered within their type.

        Returns:
            Shape (n, D), comparable within a disease.
        """
        scores = self.paths.scores(evidence, diseases)
        if self.embedding is not None:
            weights = [self._blend(evidence, disease).weight for disease in diseases.tolist()]
            scores += np.array(weights, np.float32)[:, None] * self.embedding.log_chances(diseases)
        self._add_own(evidence, diseases, scores, _OWN)
        return np.round(scores, _DIGITS)

    def network_scores(self, evidence: PathEvidence, diseases: IntArray) -> Floats:
        """What the model says without the paths: by the treatment decoder and by its own.

        Args:
            evidence: of the graph; says what is known.
            diseases: shape (n,), numbered within their type.

        Returns:
            Shape (n, D), comparable within a disease.

        Raises:
            ValueError: the ranker was fitted without a model.
        """
        if self.embedding is None:
            raise ValueError("a ranker of paths alone has no scores of a network")
        scores = self.embedding.log_chances(diseases)
        self._add_own(evidence, diseases, scores, _OWN_ALONE)
        return scores

    def _add_own(
        self, evidence: PathEvidence, diseases: IntArray, scores: Floats, weight: float
    ) -> None:
        """Add what the model's own decoder says, where it is asked."""
        for row, disease in zip(scores, diseases.tolist(), strict=True):
            expected = self._blend(evidence, disease).expected
            if self.network is not None and expected is not None:
                known = np.zeros(len(row), bool)
                known[evidence.known_drugs(disease)] = True
                own = self.network.log_lifts(np.array([disease]), known[None])[0]
                own[known] = expected.of(row[known])
                row += np.float32(weight) * own

    def probabilities(self, evidence: PathEvidence, diseases: IntArray, scores: Floats) -> Floats:
        """The probability that each pair is a recorded indication, shape (n, D)."""
        out = np.zeros_like(scores)
        for i, disease in enumerate(diseases.tolist()):
            out[i] = self._blend(evidence, disease).calibration.probability(scores[i])
        return out

    def _blend(self, evidence: PathEvidence, disease: int) -> Blend:
        return self.with_known if evidence.num_known(disease) > 0 else self.without_known


def why_no_ranker(graph: KnowledgeGraph) -> str | None:
    """Why no ranker can be fitted on a graph; None if one can."""
    try:
        known = treatments(graph)
    except InputError as error:
        return str(error)
    treated = int((known.sum(axis=0) > 0).sum())
    return None if treated > 1 else "a single disease is treated in the graph"


def fit_drug_ranker(
    graph: KnowledgeGraph, *, network: NetworkScores | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker, its weights and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        network: a model of the graph; paths alone if None.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs; see `why_no_ranker`.
    """
    evidence = PathEvidence(graph, for_many=False)
    paths = fit_ranker(evidence, seed=seed)
    # A single disease is learned, and asked about all the same.
    asked = [out if len(out) else evidence.treated for out in paths.left_out]
    known = np.concatenate([evidence.known[:, s].toarray().T > 0 for s in asked])
    said: dict[bool, list[Floats] | None] = {True: None, False: None}
    embedding, links, own = None, None, None
    if network is not None:
        drugs = network.embeddings[slice(*node_range_of(graph, DRUG))]
        decoders = fit_decoders(graph, drugs, left_out=paths.left_out, asked=asked, seed=seed)
        said = {True: decoders.with_known, False: decoders.without_known}
        embedding, links = decoders.score, network.of_treatments(graph)
        own = links.log_lifts(np.concatenate(asked), known)
    blends = []
    for use_known in (True, False):
        by_paths = [
            paths.scores_by_network(evidence, diseases, use_known=use_known)[:, n]
            for n, diseases in enumerate(asked)
        ]
        seen = own if use_known else None
        blends.append(_blend(np.concatenate(by_paths), said[use_known], seen, known))
    return DrugRanker(paths, embedding, links, blends[0], blends[1], evidence.path_names)


def _blend(
    paths: Floats, embedding: list[Floats] | None, own: Floats | None, known: npt.NDArray[np.bool_]
) -> Blend:
    """Weight and probabilities by what each network and decoder says of what it left out."""
    scores: Floats = paths
    weight, expected = 0.0, None
    if embedding is not None:
        other = np.concatenate(embedding)
        weight = _TRUST * fit_weight(scores, other, known)
        scores = np.asarray(scores + weight * other, np.float32)
    if own is not None:
        expected = fit_expectation(scores, own, known)
        unseen = np.where(known, expected.of(scores), own)
        scores = np.asarray(scores + _OWN * unseen, np.float32)
    return Blend(weight, expected, fit_calibration(scores.ravel(), known.ravel()))


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
    first, _ = graph.node_range(graph.endpoint_types[r][0])
    total = np.concatenate([[0.0], np.cumsum(values[graph.src_of(r).numpy() - first])])
    at = graph.indptr_of(r).numpy()
    return np.asarray(np.diff(total[at - at[0]]))


def _size(graph: KnowledgeGraph, kind: str) -> int:
    first, stop = graph.node_range(graph.node_type_names.index(kind))
    return stop - first
