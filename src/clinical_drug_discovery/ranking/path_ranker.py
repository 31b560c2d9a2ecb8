"""A ranker of drugs for a disease, trained on metapath features.

score = anchor weight * log(random walks) + MLP(features of metapaths) + popularity. The random
walks lead from the diseases that the drug treats to the asked one. They are the best single
feature, so the training starts from them. The popularity is a small network over features of the
drug alone, such as the number of diseases that it treats; it can be left out of a ranking.

Small multilayer perceptrons (MLPs) are trained with a listwise loss: the softmax for a known pair
runs over all drugs except the other known drugs of the disease. The training shows each disease in
two ways: with no known drug, and with all known drugs but one. One ranker thus serves both diseases
with known drugs and diseases without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray
from ..system.log import part
from ..system.machine import one_thread
from ..training.optimizer import Adam
from .drug_similarity import co_indicated_features, co_indicated_features_without
from .listwise_examples import ListwiseExample, feature_scales, sample_examples, squash
from .metapath_features import MetapathFeatures
from .score_mlp import ScoreMlp, StackedMlps, stack_mlps

_HIDDEN, _LEARNING_RATE = 64, 3e-3  # width of the first hidden layer; highest learning rate
_BATCH = 4  # examples per training step
_MIN_STEPS = 120  # on a small graph, more epochs give this number of training steps
_MAX_POSITIVES = 4  # limit of known drugs to predict per disease and epoch, each hidden in turn
_DISCOUNT = 0.3  # the loss of a disease with k known drugs has the weight k^(1 - 0.3)
_MIN_STD = 0.02  # added to every standard deviation
_WARM_UP, _WEIGHT_DECAY = 0.15, 0.01  # warm-up as a fraction of all steps; weight decay
_CHUNK = 32  # diseases scored at a time; their features take 90 MB on PrimeKG
NUM_FOLDS = 4  #: each MLP leaves a different quarter of the treated diseases out of the training
HIDDEN_SHARE = 0.1  #: of the pairs of diseases with several known drugs, hidden from all MLPs
_Mask = npt.NDArray[np.bool_]


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

    mlps: tuple[ScoreMlp, ...]
    base_scale: Floats  #: shape (B,)
    co_indicated_scale: Floats  #: shape (2 W + 1,)
    seconds: dict[str, float]  #: duration of each part of the training
    left_out: tuple[IntArray, ...]  #: treated diseases that each MLP was not trained on

    @cached_property
    def _stacked(self) -> StackedMlps:
        return stack_mlps(self.mlps)

    @one_thread(True)  # as in the fit of the drug ranker
    def scores(
        self, features: MetapathFeatures, diseases: IntArray, *, popularity: bool = True
    ) -> Floats:
        """Return the mean log-softmax of the MLPs over all drugs, shape (n, D).

        The scores are comparable within a disease only.

        Args:
            features: of a graph with the same metapaths.
            diseases: shape (n,).
            popularity: add the popularity of the drugs.
        """
        by_mlp = self.scores_by_mlp(features, diseases, [Form(popularity=popularity)])[0]
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
    ) -> list[Floats]:
        """Return the log-softmax of each MLP over all drugs, shape (n, M, D), in several forms.

        Args:
            features: see `scores`.
            diseases: shape (n,).
            forms: parts to use; the features are computed once for all forms.
            hidden: shape (n, D), known drugs that do not count as known.
        """
        # The first layer is applied to the features of a disease once for all drugs. Features that
        # are 0 for all drugs are skipped.
        shape = (len(diseases), len(self.mlps), features.num_drugs)
        out = [np.empty(shape, np.float32) for _ in forms]
        for first in range(0, len(diseases), _CHUNK):
            chunk = diseases[first : first + _CHUNK]
            of_pairs, of_diseases = features.base_parts(chunk)
            disease_at = np.arange(of_pairs.shape[1], len(self.base_scale))
            squashed_diseases = squash(of_diseases.T, self.base_scale[disease_at])
            for i, disease in enumerate(chunk.tolist()):
                which = np.flatnonzero(of_pairs[i].any(axis=1))
                squashed = squash(of_pairs[i][which], self.base_scale[which])
                start = self._stacked.partial_sum(squashed_diseases[:, [i]], disease_at)
                start += self._stacked.first_bias
                rest = self._rest(features, disease, of_pairs[i])
                for use_known in dict.fromkeys(form.use_known for form in forms):
                    values, at = squashed, which
                    if use_known and features.num_known(disease):
                        but = None if hidden is None else hidden[first + i]
                        near, also = self._co_indicated(features, disease, but)
                        values, at = np.concatenate([squashed, also]), np.r_[which, near]
                    scores = self._stacked.scores(values, at, start)
                    for form, result in zip(forms, out, strict=True):
                        if form.use_known == use_known:
                            total = scores + rest[form.popularity]
                            result[first + i] = torch.log_softmax(total, dim=1).numpy()
        return out

    def _co_indicated(
        self, features: MetapathFeatures, disease: int, hidden: _Mask | None
    ) -> tuple[IntArray, Floats]:
        """Return which features of co-indicated drugs are not 0, and their squashed values."""
        drugs, similarity = features.co_indicated_similarity(disease)
        also = co_indicated_features(
            similarity if hidden is None else similarity[:, ~hidden[drugs]]
        )
        near = np.flatnonzero(also.any(axis=1))
        return near + len(self.base_scale), squash(also[near], self.co_indicated_scale[near])

    @torch.no_grad()
    def _rest(
        self, features: MetapathFeatures, disease: int, of_pairs: Floats
    ) -> tuple[Tensor, Tensor]:
        """Return for each MLP the anchor, and the anchor plus the popularity, each (M, D)."""
        walk = torch.from_numpy(features.walk_anchor(of_pairs))
        of_drugs = torch.from_numpy(features.popularity(disease).T)
        anchor = torch.stack([mlp.anchor * walk for mlp in self.mlps])
        return anchor, anchor + torch.stack([mlp.popular(of_drugs) for mlp in self.mlps])


def fit_path_ranker(
    features: MetapathFeatures, *, num_mlps: int = 2, num_epochs: int = 8, seed: int = 0
) -> tuple[PathRanker, HiddenPairs]:
    """Train a ranker on the known pairs of a graph.

    Args:
        features: of the graph.
        num_mlps: number of MLPs, whose scores are averaged. Each MLP has its own seed, and is not
            trained on a quarter of the treated diseases. A tenth of the pairs is hidden from all
            MLPs. So the scores can be tested on both.
        num_epochs: least number of passes over the treated diseases for each MLP.
        seed: seed of all sampling.

    Returns:
        The ranker, and the pairs that were hidden from all MLPs.
    """
    start = perf_counter()
    with part("Fitting the drug ranker: sampling examples"):
        base_scale, co_indicated_scale = feature_scales(features)
        examples = sample_examples(features, base_scale, seed=seed)
    sampled = perf_counter()
    mean, std = _moments(examples, co_indicated_scale)
    rng = np.random.default_rng(seed)
    # The folds are disjoint if there are enough examples. A single example is not left out.
    order = rng.permutation(len(examples))
    folds = np.array_split(order, min(NUM_FOLDS, len(order)))
    left_out = [np.sort(folds[n % len(folds)][: len(order) - 1]) for n in range(num_mlps)]
    hidden = _hide(examples, rng)
    mlps = []
    for n, out in enumerate(left_out):
        label = f"path ranker {n + 1} of {num_mlps}"
        generator = torch.Generator().manual_seed(seed * 1000 + n)
        mlp = ScoreMlp(mean, std, examples[0].popularity.shape[1], _HIDDEN)
        mlp.initialise(generator)
        learned = [(examples[i], hidden[i]) for i in np.setdiff1d(order, out)]
        _train(mlp, learned, co_indicated_scale, num_epochs, generator, label)
        mlps.append(mlp)
    seconds = {"features": sampled - start, "mlps": perf_counter() - sampled}
    diseases = np.array([example.disease for example in examples], np.int64)
    several = [i for i, mask in enumerate(hidden) if len(mask) > 1]
    pairs = [
        (row, drug)
        for row, i in enumerate(several)
        for drug in features.known_drugs(int(diseases[i]))[hidden[i]].tolist()
    ]
    asked = tuple(diseases[out] for out in left_out)
    ranker = PathRanker(tuple(mlps), base_scale, co_indicated_scale, seconds, asked)
    return ranker, HiddenPairs(diseases[several], np.array(pairs, np.int64).reshape(-1, 2))


def _hide(examples: Sequence[ListwiseExample], rng: np.random.Generator) -> list[_Mask]:
    """Draw the pairs to hide: one mask over the k known drugs of each example.

    One drug of each disease stays. Each of the others is drawn with the probability
    h k / (k - 1), so each pair of a disease with two drugs or more has the probability h.
    """
    masks = []
    for k in (example.num_positives for example in examples):
        mask = rng.random(k) < HIDDEN_SHARE * k / max(k - 1, 1)
        mask[rng.integers(k)] = False
        masks.append(mask)
    return masks


def _train(
    mlp: ScoreMlp,
    examples: list[tuple[ListwiseExample, _Mask]],
    co_indicated_scale: Floats,
    num_epochs: int,
    generator: torch.Generator,
    label: str,
) -> None:
    weights = list(mlp.parameters())
    optimizer = Adam(weights, _LEARNING_RATE)
    steps_per_epoch = -(-len(examples) // _BATCH)
    num_epochs = max(num_epochs, -(-_MIN_STEPS // steps_per_epoch))
    num_steps, step = num_epochs * steps_per_epoch, 0
    with part(f"Fitting the drug ranker: {label}", num_steps) as advance:
        for _ in range(num_epochs):
            order = torch.randperm(len(examples), generator=generator)
            for batch in order.split(_BATCH):
                losses = [_loss(mlp, examples[i], co_indicated_scale, generator) for i in batch]
                torch.autograd.backward(torch.stack(losses).sum() / (_BATCH * 3))
                fraction = _one_cycle(step / num_steps)
                with torch.no_grad():  # decoupled weight decay: arXiv:1711.05101
                    for weight in weights:
                        weight.mul_(1 - fraction * _LEARNING_RATE * _WEIGHT_DECAY)
                optimizer.step(fraction)
                step += 1
                advance()


def _one_cycle(progress: float) -> float:
    """Return learning rate / highest rate: it rises from 1/25 to 1 and then falls to 0."""
    if progress < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2


def _loss(
    mlp: ScoreMlp,
    example_and_hidden: tuple[ListwiseExample, _Mask],
    co_indicated_scale: Floats,
    generator: torch.Generator,
) -> Tensor:
    """Return the weighted loss of one example; a random half of the calls hide all known drugs.

    Hidden drugs are negatives, as are the drugs of which the graph does not say that they treat.
    """
    example, hidden = example_and_hidden
    positive = np.zeros(len(example.base), bool)
    positive[: len(hidden)] = ~hidden
    at, others = torch.from_numpy(np.flatnonzero(positive)), torch.from_numpy(~positive)
    base = torch.from_numpy(example.base).float()
    log_probability = torch.from_numpy(example.log_probability)
    rest = torch.from_numpy(example.anchor), torch.from_numpy(example.popularity).float()
    if torch.rand(1, generator=generator) < 0.5:
        nothing = torch.zeros(len(base), len(co_indicated_scale))
        scores = mlp(torch.cat([base, nothing], dim=1)[None], *rest, generator)[0] - log_probability
        positives = scores[at]
        losses = torch.logaddexp(scores[others].logsumexp(dim=0), positives) - positives
    else:
        chosen = torch.randperm(len(at), generator=generator)[:_MAX_POSITIVES]
        similarity = example.co_indicated[:, ~hidden].astype(np.float32)
        also = co_indicated_features_without(similarity, chosen.numpy())
        squashed = torch.from_numpy(squash(also, co_indicated_scale)).transpose(1, 2)
        features = torch.cat([base.expand(len(chosen), -1, -1), squashed], dim=2)
        scores = mlp(features, *rest, generator) - log_probability
        positives = scores.gather(1, at[chosen][:, None])[:, 0]
        # The other known drugs of the disease are not among the negatives.
        losses = torch.logaddexp(scores[:, others].logsumexp(dim=1), positives) - positives
    weighted: Tensor = losses.mean() * len(at) ** (1 - _DISCOUNT)
    return weighted


def _moments(examples: list[ListwiseExample], co_indicated_scale: Floats) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation of every feature over a sample of candidates."""
    base = np.concatenate([example.base[::9].astype(np.float32) for example in examples])
    first = np.zeros(1, np.int64)
    sampled = (example.co_indicated[:, :, ::9].astype(np.float32) for example in examples[::3])
    without = (co_indicated_features_without(rows, first)[0] for rows in sampled)
    co_indicated = np.concatenate([squash(rows, co_indicated_scale).T for rows in without])
    mean = np.concatenate([base.mean(axis=0), co_indicated.mean(axis=0)])
    std = np.concatenate([base.std(axis=0), co_indicated.std(axis=0)]) + _MIN_STD
    return torch.from_numpy(mean), torch.from_numpy(std)
