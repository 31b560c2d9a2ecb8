"""The drug ranker that is saved with a model: paths in the graph, and neighbors in the embeddings.

score = log-softmax of the path ranker + weight * log(neighbors + 0.001)

"neighbors" is the score of `neighbors` with imputed votes, divided by the largest of the disease.
The embeddings were trained with every known pair, so a weight that is fitted on known pairs is too
large. The weight is the fitted one, at most 0.5, and an imputed score replaces the neighbors' part
of known pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..system.errors import InputError
from ..system.machine import one_thread, trim_heap
from ..system.processes import cached_property
from .calibration import Calibration, ImputedScore, fit_calibration, fit_imputed_score, fit_weight
from .listwise_examples import fit_workers
from .metapath_features import MetapathFeatures
from .neighbors import Neighbors, of_largest
from .path_scores import HIDDEN_SHARE, Form, HiddenPairs, PathRanker
from .treatments import mask_of, treatments

if TYPE_CHECKING:
    from torch import Tensor

_MAX_WEIGHT = 0.5  # of the neighbors; weights from 0.25 to 1 rank a real graph about equally
_LEAST = 1e-3  # added to the neighbors' scores, many of which are 0
NUM_TESTED = 512  #: limit of diseases on which the ranker is tested, and at most so many left out
# The curve for diseases without known drugs is fitted on diseases with so many drugs, as `cdd
# evaluate` holds out; if few have so many, on all. The few with more drugs have most of the pairs
# with high scores: with them, probabilities from 0.1 to 0.4 were too high by a fifth.
_MIN_KNOWN, _MAX_KNOWN, _MIN_DISEASES = 3, 40, 20
_MIN_HIDDEN = 25  # with fewer hidden pairs, the diseases that were left out serve in their place
DIGITS = 4  #: decimals of a score: smaller differences are rounding errors, and count as ties
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
        """Return the neighbors in the graph of the features. The last ones are kept."""
        for asked, kept in self._last:
            if asked is features:
                return kept
        made = Neighbors(*self._wide, csr_array(features.known.T), features.treated)
        self._last[:] = [(features, made)]
        return made

    @cached_property
    def _last(self) -> list[tuple[MetapathFeatures, Neighbors]]:
        return []

    @cached_property
    def _wide(self) -> tuple[Floats, Floats]:
        return self.drugs.astype(np.float32), self.diseases.astype(np.float32)


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
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        *,
        popularity: bool = True,
        many: bool = False,
    ) -> Floats:
        """Return the scores of all drugs, shape (n, D); they are comparable within a disease only.

        Args:
            features: of the graph.
            diseases: shape (n,), numbered within their type.
            popularity: add the popularity of the drugs, see `path_ranker`.
            many: see `PathRanker.scores_by_mlp`.
        """
        near = None
        if self.vectors is not None:
            near = of_largest(self.vectors.neighbors(features).scores(diseases, impute=True))
        return self.scores_with(near, features, diseases, popularity=popularity, many=many)

    def scores_with(
        self,
        near: Floats | None,
        features: MetapathFeatures,
        diseases: IntArray,
        *,
        popularity: bool = True,
        many: bool = False,
    ) -> Floats:
        """Return `scores`, given the scores of `neighbors` as shares of the largest of a disease.

        Args:
            near: shape (n, D); None if the ranker uses paths alone.
            features: see `scores`.
            diseases: see `scores`.
            popularity: see `scores`.
            many: see `scores`.
        """
        scores = self.paths.scores(features, diseases, popularity=popularity, many=many)
        if near is not None:
            for row, disease, part in zip(scores, diseases.tolist(), log_shares(near), strict=True):
                blend, known = self.blend(features, disease), features.known_drugs(disease)
                if blend.imputed is not None:
                    part[known] = blend.imputed(row[known])
                row += np.float32(blend.weight) * part
        return np.round(scores, DIGITS)

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
        those of diseases with 3 to 40 recorded treatments.

        Args:
            features: of the graph.
            diseases: shape (n,), numbered within their type.
            scores: shape (n, D), from `scores`.
            popularity: whether the scores include popularity.
        """
        recorded, treats = np.zeros_like(scores), np.zeros_like(scores)
        count = features.known_counts[diseases]
        among = scores + np.log(np.maximum(count, 1)).astype(np.float32)[:, None]
        for blend, rows in ((self.with_known, count > 0), (self.without_known, count == 0)):
            calibration = blend.calibration if popularity else blend.without_popularity
            recorded[rows] = calibration.probability(among[rows])
            treats[rows] = calibration.probability_treats(among[rows])
        return recorded, treats

    def blend(self, features: MetapathFeatures, disease: int) -> Blend:
        """Return the fitted numbers for a disease."""
        return self.with_known if features.num_known(disease) > 0 else self.without_known


def log_neighbors(scores: Floats) -> Floats:
    """Return log(score / largest score of the row + 0.001), shape (n, D)."""
    return log_shares(of_largest(scores))


