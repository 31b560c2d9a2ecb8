"""The scores of a trained path ranker, computed with numpy.

`path_ranker` trains the multilayer perceptrons (MLPs) of `score_mlp` with torch. A test holds both
equal.
Without torch, whose import takes longer than a question, the answer comes sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray
from ..system.machine import one_thread
from ..system.processes import cached_property, for_each
from .drug_similarity import co_indicated_features
from .listwise_examples import CHUNK, MAX_KNOWN, co_indicated_similarities, squash
from .metapath_features import MetapathFeatures
from .treatments import order_by_drugs

HIDDEN_SHARE = 0.1  #: of the pairs of diseases with several known drugs, hidden from all MLPs
POPULAR = 16  #: width of the hidden layer of the popularity
_MANY_DISEASES = 512  # in fewer, the import of torch takes longer than it saves
_GELU_CHUNK = 2**14  # numbers in a pass of `gelu`, which then stay in the CPU's cache
# Coefficients of 1 - erf(z) = (a1 t + ... + a5 t^5) exp(-z^2) with t = 1 / (1 + 0.3275911 z).
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_T = 0.3275911
_Mask = npt.NDArray[np.bool_]
Weights = Mapping[str, Floats]  #: of an MLP, by the names in the state dict of `ScoreMlp`


def mlp_shapes(num_features: int, num_popularity: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of all weights of an MLP."""
    layers = {
        "linear": (1, num_features), "first": (hidden, num_features),
        "second": (hidden // 2, hidden), "last": (1, hidden // 2),
        "popular_first": (POPULAR, num_popularity), "popular_last": (1, POPULAR),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (num_features,), "std": (num_features,), "anchor": ()
    }  # fmt: skip
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def gelu(x: Floats) -> Floats:
    """Apply the activation x * (cumulative normal distribution at x), in place.

    The error function has an absolute error below 2e-7 (Abramowitz and Stegun, "Handbook of
    Mathematical Functions", 1964, formula 7.1.26).

    Args:
        x: contiguous, any shape.
    """
    flat = x.reshape(-1)
    for start in range(0, len(flat), _GELU_CHUNK):
        part = flat[start : start + _GELU_CHUNK]
        size = np.abs(part)
        t = size * np.float32(_ERF_T / 2**0.5)
        t += 1
        np.reciprocal(t, out=t)
        tail = t * np.float32(_ERF[-1])
        for factor in _ERF[-2::-1]:
            tail += np.float32(factor)
            tail *= t
        np.square(part, out=t)
        t *= np.float32(-0.5)
        tail *= np.exp(t, out=t)
        tail *= size
        tail *= np.float32(0.5)
        np.maximum(part, 0, out=part)
        part -= tail
    return x


def is_worth_torch(num_diseases: int) -> bool:
    """Return whether so many diseases are scored sooner with torch, and import it then.

    Call this before `one_thread`, which limits the threads of libraries that are imported already.
    """
    if num_diseases < _MANY_DISEASES:
        return False
    import torch  # noqa: F401  # only its loading counts, see above

    return True


def gelu_of_torch(x: Floats) -> Floats:
    """Apply `gelu` in place; with torch, in a sixth of the time of many numpy operations."""
    import torch

    torch.ops.aten.gelu_(torch.from_numpy(x))
    return x


def log_softmax(x: Floats) -> Floats:
    """Return the logarithm of the softmax over the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def log_sum(x: Floats) -> Floats:
    """Return the logarithm of the sum of the exponentials over the last axis."""
    largest = x.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(x - largest).sum(axis=-1)))


@dataclass(frozen=True)
class StackedMlps:
    """The stacked weights of M MLPs, for features of shape (F, D): all drugs of one disease.

    Mean and standard deviation are folded into the first layer. A feature that is 0 for all drugs
    therefore adds 0 and can be left out. Anchor and popularity are not included.
    """

    first: Floats  #: shape (M (H + 1), F): `first` of all MLPs, then `linear` of all MLPs
    first_bias: Floats  #: shape (M (H + 1), 1)
    second: Floats  #: shape (M, H / 2, H)
    second_bias: Floats  #: shape (M, H / 2, 1)
    last: Floats  #: shape (M, 1, H / 2)
    last_bias: Floats  #: shape (M, 1, 1)

    def partial_sum(self, features: Floats, which: IntArray) -> Floats:
        """Return what K features contribute to the first layers, shape (M (H + 1), D or 1).

        Args:
            features: shape (K, D), after `squash`; (K, 1) if they are the same for all drugs.
            which: shape (K,), indices of these features.
        """
        return np.asarray(self.first[:, which] @ features)

    def scores(
        self, features: Floats, which: IntArray, start: Floats, *, many: bool = False
    ) -> Floats:
        """Return the scores of each MLP for the drugs of one disease, shape (M, D).

        Args:
            features: shape (K, D), after `squash`.
            which: shape (K,), indices of these features, ascending.
            start: shape (M (H + 1), D or 1): `first_bias` plus partial sums of all other features.
            many: see `PathRanker.scores_by_mlp`.
        """
        activate = gelu_of_torch if many else gelu
        num, _, hidden = self.second.shape
        x = self.partial_sum(features, which)
        x += start
        y = self.second @ activate(x[: num * hidden]).reshape(num, hidden, -1)
        y += self.second_bias
        scores = (self.last @ activate(y))[:, 0]
        scores += self.last_bias[:, 0]
        scores += x[num * hidden :]
        return np.asarray(scores)


def stack_mlps(mlps: Sequence[Weights]) -> StackedMlps:
    """Stack the weights of MLPs; all must have the same sizes."""

    def stack(name: str) -> Floats:
        return np.stack([mlp[name] for mlp in mlps])

    std = stack("std")[:, None]
    shift = stack("mean")[:, None] / std
    weights, biases = [], []
    for layer in ("first", "linear"):
        weight = stack(f"{layer}.weight")
        weights.append((weight / std).reshape(-1, weight.shape[2]))
        biases.append((stack(f"{layer}.bias") - (weight * shift).sum(axis=2)).ravel())
    return StackedMlps(
        np.concatenate(weights),
        np.concatenate(biases)[:, None],
        stack("second.weight"),
        stack("second.bias")[:, :, None],
        stack("last.weight"),
        stack("last.bias")[:, :, None],
    )


class Form(NamedTuple):
    """The parts of the score that are used."""

    use_known: bool = True  #: similarities to the known drugs of a disease
    popularity: bool = True  #: the popularity of drugs


class HiddenPairs(NamedTuple):
    """Known pairs that no MLP was trained on, on which the scores can be tested."""

    diseases: IntArray  #: the diseases of which pairs were drawn: all with at least two known drugs
    pairs: IntArray  #: shape (H, 2), the pairs: position in `diseases`, drug


@dataclass(frozen=True)
class PathRanker:
    """A trained ranker. It does not contain the features that it was trained on."""

    mlps: tuple[Weights, ...]
    base_scale: Floats  #: shape (B,)
    co_indicated_scale: Floats  #: shape (2 W + 1,)
    seconds: dict[str, float]  #: duration of each part of the training
    left_out: tuple[IntArray, ...]  #: treated diseases that each MLP was not trained on

    @cached_property
    def stacked(self) -> StackedMlps:
        """The MLPs in one."""
        return stack_mlps(self.mlps)

    @one_thread(True)  # as in the fit of the drug ranker
    def scores(
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        *,
        popularity: bool = True,
        many: bool = False,
    ) -> Floats:
        """Return the mean log-softmax of the MLPs over all drugs, shape (n, D).

        The scores are comparable within a disease only.

        Args:
            features: of a graph with the same metapaths.
            diseases: shape (n,).
            popularity: add the popularity of the drugs.
            many: see `scores_by_mlp`.
        """
        forms = [Form(popularity=popularity)]
        by_mlp = self.scores_by_mlp(features, diseases, forms, many=many)[0]
        return np.asarray(by_mlp.mean(axis=1))

    def only(self, number: int) -> PathRanker:
        """Return the ranker with one of its MLPs."""
        return replace(self, mlps=self.mlps[number : number + 1])

    def scores_by_mlp(
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        forms: Sequence[Form],
        hidden: _Mask | None = None,
        *,
        many: bool = False,
        workers: int = 1,
    ) -> list[Floats]:
        """Return the log-softmax of each MLP over all drugs, shape (n, M, D), in several forms.

        Args:
            features: see `scores`.
            diseases: shape (n,).
            forms: parts to use; the features are computed once for all forms.
            hidden: shape (n, D), known drugs that do not count as known.
            many: use torch, see `is_worth_torch`. The result differs by rounding errors.
            workers: number of threads; the result does not depend on it.
        """
        shape = (len(diseases), len(self.mlps), features.num_drugs)
        out = [np.empty(shape, np.float32) for _ in forms]

        def score(places: IntArray) -> None:
            for i, form, logits in self._logits(features, diseases, places, forms, hidden, many):
                out[form][i] = log_softmax(logits)

        for_each(score, _chunks(features, diseases), workers)
        return out

    def log_sums(
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        forms: Sequence[Form],
        *,
        many: bool = False,
    ) -> Floats:
        """Return what `log_softmax` subtracts, for each form and MLP; shape (forms, M, n).

        Args:
            features: see `scores_by_mlp`.
            diseases: see `scores_by_mlp`.
            forms: see `scores_by_mlp`.
            many: see `scores_by_mlp`.
        """
        out = np.empty((len(forms), len(self.mlps), len(diseases)), np.float32)
        for places in _chunks(features, diseases):
            for i, form, logits in self._logits(features, diseases, places, forms, None, many):
                out[form, :, i] = log_sum(logits)
        return out

    def _logits(
        self,
        features: MetapathFeatures,
        diseases: IntArray,
        places: IntArray,
        forms: Sequence[Form],
        hidden: _Mask | None,
        many: bool,
    ) -> Iterator[tuple[int, int, Floats]]:
        """Yield the place of a disease and of a form, and the scores before the softmax, (M, D).

        Args:
            features: see `scores_by_mlp`.
            diseases: see `scores_by_mlp`.
            places: which of the diseases.
            forms: see `scores_by_mlp`.
            hidden: see `scores_by_mlp`.
            many: see `scores_by_mlp`.
        """
        # The first layer is applied to the features of a disease once for all drugs. Features that
        # are 0 for all drugs are skipped.
        chunk = diseases[places]
        similarities = co_indicated_similarities(features, chunk[features.known_counts[chunk] > 0])
        of_pairs, of_diseases = features.base_parts(chunk)
        disease_at = np.arange(of_pairs.shape[1], len(self.base_scale))
        squashed_diseases = squash(of_diseases.T, self.base_scale[disease_at])
        for i, (place, disease) in enumerate(zip(places.tolist(), chunk.tolist(), strict=True)):
            which = np.flatnonzero(of_pairs[i].any(axis=1))
            squashed = squash(of_pairs[i][which], self.base_scale[which])
            start = self.stacked.partial_sum(squashed_diseases[:, [i]], disease_at)
            start += self.stacked.first_bias
            rest = self._rest(features, disease, of_pairs[i])
            for use_known in dict.fromkeys(form.use_known for form in forms):
                values, rows = squashed, which
                if use_known and features.num_known(disease):
                    but = None if hidden is None else hidden[place]
                    near, also = self._co_indicated(*next(similarities), but)
                    values, rows = np.concatenate([squashed, also]), np.r_[which, near]
                scores = self.stacked.scores(values, rows, start, many=many)
                for number, form in enumerate(forms):
                    if form.use_known == use_known:
                        yield place, number, scores + rest[form.popularity]

    def _co_indicated(
        self, drugs: IntArray, similarity: Floats, hidden: _Mask | None
    ) -> tuple[IntArray, Floats]:
        """Return which features of co-indicated drugs are not 0, and their squashed values."""
        also = co_indicated_features(
            similarity if hidden is None else similarity[:, ~hidden[drugs]]
        )
        near = np.flatnonzero(also.any(axis=1))
        return near + len(self.base_scale), squash(also[near], self.co_indicated_scale[near])

    def _rest(
        self, features: MetapathFeatures, disease: int, of_pairs: Floats
    ) -> tuple[Floats, Floats]:
        """Return for each MLP the anchor, and the anchor plus the popularity, each (M, D)."""
        walk = features.walk_anchor(of_pairs)
        anchor = np.stack([mlp["anchor"] * walk for mlp in self.mlps])
        return anchor, anchor + self._popularity(features, disease)

    def _popularity(self, features: MetapathFeatures, disease: int) -> Floats:
        """Return the popularity of all drugs by each MLP, shape (M, D); only known drugs differ."""
        last = self._last[-1] if self._last else None  # read once: other threads may replace it
        if last is None or last[0] is not features:
            last = features, self._popular(features.popularity(None))
            self._last[:] = [last]
        kept = last[1]
        drugs = features.known_drugs(disease)
        if not len(drugs):
            return kept
        found = kept.copy()
        found[:, drugs] = self._popular(features.popularity(disease)[:, drugs])
        return found

    def _popular(self, popularity: Floats) -> Floats:
        return np.stack([popular(mlp, popularity) for mlp in self.mlps])

    @cached_property
    def _last(self) -> list[tuple[MetapathFeatures, Floats]]:
        return []


def _chunks(features: MetapathFeatures, diseases: IntArray) -> list[IntArray]:
    """Return the places of diseases that are scored together; many of them share known drugs."""
    order = order_by_drugs(features.known_by_disease[diseases], MAX_KNOWN)
    return [order[first : first + CHUNK] for first in range(0, len(order), CHUNK)]


def popular(mlp: Weights, popularity: Floats) -> Floats:
    """Return the popularity of C drugs, shape (C,).

    Args:
        mlp: the weights.
        popularity: shape (G, C), see `MetapathFeatures.popularity`.
    """
    hidden = mlp["popular_first.weight"] @ popularity
    hidden += mlp["popular_first.bias"][:, None]
    last = mlp["popular_last.weight"] @ gelu(hidden)
    return np.asarray(last[0] + mlp["popular_last.bias"])
