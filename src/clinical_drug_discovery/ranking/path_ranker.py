"""A ranker of drugs for a disease, trained on metapath features.

Small multilayer perceptrons with a listwise loss: for each known pair a softmax over all drugs
except the disease's other known drugs. Each disease is learned in two ways: as if none of its drugs
were known, and as if all but one were. One ranker thus serves diseases of both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.ranking.drug_similarity import (
    co_indicated_features,
    co_indicated_features_without,
)
from clinical_drug_discovery.ranking.listwise_examples import (
    ListwiseExample,
    feature_scales,
    sample_examples,
    squash,
)
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.training.optimizer import Adam

_HIDDEN, _LEARNING_RATE = 64, 3e-3  # width of the first hidden layer; peak of the schedule
_BATCH = 4  # examples in a step
_MAX_POSITIVES = 4  # known drugs of a disease that an epoch hides, one at a time
_DISCOUNT = 0.3  # a disease with k known drugs weighs k^(1 - 0.3): between 1 and k
_MIN_STD = 0.02
_WARM_UP, _WEIGHT_DECAY = 0.15, 0.01  # fraction of the steps; per step and learning rate
_CHUNK = 32  # diseases scored at a time: 90 MB of features on PrimeKG
_FOLDS = 10  # each MLP leaves out another tenth of the treated diseases


class ScoreMlp(nn.Module):
    """Map features to a score: a linear layer plus a perceptron with two hidden layers."""

    def __init__(self, mean: Tensor, std: Tensor, hidden: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.linear = _linear(len(mean), 1)
        self.first = _linear(len(mean), hidden)
        self.second = _linear(hidden, hidden // 2)
        self.last = _linear(hidden // 2, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights as torch does, but not from the process's own generator."""
        for layer in (self.linear, self.first, self.second, self.last):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Score the candidates of P examples of equal length.

        Args:
            features: shape (P, C, F), squashed.
            generator: of the dropout; None for no dropout.

        Returns:
            Shape (P, C).
        """
        x = (features - self.mean) / self.std
        if generator is not None:  # whole features, so that the scores do not rely on a single one
            x = x * (torch.rand(len(x), 1, x.shape[2], generator=generator) > 0.1)
        hidden = _drop(functional.gelu(self.first(x)), generator)
        hidden = _drop(functional.gelu(self.second(hidden)), generator)
        scores: Tensor = (self.linear(x) + self.last(hidden))[..., 0]
        return scores


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer without values; `ScoreMlp.initialise` sets them."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return layer


def _drop(x: Tensor, generator: torch.Generator | None, probability: float = 0.2) -> Tensor:
    """Drop the same units for all candidates: a mask for each would take a fifth of the time."""
    if generator is None:
        return x
    kept = torch.rand(len(x), 1, x.shape[2], generator=generator) > probability
    return x * (kept / (1 - probability))


@dataclass(frozen=True)
class StackedMlps:
    """M MLPs as one, for scoring: features by drugs, so that nothing is transposed.

    The first layer contains the standardisation of the features. A feature that is 0 for all drugs
    then adds 0 to every product and can be left out.
    """

    first: Tensor  #: shape (M (H + 1), F), the hidden units of all MLPs, then all linear layers
    first_bias: Tensor  #: shape (M (H + 1), 1)
    second: Tensor  #: shape (M, H / 2, H)
    second_bias: Tensor  #: shape (M, H / 2, 1)
    last: Tensor  #: shape (M, 1, H / 2)
    last_bias: Tensor  #: shape (M, 1, 1)

    @torch.no_grad()
    def partial_sum(self, features: Floats, which: IntArray) -> Tensor:
        """Compute what some features add to the first layers, to be used for many diseases.

        Args:
            features: shape (K, D), squashed, or (K, 1) where they are the same for all drugs.
            which: shape (K,), their indices.

        Returns:
            Shape (M (H + 1), D or 1).
        """
        return self.first[:, torch.from_numpy(which)] @ torch.from_numpy(features)

    @torch.no_grad()
    def log_softmax(self, features: Floats, which: IntArray, start: Tensor) -> Floats:
        """Score the drugs of one disease.

        Args:
            features: shape (K, D), squashed.
            which: shape (K,), their indices, ascending. The other features are 0 or in `start`.
            start: shape (M (H + 1), D or 1), the sum of `first_bias` and of partial sums.

        Returns:
            Shape (M, D), for each MLP the log-softmax over the drugs.
        """
        num, _, hidden = self.second.shape
        x = self.first[:, torch.from_numpy(which)] @ torch.from_numpy(features)
        x += start
        linear = x[num * hidden :]
        y = functional.gelu(x[: num * hidden]).view(num, hidden, -1)
        y = functional.gelu(torch.baddbmm(self.second_bias, self.second, y))
        scores = torch.baddbmm(self.last_bias, self.last, y)[:, 0] + linear
        result: Floats = torch.log_softmax(scores, dim=1).numpy()
        return result


@torch.no_grad()
def stack_mlps(mlps: Sequence[ScoreMlp]) -> StackedMlps:
    """Stack MLPs of equal sizes."""

    def stack(layer: str, part: str) -> Tensor:
        return torch.stack([getattr(getattr(mlp, layer), part) for mlp in mlps])

    std = torch.stack([mlp.std for mlp in mlps])[:, None]
    shift = torch.stack([mlp.mean for mlp in mlps])[:, None] / std
    weights, biases = [], []
    for layer in ("first", "linear"):
        weight = stack(layer, "weight")
        weights.append((weight / std).flatten(0, 1))
        biases.append((stack(layer, "bias") - (weight * shift).sum(dim=2)).flatten())
    return StackedMlps(
        torch.cat(weights),
        torch.cat(biases)[:, None],
        stack("second", "weight"),
        stack("second", "bias")[:, :, None],
        stack("last", "weight"),
        stack("last", "bias")[:, :, None],
    )


@dataclass(frozen=True)
class PathRanker:
    """A trained ranker. It does not keep the features that it was trained on."""

    mlps: tuple[ScoreMlp, ...]
    base_scale: Floats  #: shape (B,)
    co_indicated_scale: Floats  #: shape (2 W + 1,)
    seconds: dict[str, float]  #: time of each part of the training
    left_out: tuple[IntArray, ...]  #: for each MLP the treated diseases it has not learned from

    @cached_property
    def _stacked(self) -> StackedMlps:
        return stack_mlps(self.mlps)

    def scores(self, features: MetapathFeatures, diseases: IntArray) -> Floats:
        """Score all drugs for diseases, known or not.

        Args:
            features: of a graph with the same metapaths. Its known pairs count.
            diseases: shape (n,).

        Returns:
            Shape (n, D), the mean log-softmax of the MLPs. Compare scores of one disease only.
        """
        return np.asarray(self.scores_by_mlp(features, diseases).mean(axis=1))

    def scores_by_mlp(
        self, features: MetapathFeatures, diseases: IntArray, *, use_known: bool = True
    ) -> Floats:
        """Score all drugs by each MLP.

        Args:
            features: see `scores`.
            diseases: shape (n,).
            use_known: use the known drugs of the asked diseases as features of other drugs.

        Returns:
            Shape (n, M, D).
        """
        # Features of drugs alone pass the first layer once for all diseases, those of a disease
        # alone once for all drugs, and those that are 0 for all drugs not at all.
        out = np.empty((len(diseases), len(self.mlps), features.num_drugs), np.float32)
        of_drugs, num_base = features.of_drugs, len(self.base_scale)
        start = None
        for first in range(0, len(diseases), _CHUNK):
            chunk = diseases[first : first + _CHUNK]
            of_pairs, of_diseases = features.base_parts(chunk)
            num_pair = of_pairs.shape[1]
            drug_at = np.arange(num_pair, num_pair + len(of_drugs))
            disease_at = np.arange(num_pair + len(of_drugs), num_base)
            if start is None:
                squashed = squash(of_drugs, self.base_scale[drug_at])
                start = self._stacked.partial_sum(squashed, drug_at) + self._stacked.first_bias
            squashed_diseases = squash(of_diseases.T, self.base_scale[disease_at])
            for i, disease in enumerate(chunk.tolist()):
                which = np.flatnonzero(of_pairs[i].any(axis=1))
                squashed = squash(of_pairs[i][which], self.base_scale[which])
                if use_known and features.num_known(disease):
                    also = co_indicated_features(features.co_indicated_similarity(disease)[1])
                    near = np.flatnonzero(also.any(axis=1))
                    also = squash(also[near], self.co_indicated_scale[near])
                    squashed = np.concatenate([squashed, also])
                    which = np.concatenate([which, near + num_base])
                here = start + self._stacked.partial_sum(squashed_diseases[:, [i]], disease_at)
                out[first + i] = self._stacked.log_softmax(squashed, which, here)
        return out


def fit_path_ranker(
    features: MetapathFeatures, *, num_mlps: int = 2, num_epochs: int = 6, seed: int = 0
) -> PathRanker:
    """Train a ranker on all known pairs of a graph.

    Args:
        features: of the graph to learn from.
        num_mlps: number of MLPs, whose scores are averaged. Each has its own seed and leaves out
            another tenth of the treated diseases, by which it can then be judged.
        num_epochs: passes over the treated diseases, for each MLP.
        seed: of all sampling.

    Returns:
        The ranker.
    """
    start = perf_counter()
    base_scale, co_indicated_scale = feature_scales(features)
    examples = sample_examples(features, base_scale, seed=seed)
    sampled = perf_counter()
    mean, std = _moments(examples, co_indicated_scale)
    mlps, left_out = [], _left_out(len(examples), num_mlps, seed)
    for n, out in enumerate(left_out):
        generator = torch.Generator().manual_seed(seed * 1000 + n)
        mlp = ScoreMlp(mean, std, _HIDDEN)
        mlp.initialise(generator)
        learned = [examples[i] for i in np.setdiff1d(np.arange(len(examples)), out)]
        _train(mlp, learned, co_indicated_scale, num_epochs, generator)
        mlps.append(mlp)
    seconds = {"features": sampled - start, "mlps": perf_counter() - sampled}
    diseases = np.array([example.disease for example in examples])
    asked = tuple(diseases[out] for out in left_out)
    return PathRanker(tuple(mlps), base_scale, co_indicated_scale, seconds, asked)


def _left_out(num_examples: int, num_mlps: int, seed: int) -> list[IntArray]:
    """Choose the examples that each MLP leaves out; disjoint where there are enough."""
    order = np.random.default_rng(seed).permutation(num_examples)
    folds = np.array_split(order, min(_FOLDS, num_examples))
    # A single example must be learned.
    return [np.sort(folds[n % len(folds)][: num_examples - 1]) for n in range(num_mlps)]


def _train(
    mlp: ScoreMlp,
    examples: list[ListwiseExample],
    co_indicated_scale: Floats,
    num_epochs: int,
    generator: torch.Generator,
) -> None:
    weights = list(mlp.parameters())
    optimizer = Adam(weights, _LEARNING_RATE)
    num_steps, step = num_epochs * -(-len(examples) // _BATCH), 0
    for _ in range(num_epochs):
        order = torch.randperm(len(examples), generator=generator)
        for batch in order.split(_BATCH):
            losses = [
                _loss(mlp, examples[i], co_indicated_scale, generator) for i in batch.tolist()
            ]
            torch.autograd.backward(torch.stack(losses).sum() / (_BATCH * 3))
            fraction = _one_cycle(step / num_steps)
            with torch.no_grad():  # decoupled from the gradients: arXiv:1711.05101
                for weight in weights:
                    weight.mul_(1 - fraction * _LEARNING_RATE * _WEIGHT_DECAY)
            optimizer.step(fraction)
            step += 1


def _one_cycle(progress: float) -> float:
    """Return the fraction of the peak learning rate: cosine warm-up from 1/25, then decay to 0."""
    if progress < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2


def _loss(
    mlp: ScoreMlp, example: ListwiseExample, co_indicated_scale: Floats, generator: torch.Generator
) -> Tensor:
    """Compute the weighted loss of one example; a coin decides if the known drugs are features."""
    known = example.num_positives
    base = torch.from_numpy(example.base).float()
    log_probability = torch.from_numpy(example.log_probability)
    if torch.rand(1, generator=generator) < 0.5:
        nothing = torch.zeros(len(base), len(co_indicated_scale))
        scores = mlp(torch.cat([base, nothing], dim=1)[None], generator)[0] - log_probability
        positives, others = scores[:known], scores[known:].logsumexp(dim=0)
        losses = torch.logaddexp(others, positives) - positives
    else:
        chosen = torch.randperm(known, generator=generator)[:_MAX_POSITIVES]
        similarity = example.co_indicated.astype(np.float32)
        also = co_indicated_features_without(similarity, chosen.numpy())
        squashed = torch.from_numpy(squash(also, co_indicated_scale)).transpose(1, 2)
        features = torch.cat([base.expand(len(chosen), -1, -1), squashed], dim=2)
        scores = mlp(features, generator) - log_probability
        positives = scores.gather(1, chosen[:, None])[:, 0]
        # The other known drugs are not negatives.
        losses = torch.logaddexp(scores[:, known:].logsumexp(dim=1), positives) - positives
    weighted: Tensor = losses.mean() * known ** (1 - _DISCOUNT)
    return weighted


def _moments(examples: list[ListwiseExample], co_indicated_scale: Floats) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation of every feature over a sample of candidates."""
    base = np.concatenate([example.base[::9].astype(np.float32) for example in examples])
    first = np.zeros(1, np.int64)
    co_indicated = np.concatenate(
        [
            squash(co_indicated_features_without(rows, first)[0], co_indicated_scale).T
            for rows in (e.co_indicated[:, :, ::9].astype(np.float32) for e in examples[::3])
        ]
    )
    mean = np.concatenate([base.mean(axis=0), co_indicated.mean(axis=0)])
    std = np.concatenate([base.std(axis=0), co_indicated.std(axis=0)]) + _MIN_STD
    return torch.from_numpy(mean), torch.from_numpy(std)