def log_shares(shares: Floats) -> Floats:
    """Return log(share + 0.001), any shape."""
    return np.asarray(np.log(shares + np.float32(_LEAST)), np.float32)


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
    from .path_ranker import fit_path_ranker  # imports torch, which a fitted ranker does not need

    features = MetapathFeatures(graph, for_many=False)
    paths, hidden = fit_path_ranker(features, seed=seed)
    trim_heap()  # of the examples, 0.5 GiB on a graph of PrimeKG's size
    neighbors = None if embeddings is None else Neighbors.of(graph, embeddings)
    test = _Test(paths, features, neighbors)
    enough = len(hidden.pairs) >= _MIN_HIDDEN
    with_known = test.hidden(hidden) if enough else test.left_out(use_known=True)
    return DrugRanker(
        paths,
        None if neighbors is None else Vectors.of(neighbors),
        with_known,
        test.left_out(use_known=False),
        features.feature_names,
        features.popularity_names,
    )


def _some(diseases: IntArray, most: int) -> IntArray:
    """Return at most `most` of the diseases, evenly spaced."""
    return diseases[:: -(-len(diseases) // most) or 1]


@dataclass(frozen=True)
class _Test:
    """The fit of the last numbers of a ranker, on pairs that its MLPs have not learned."""

    paths: PathRanker
    features: MetapathFeatures
    neighbors: Neighbors | None  #: of embeddings that were trained with all known pairs

    def hidden(self, pairs: HiddenPairs) -> Blend:
        """Fit the numbers for diseases with known drugs, on the pairs hidden from all MLPs."""
        rows = _some(np.arange(len(pairs.diseases)), NUM_TESTED)
        diseases = pairs.diseases[rows]
        known = mask_of(self.features.known, diseases)
        every = np.zeros((len(pairs.diseases), self.features.num_drugs), bool)
        every[pairs.pairs[:, 0], pairs.pairs[:, 1]] = True
        hidden = every[rows]
        forms = [Form(popularity=popular) for popular in (True, False)]
        by_mlp = self._scores(self.paths, diseases, forms, hidden)
        near = None
        if self.neighbors is not None:
            near = self.neighbors.scores(diseases, impute=True)
        count = (known & ~hidden).sum(axis=1, keepdims=True)
        scores = [values.mean(axis=1) for values in by_mlp]
        return self._fit(scores, near, known, hidden, np.log(count), 1 / HIDDEN_SHARE)

    def left_out(self, *, use_known: bool) -> Blend:
        """Fit the numbers on diseases that an MLP has left out; each is scored by that MLP.

        If an MLP did not leave out any, all treated diseases take their place.

        Args:
            use_known: each pair is scored as if the other known drugs were known. Otherwise, as if
                none were known: only on diseases with 3 to 40 known drugs, unless few have so
                many.
        """
        left_out, treated = self.paths.left_out, self.features.treated
        asked = [_some(a if len(a) else treated, NUM_TESTED // len(left_out)) for a in left_out]
        if not use_known:
            counts = self.features.known_counts
            usual = [a[(counts[a] >= _MIN_KNOWN) & (counts[a] <= _MAX_KNOWN)] for a in asked]
            if sum(map(len, usual)) >= _MIN_DISEASES:
                asked = usual
        diseases = np.concatenate(asked)
        known = mask_of(self.features.known, diseases)
        forms = [Form(use_known, popular) for popular in (True, False)]
        found = zip(
            *(self._scores(self.paths.only(n), some, forms) for n, some in enumerate(asked)),
            strict=True,
        )
        scores = [np.concatenate(parts)[:, 0] for parts in found]
        near = None
        if self.neighbors is not None:
            if use_known:
                near = self.neighbors.scores(diseases, impute=True)
            else:
                near = self.neighbors.votes_and_imputed(diseases)
        if use_known:
            return self._fit(scores, near, known, known, np.log(known.sum(axis=1))[:, None], 1.0)
        return self._fit(scores, near, known, known, 0, 1)

    def _scores(
        self,
        paths: PathRanker,
        diseases: IntArray,
        forms: Sequence[Form],
        hidden: _Mask | None = None,
    ) -> list[Floats]:
        """Return `scores_by_mlp` of a path ranker, and free the memory that it has used."""
        found = paths.scores_by_mlp(
            self.features, diseases, forms, hidden, many=True, workers=fit_workers()
        )
        trim_heap()  # 0.3 GiB on a graph of PrimeKG's size
        return found

    def _fit(
        self,
        scores: Sequence[Floats],
        neighbors: Floats | None,
        known: _Mask,
        unseen: _Mask,
        offset: Floats | float,
        weight: float,
    ) -> Blend:
        """Fit a `Blend`.

        The curve is fitted on the scores of the paths alone, then moved to the scores with the
        neighbors: these rank the known pairs too well to fit on.

        Args:
            scores: each of shape (n, D), of the path ranker with and without popularity.
            neighbors: shape (n, D), scores of the neighbors.
            known: shape (n, D), true for known pairs.
            unseen: shape (n, D), true for those that the path ranker has not learned.
            offset: added to the scores, as `probabilities` does.
            weight: of each unseen pair, 1 / (the probability that it was hidden).
        """
        factor, imputed = 0.0, None
        if neighbors is not None:
            near = log_neighbors(neighbors)
            factor = min(fit_weight(scores[0], near, unseen, ~known), _MAX_WEIGHT)
            imputed = fit_imputed_score(scores[0], near, known)
        counted, curves = unseen | ~known, []
        for values in scores:
            total = (values + offset).astype(np.float32)
            curve = fit_calibration(total[counted], unseen[counted], weight)
            if neighbors is not None:  # the neighbors know the known pairs, but not the others
                curve = curve.moved(total[~known], (total + factor * near)[~known])
            curves.append(curve)
        return Blend(factor, imputed, *curves)
