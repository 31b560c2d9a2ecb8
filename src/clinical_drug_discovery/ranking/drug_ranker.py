"""The drug ranker that is saved with a model. It combines three scores and gives probabilities.

score = log-softmax of the path ranker + weight * log-softmax of the treatment decoder
+ 0.2 * log-lift by the GNN's own decoder (see `BilinearScore.log_lifts`).

`weight` is fitted on diseases that the path ranker and the treatment decoder were not trained on.
There are two weights: one for diseases with known drugs and one for diseases without. The GNN was
trained on every known pair. Its weight 0.2 therefore cannot be fitted in this way, and an imputed
score replaces the log-lift of known pairs. Diseases without known drugs get no log-lift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph, node_range_of
from ..system.errors import InputError
from ..system.machine import one_thread
from .bilinear_score import BilinearScore, GnnScores
from .calibration import Calibration, ImputedScore, fit_calibration, fit_imputed_score, fit_weight
from .drug_similarity import Metapath, meet, steps_from
from .listwise_examples import MAX_EXAMPLES, NUM_EASY, NUM_HARD
from .metapath_features import MetapathFeatures
from .path_ranker import PathRanker, fit_path_ranker
from .propagation import MAX_EDGES
from .treatment_decoder import DIM, MAX_DISEASES, NUM_STEPS, fit_decoders
from .treatments import treatments

# The fitted weight of the treatment decoder is multiplied by this factor. The decoder was not
# trained on the left-out diseases, but it starts from embeddings of a GNN that was. So the fit
# overestimates how well the decoder predicts unknown treatments.
_TRUST = 0.5
# Weight of the log-lift with the path ranker, and without it. Doubling the weight makes the first
# 50 drugs of a disease worse; halving the weight makes the first drug worse.
_GNN_WEIGHT, _GNN_WEIGHT_ALONE = 0.2, 0.4
_DIGITS = 4  # decimals of a score: smaller differences are rounding errors, and count as ties

_ENTRY = 8  # bytes per entry of a sparse matrix: the value and the column number
# The memory of base features, in diseases: a chunk has 32, and temporary copies take half a chunk.
_CHUNKS = 32 + 16
_Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blend:
    """The fitted numbers for one kind of disease: with known drugs, or without."""

    weight: float  #: factor of the treatment decoder's log-softmax
    imputed: ImputedScore | None  #: replaces the log-lift of known pairs; None: no log-lift at all
    calibration: Calibration


@dataclass(frozen=True)
class DrugRanker:
    """All fitted parts of the ranker; the graph is not included."""

    paths: PathRanker
    treatment_decoder: BilinearScore | None
    gnn: BilinearScore | None  #: scores by the GNN's own decoder
    with_known: Blend  #: for diseases with a known drug
    without_known: Blend  #: for diseases without one
    feature_names: tuple[str, ...]  #: a graph to rank on must have the same features

    @one_thread(True)  # as in the fit
    def scores(self, features: MetapathFeatures, diseases: IntArray) -> Floats:
        """Return the scores of all drugs, shape (n, D); they are comparable within a disease only.

        Args:
            features: of the graph.
            diseases: shape (n,), numbered within their type.
        """
        scores = self.paths.scores(features, diseases)
        if self.treatment_decoder is not None:
            weights = [self._blend(features, disease).weight for disease in diseases.tolist()]
            decoded = self.treatment_decoder.log_softmax(diseases)
            scores += np.array(weights, np.float32)[:, None] * decoded
        self._add_gnn(features, diseases, scores, _GNN_WEIGHT)
        return np.round(scores, _DIGITS)

    def decoder_scores(self, features: MetapathFeatures, diseases: IntArray) -> Floats:
        """Return log-softmax of the treatment decoder + 0.4 * log-lift by the GNN, shape (n, D).

        Args:
            features: of the graph; only the known drugs are read.
            diseases: shape (n,), numbered within their type.

        Raises:
            ValueError: the ranker was fitted without a GNN.
        """
        if self.treatment_decoder is None:
            raise ValueError("this ranker was fitted without a GNN, so it lacks the decoders")
        scores = self.treatment_decoder.log_softmax(diseases)
        self._add_gnn(features, diseases, scores, _GNN_WEIGHT_ALONE)
        return scores

    def _add_gnn(
        self, features: MetapathFeatures, diseases: IntArray, scores: Floats, weight: float
    ) -> None:
        """Add weight * log-lift to `scores`, in place, for diseases with known drugs."""
        for row, disease in zip(scores, diseases.tolist(), strict=True):
            imputed = self._blend(features, disease).imputed
            if self.gnn is not None and imputed is not None:
                known = np.zeros(len(row), bool)
                known[features.known_drugs(disease)] = True
                lift = self.gnn.log_lifts(np.array([disease]), known[None])[0]
                lift[known] = imputed(row[known])
                row += np.float32(weight) * lift

    def probabilities(
        self, features: MetapathFeatures, diseases: IntArray, scores: Floats
    ) -> Floats:
        """Return the probability that each pair is a recorded indication, shape (n, D)."""
        out = np.zeros_like(scores)
        for i, disease in enumerate(diseases.tolist()):
            out[i] = self._blend(features, disease).calibration.probability(scores[i])
        return out

    def _blend(self, features: MetapathFeatures, disease: int) -> Blend:
        return self.with_known if features.num_known(disease) > 0 else self.without_known


def why_no_ranker(graph: KnowledgeGraph) -> str | None:
    """Return why a ranker cannot be fitted on a graph; None if it can be fitted."""
    try:
        known = treatments(graph)
    except InputError as error:
        return str(error)
    treated = int((known.sum(axis=0) > 0).sum())
    return None if treated > 1 else "the graph has a known drug for one disease only"


@one_thread(True)  # its products are small; beside a busy process, two threads take 6 times as long
def fit_drug_ranker(
    graph: KnowledgeGraph, *, gnn: GnnScores | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker, its weights and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        gnn: scores by a GNN trained on the graph; None fits the path ranker alone.
        seed: seed of all sampling.

    Raises:
        InputError: the graph lacks known pairs; see `why_no_ranker`.
    """
    features = MetapathFeatures(graph, for_many=False)
    paths = fit_path_ranker(features, seed=seed)
    # If the graph is too small to leave diseases out, the weights are fitted on all treated ones.
    asked = [out if len(out) else features.treated for out in paths.left_out]
    known = np.concatenate([features.known[:, s].toarray().T > 0 for s in asked])

    def by_paths(use_known: bool) -> Floats:
        scores = [
            paths.scores_by_mlp(features, diseases, use_known=use_known)[:, n]
            for n, diseases in enumerate(asked)
        ]
        return np.concatenate(scores)

    treatment_decoder, gnn_decoder, decoded, decoded_unknown, lifts = None, None, None, None, None
    if gnn is not None:
        drugs = gnn.embeddings[slice(*node_range_of(graph, graph.vocabulary.drug_type))]
        decoders = fit_decoders(graph, drugs, left_out=paths.left_out, asked=asked, seed=seed)
        decoded, decoded_unknown = decoders.with_known, decoders.without_known
        treatment_decoder, gnn_decoder = decoders.score, gnn.of_treatments(graph)
        lifts = gnn_decoder.log_lifts(np.concatenate(asked), known)
    with_known = _fit_blend(by_paths(True), decoded, lifts, known)
    without_known = _fit_blend(by_paths(False), decoded_unknown, None, known)
    names = features.feature_names
    return DrugRanker(paths, treatment_decoder, gnn_decoder, with_known, without_known, names)


