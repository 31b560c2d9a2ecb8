"""The drug ranker that is saved with a model: paths in the graph, and neighbors in the embeddings.

score = log-softmax of the path ranker + weight * log(neighbors + 0.001)

"neighbors" is the score of `neighbors`, divided by the largest of the disease. The embeddings were
trained with every known pair, so a weight that is fitted on known pairs is too large. The weight is
the fitted one, at most 0.5, and an imputed score replaces the neighbors' part of known pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..system.errors import InputError
from ..system.machine import one_thread
from .calibration import Calibration, ImputedScore, fit_calibration, fit_imputed_score, fit_weight
from .metapath_features import MetapathFeatures
from .neighbors import Neighbors, of_largest
from .path_ranker import MAX_ASKED, Form, PathRanker, fit_path_ranker
from .treatments import treatments

_MAX_WEIGHT = 0.5  # of the neighbors; weights from 0.25 to 1 rank a real graph about equally
_LEAST = 1e-3  # added to the neighbors' scores, many of which are 0
_MIN_KNOWN, _MIN_DISEASES = 3, 20  # see `probabilities`; if fewer have so many, all are used
_DIGITS = 4  # decimals of a score: smaller differences are rounding errors, and count as ties
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Blend:
    """The fitted numbers for one kind of disease: with known drugs, or without."""

    weight: float  #: factor of the neighbors' part
    imputed: ImputedScore | None  #: replaces the neighbors' part of known pairs; None: no such part
    calibration: Calibration  #: of scores with popularity
    without_popularity: Calibration


@dataclass(frozen=True)
class Vectors:
    """The centered unit vectors of the embeddings, in half precision."""

    drugs: npt.NDArray[np.float16]  #: shape (D, dim)
    diseases: npt.NDArray[np.float16]  #: shape (S, dim)

    @staticmethod
    def of(neighbors: Neighbors) -> Vectors:
        """Return the vectors of neighbors, rounded."""
        return Vectors(*(v.astype(np.float16) for v in (neighbors.drugs, neighbors.diseases)))

    def neighbors(self, features: MetapathFeatures) -> Neighbors:
        """Return the neighbors in the graph of the features."""
        drugs, diseases = (v.astype(np.float32) for v in (self.drugs, self.diseases))
        return Neighbors(drugs, diseases, csr_array(features.known.T), features.treated)


@dataclass(frozen=True)
class DrugRanker:
    """All fitted parts of the ranker; the graph is not included."""

    paths: PathRanker
    vectors: Vectors | None  #: None: the ranker uses paths alone
    with_known: Blend  #: for diseases with a known drug
    without_known: Blend  #: for diseases without one
    feature_names: tuple[str, ...]  #: a graph to rank on must have the same features
    popularity_names: tuple[str, ...]  #: likewise

    @one_thread(True)  # as in the fit
    def scores(
        self, features: MetapathFeatures, diseases: IntArray, *, popularity: bool = True
    ) -> Floats:
        """Return the scores of all drugs, shape (n, D); they are comparable within a disease only.

        Args:
            features: of the graph.
            diseases: shape (n,), numbered within their type.
            popularity: add the popularity of the drugs, see `path_ranker`.
        """
        scores = self.paths.scores(features, diseases, popularity=popularity)
        if self.vectors is not None:
            near = log_neighbors(self.vectors.neighbors(features).scores(diseases))
            for row, disease, part in zip(scores, diseases.tolist(), near, strict=True):
                blend, known = self._blend(features, disease), features.known_drugs(disease)
                if blend.imputed is not None:
                    part[known] = blend.imputed(row[known])
                row += np.float32(blend.weight) * part
        return np.round(scores, _DIGITS)

    def probabilities(
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        scores: Floats,
        *,
        popularity: bool = True,
    ) -> tuple[Floats, Floats]:
        """Return two probabilities of each pair, each of shape (n, D).

        The first is that of a recorded indication, the second that of a treatment, recorded or not;
        see `Calibration`. The scores of a disease are log-shares of one, so the calibrated value is
        score + log(number of known drugs). For a disease without known drugs, the probabilities are
        those of diseases with at least three recorded treatments.

        Args:
            features: of the graph.
            diseases: shape (n,), numbered within their type.
            scores: shape (n, D), from `scores`.
            popularity: whether the scores include popularity.
        """
        recorded, treats = np.zeros_like(scores), np.zeros_like(scores)
        for i, disease in enumerate(diseases.tolist()):
            blend = self._blend(features, disease)
            calibration = blend.calibration if popularity else blend.without_popularity
            among = scores[i] + np.float32(np.log(max(features.num_known(disease), 1)))
            recorded[i] = calibration.probability(among)
            treats[i] = calibration.probability_treats(among)
        return recorded, treats

    def _blend(self, features: MetapathFeatures, disease: int) -> Blend:
        return self.with_known if features.num_known(disease) > 0 else self.without_known


def log_neighbors(scores: Floats) -> Floats:
    """Return log(score / largest score of the row + 0.001), shape (n, D)."""
    return np.asarray(np.log(of_largest(scores) + np.float32(_LEAST)), np.float32)


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
    graph: KnowledgeGraph, *, embeddings: Tensor | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        embeddings: shape (N, dim), of all nodes, on the CPU; None fits the path ranker alone.
        seed: seed of all sampling.

    Raises:
        InputError: the graph lacks known pairs; see `why_no_ranker`.
    """
    features = MetapathFeatures(graph, for_many=False)
    paths = fit_path_ranker(features, seed=seed)
    # If the graph is too small to leave diseases out, the probabilities are fitted on all treated
    # ones.
    asked = [_some(out if len(out) else features.treated) for out in paths.left_out]
    known = np.concatenate([features.known[:, s].toarray().T > 0 for s in asked])
    votes, all_parts = None, None
    if embeddings is not None:
        neighbors = Neighbors.of(graph, embeddings)
        every = np.concatenate(asked)
        votes = log_neighbors(neighbors.votes(every))
        all_parts = log_neighbors(neighbors.scores(every))

    forms = [Form(known, popular) for known in (True, False) for popular in (True, False)]
    by_form = [
        np.concatenate(parts)
        for parts in zip(
            *(
                [scores[:, n] for scores in paths.scores_by_mlp(features, some, forms)]
                for n, some in enumerate(asked)
            ),
            strict=True,
        )
    ]
    many = known.sum(axis=1) >= _MIN_KNOWN
    if many.sum() < _MIN_DISEASES:
        many[:] = True
    blends = []
    for i, near, rows in ((0, all_parts, slice(None)), (2, votes, many)):
        scores, unpopular = by_form[i][rows], by_form[i + 1][rows]
        part = None if near is None else near[rows]
        blends.append(
            _fit_blend(scores, unpopular, part, known[rows], count_known=i == 0, seed=seed)
        )
    return DrugRanker(
        paths,
        None if embeddings is None else Vectors.of(neighbors),
        blends[0],
        blends[1],
        features.feature_names,
        features.popularity_names,
    )