def _fit_blend(
    scores: Floats, decoded: list[Floats] | None, lifts: Floats | None, known: npt.NDArray[np.bool_]
) -> Blend:
    """Fit a `Blend` on scores of diseases that were left out of the training."""
    weight, imputed = 0.0, None
    if decoded is not None:
        log_softmax = np.concatenate(decoded)
        weight = _TRUST * fit_weight(scores, log_softmax, known)
        scores = np.asarray(scores + weight * log_softmax, np.float32)
    if lifts is not None:
        imputed = fit_imputed_score(scores, lifts, known)
        unseen = np.where(known, imputed(scores), lifts)
        scores = np.asarray(scores + _GNN_WEIGHT * unseen, np.float32)
    return Blend(weight, imputed, fit_calibration(scores.ravel(), known.ravel()))


def rank_fit_bytes(graph: KnowledgeGraph) -> int:
    """Predict the bytes that the fit needs in addition to the graph, from node degrees alone.

    With T treated diseases, K known pairs, D drugs, S diseases, B base features, W similarities of
    drugs and C candidates per example, the result is the sum of these parts, in bytes:

    - path counts: 8 for each path of a metapath, or for each pair of end nodes if there are fewer
      pairs; times 4 for metapaths from drugs, times 3 for metapaths from diseases
    - random walks: 4 T S for each relation between diseases; drugs that diseases share: 8 T T
    - the larger of: 2 C (T B + K W) + 4 * 48 B D for the examples and the features of 48 diseases;
      and the memory of the treatment decoder, see `_decoder_bytes`

    Args:
        graph: on the CPU.
    """
    drug, disease = graph.vocabulary.drug_type, graph.vocabulary.disease_type
    treats = {EdgeType(drug, relation, disease) for relation in graph.vocabulary.treats}
    known = [kind for kind in graph.edge_types if kind in treats]
    if not known:
        return 0
    num_pairs = int(sum(_degrees(graph, k).sum() for k in known))
    num_drugs, num_diseases = _size(graph, drug), _size(graph, disease)
    treated = int(np.count_nonzero(sum(_degrees(graph, k.reverse) for k in known)))
    drugs, diseases = (_path_entries(graph, kind) for kind in (drug, disease))
    matrices = 4 * sum(drugs.values()) + 3 * sum(diseases.values())
    within = [k for k in graph.edge_types if k.src_type == k.dst_type == disease]
    for kind in within:
        third = _neighbor_sum(graph, kind, _neighbor_sum(graph, kind, _degrees(graph, kind)))
        matrices += min(float(third.sum()), num_diseases**2)
    connecting = sum(meet(a, b) for a in drugs for b in diseases)
    of_drugs = len(drugs) + 1 + 2 * sum(k.src_type == k.dst_type == drug for k in graph.edge_types)
    of_diseases = len(diseases) + 1 + 4 * len(within)
    num_base = connecting + 3 * of_diseases + 2 * of_drugs
    num_base += len(steps_from(graph, drug)) + 4
    fraction = min(1.0, MAX_EXAMPLES / max(treated, 1))
    candidates = min(num_drugs, NUM_HARD + NUM_EASY)
    examples = 2 * candidates * fraction * (treated * num_base + num_pairs * (of_drugs + 5))
    examples += 4 * _CHUNKS * num_base * num_drugs
    dense = 4 * len(within) * treated * num_diseases + 8 * treated**2
    return int(_ENTRY * matrices + dense + max(examples, _decoder_bytes(graph)))