def _some(diseases: IntArray) -> IntArray:
    """Return at most `MAX_ASKED` of the diseases, evenly spaced."""
    return diseases[:: -(-len(diseases) // MAX_ASKED)]


def _fit_blend(
    scores: Floats,
    unpopular: Floats,
    near: Floats | None,
    known: _Mask,
    *,
    count_known: bool,
    seed: int,
) -> Blend:
    """Fit a `Blend` on scores of diseases that were left out of the training of the paths.

    Args:
        scores: shape (n, D), of the path ranker.
        unpopular: shape (n, D), of the path ranker without popularity.
        near: shape (n, D), from `log_neighbors`, trained on the known pairs.
        known: shape (n, D), true for known pairs.
        count_known: add log(number of known drugs) to the scores, as `probabilities` does.
        seed: seed of the differences of known pairs from their imputed score.
    """
    weight, imputed, rest = 0.0, None, np.zeros(1)
    if near is not None:
        weight = min(fit_weight(scores, near, known), _MAX_WEIGHT)
        imputed, rest = fit_imputed_score(scores, near, known)
    # Without these differences, known pairs would spread less than other pairs, and the curve would
    # be too flat.
    spread = np.random.default_rng(seed).choice(rest, known.shape)
    offset = np.log(known.sum(axis=1, keepdims=True)) if count_known else 0.0
    curves = []
    for values in (scores, unpopular):
        total = values + offset
        if near is not None and imputed is not None:
            total = total + weight * np.where(known, imputed(values) + spread, near)
        curves.append(fit_calibration(total.astype(np.float32).ravel(), known.ravel()))
    return Blend(weight, imputed, *curves)