def _decoder_bytes(graph: KnowledgeGraph) -> int:
    """Predict the bytes for fitting one treatment decoder; only one is fitted at a time.

    With N nodes of all types that share edges with drugs or diseases, C channels and L propagation
    steps, the sum of: 4 N C (L + 8) for one array of vectors per step and eight more; six arrays
    with the scores of one training step; and the sparse matrices in both directions.
    """
    ends = {graph.vocabulary.drug_type, graph.vocabulary.disease_type}
    near = [k for k in graph.edge_types if {k.src_type, k.dst_type} & ends]
    counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
    types = {t for k in near for t in (k.src_type, k.dst_type)}
    vectors = 4 * DIM * (NUM_STEPS + 8) * sum(_size(graph, t) for t in types)
    edges = 2 * _ENTRY * sum(counts[k] for k in near if counts[k] <= MAX_EDGES)
    return int(vectors + edges + 6 * 4 * MAX_DISEASES * _size(graph, graph.vocabulary.drug_type))


def _path_entries(graph: KnowledgeGraph, start: str) -> dict[Metapath, float]:
    """Return an upper bound of the number of nonzeros of each matrix in `path_counts`."""
    entries: dict[Metapath, float] = {}
    for first in steps_from(graph, start):
        degrees = _degrees(graph, first.reverse)
        entries[(first,)] = float(degrees.sum())
        for second in steps_from(graph, first.dst_type):
            most = _size(graph, start) * _size(graph, second.dst_type)
            entries[first, second] = min(float(degrees @ _degrees(graph, second)), most)
    return entries


def _degrees(graph: KnowledgeGraph, kind: EdgeType) -> _Counts:
    """Return the number of edges of one type that start at each source node."""
    indptr = graph.indptr_of(graph.edge_types.index(kind.reverse))
    return indptr.diff().numpy().astype(np.float64)


def _neighbor_sum(graph: KnowledgeGraph, kind: EdgeType, values: _Counts) -> _Counts:
    """Return for each target node the sum of the values of its source nodes."""
    r = graph.edge_types.index(kind)
    first, _ = graph.node_range(graph.endpoint_types[r][0])
    total = np.concatenate([[0.0], np.cumsum(values[graph.src_of(r).numpy() - first])])
    at = graph.indptr_of(r).numpy()
    return np.asarray(np.diff(total[at - at[0]]))


def _size(graph: KnowledgeGraph, node_type: str) -> int:
    first, stop = node_range_of(graph, node_type)
    return stop - first
