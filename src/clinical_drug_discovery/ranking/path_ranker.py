"""A ranker of drugs for a disease, fitted on the evidence of paths and on whatever else is given.

Small networks with a listwise loss: for each known pair a softmax over all drugs, in which the
disease's other known drugs do not stand. Each disease is learned both ways: as if none of its drugs
were known, and as if all but one were. One ranker so serves diseases of both kinds.

The networks of a ranker: one for training, and all of them as one for scoring.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.ranking.drug_similarity import fellows_of, fellows_without
from clinical_drug_discovery.ranking.listwise_examples import (
    Extra,
    TrainingList,
    feature_scales,
    squash,
    training_lists,
)
from clinical_drug_discovery.ranking.metapath_features import PathEvidence
from clinical_drug_discovery.training.optimizer import Adam

_GROUP = 4  # lists a step
_MAX_GOALS = 4  # known drugs of a disease that are hidden one at a time, each epoch
_BELOW = 0.3  # a disease with k known drugs weighs k^(1 - 0.3): less than by pairs, more than one
_MIN_STD = 0.02
_WARM, _DECAY = 0.15, 0.01  # share of the steps; of weights, per step and learning rate
_CHUNK = 32  # diseases scored at a time: 90 MB of features on the real graph
_FOLDS = 10  # each network leaves out another one of so many parts of the treated diseases


@dataclass(frozen=True)
class PathRanker:
    """A fitted ranker; what it was fitted on is not kept."""

    networks: tuple[Network, ...]
    base_scale: Floats
    fellow_scale: Floats
    seconds: dict[str, float]  #: how long each part of the fit took

    #: for each network the treated diseases that it has learned nothing from
    left_out: tuple[IntArray, ...]

    @cached_property
    def _joint(self) -> JointNetworks:
        return join(self.networks)

    def scores(
        self, evidence: PathEvidence, diseases: IntArray, *, extra: Extra | None = None
    ) -> Floats:
        """Score all drugs for diseases, known or not.

        Args:
            evidence: of the graph whose known pairs count; may be larger than the fitted one.
            diseases: shape (n,).
            extra: the features that stood beside the paths in the fit.

        Returns:
            Shape (n, drugs), comparable within a disease only: the logarithm of the probability
            that a drug is the next to be known.
        """
        found = self._by_network(evidence, diseases, extra, use_known=True)
        out = np.empty((len(diseases), evidence.num_drugs), np.float32)
        for i, scores in enumerate(found):
            out[i] = scores.mean(axis=0)
        return out

    def scores_by_network(
        self, evidence: PathEvidence, diseases: IntArray, *, use_known: bool = True
    ) -> Floats:
        """What each network says, of which `scores` are the means.

        Args:
            evidence: see `scores`.
            diseases: shape (n,).
            use_known: whether the diseases' own known drugs may speak for others.

        Returns:
            Shape (n, networks, drugs).
        """
        scores = list(self._by_network(evidence, diseases, None, use_known=use_known))
        shape = 0, len(self.networks), evidence.num_drugs
        return np.stack(scores) if scores else np.zeros(shape, np.float32)

    def _by_network(
        self, evidence: PathEvidence, diseases: IntArray, extra: Extra | None, *, use_known: bool
    ) -> Iterator[Floats]:
        """For each disease what each network says, shape (networks, drugs).

        Features that are the same for all diseases or all drugs go through the first layers once,
        and those of a disease that are 0 for all drugs not at all.
        """
        num_base, num_alone = len(self.base_scale), len(evidence.of_drugs)
        start = None
        for first in range(0, len(diseases), _CHUNK):
            chunk = diseases[first : first + _CHUNK]
            varying, context = evidence.parts(chunk)
            beyond = varying.shape[1] + num_alone
            if start is None:
                alone = np.arange(varying.shape[1], beyond)
                squashed = squash(evidence.of_drugs, self.base_scale[alone])
                start = self._joint.part(squashed, alone) + self._joint.first_bias
            about = np.arange(beyond, beyond + context.shape[1])
            if extra is not None:
                varying = np.concatenate([varying, extra(chunk)], axis=1)
            number = np.r_[0 : beyond - num_alone, beyond + context.shape[1] : num_base]
            told = squash(context.T, self.base_scale[about])
            for i, disease in enumerate(chunk.tolist()):
                near = np.flatnonzero(varying[i].any(axis=1))
                which = number[near]
                features = squash(varying[i][near], self.base_scale[which])
                if use_known and evidence.num_known(disease):
                    fellows = fellows_of(evidence.fellow_rows(disease)[1])
                    near = np.flatnonzero(fellows.any(axis=1))
                    also = squash(fellows[near], self.fellow_scale[near])
                    features = np.concatenate([features, also])
                    which = np.concatenate([which, near + num_base])
                here = start + self._joint.part(told[:, [i]], about)
                yield self._joint.log_chances(features, which, here)


def fit_ranker(
    evidence: PathEvidence,
    *,
    extra: Extra | None = None,
    num_networks: int = 2,
    num_epochs: int = 6,
    hidden: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> PathRanker:
    """Fit a ranker on all known pairs of a graph.

    Args:
        evidence: of the graph to learn from.
        extra: more features, from a model that has not seen the pairs it is asked about.
        num_networks: networks whose scores are averaged, each from a seed of its own and each
            without another tenth of the treated diseases, for which it can be judged by them.
        num_epochs: passes over the treated diseases, for each network.
        hidden: width of the networks.
        learning_rate: highest of the one-cycle schedule.
        seed: of everything that is drawn.

    Returns:
        The ranker.
    """
    start = perf_counter()
    base_scale, fellow_scale = feature_scales(evidence, extra)
    lists = training_lists(evidence, base_scale, extra=extra, seed=seed)
    formed = perf_counter()
    mean, std = _moments(lists, fellow_scale)
    networks, left_out = [], _left_out(len(lists), num_networks, seed)
    for n, out in enumerate(left_out):
        generator = torch.Generator().manual_seed(seed * 1000 + n)
        network = Network(mean, std, hidden)
        initialise(network, generator)
        learned = [lists[i] for i in np.setdiff1d(np.arange(len(lists)), out)]
        _train(network, learned, fellow_scale, num_epochs, learning_rate, generator)
        networks.append(network)
    seconds = {"features": formed - start, "networks": perf_counter() - formed}
    diseases = np.array([one.disease for one in lists])
    asked = tuple(diseases[out] for out in left_out)
    return PathRanker(tuple(networks), base_scale, fellow_scale, seconds, asked)


def _left_out(num_lists: int, num_networks: int, seed: int) -> list[IntArray]:
    """Which lists each network leaves out: none that another one does, where there are enough."""
    order = np.random.default_rng(seed).permutation(num_lists)
    folds = np.array_split(order, min(_FOLDS, num_lists))
    # A single list must be learned.
    return [np.sort(folds[n % len(folds)][: num_lists - 1]) for n in range(num_networks)]


def _train(
    network: Network,
    lists: list[TrainingList],
    fellow_scale: Floats,
    num_epochs: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    weights = list(network.parameters())
    optimizer = Adam(weights, learning_rate)
    steps, step = num_epochs * -(-len(lists) // _GROUP), 0
    for _ in range(num_epochs):
        order = torch.randperm(len(lists), generator=generator)
        for group in order.split(_GROUP):
            losses = [_loss(network, lists[i], fellow_scale, generator) for i in group.tolist()]
            torch.autograd.backward(torch.stack(losses).sum() / (_GROUP * 3))
            share = _one_cycle(step / steps)
            with torch.no_grad():  # decoupled from the gradients: arXiv:1711.05101
                for weight in weights:
                    weight.mul_(1 - share * learning_rate * _DECAY)
            optimizer.step(share)
            step += 1


def _one_cycle(progress: float) -> float:
    """The share of the highest learning rate: up in a half wave from 1/25, and down to nothing."""
    if progress < _WARM:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / _WARM)) / 2
    return (1 + math.cos(math.pi * (progress - _WARM) / (1 - _WARM))) / 2


def _loss(
    network: Network, one: TrainingList, fellow_scale: Floats, generator: torch.Generator
) -> Tensor:
    """Weighted loss of one list, with none of its drugs known or with all but one, by a coin."""
    known = one.num_known
    base = torch.from_numpy(one.base).float()
    log_share = torch.from_numpy(one.log_share)
    if torch.rand(1, generator=generator) < 0.5:
        nothing = torch.zeros(len(base), len(fellow_scale))
        scores = network(torch.cat([base, nothing], dim=1)[None], generator)[0] - log_share
        goals, others = scores[:known], scores[known:].logsumexp(dim=0)
        losses = torch.logaddexp(others, goals) - goals
    else:
        chosen = torch.randperm(known, generator=generator)[:_MAX_GOALS]
        fellows = fellows_without(one.rows.astype(np.float32), chosen.numpy())
        also = torch.from_numpy(squash(fellows, fellow_scale)).transpose(1, 2)
        features = torch.cat([base.expand(len(chosen), -1, -1), also], dim=2)
        scores = network(features, generator) - log_share
        goals = scores.gather(1, chosen[:, None])[:, 0]
        # The goal's fellows are no wrong answers.
        losses = torch.logaddexp(scores[:, known:].logsumexp(dim=1), goals) - goals
    weighted: Tensor = losses.mean() * known ** (1 - _BELOW)
    return weighted


def _moments(lists: list[TrainingList], fellow_scale: Floats) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every feature, over a sample of candidates."""
    base = np.concatenate([one.base[::9].astype(np.float32) for one in lists])
    first = np.zeros(1, np.int64)
    fellows = np.concatenate(
        [
            squash(fellows_without(rows.astype(np.float32), first)[0], fellow_scale).T
            for rows in (one.rows[:, :, ::9] for one in lists[::3])
        ]
    )
    mean = np.concatenate([base.mean(axis=0), fellows.mean(axis=0)])
    std = np.concatenate([base.std(axis=0), fellows.std(axis=0)]) + _MIN_STD
    return torch.from_numpy(mean), torch.from_numpy(std)


class Network(nn.Module):
    """Features to a score: a linear part and a small perceptron beside it."""

    def __init__(self, mean: Tensor, std: Tensor, hidden: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.straight = _linear(len(mean), 1)
        self.first = _linear(len(mean), hidden)
        self.second = _linear(hidden, hidden // 2)
        self.last = _linear(hidden // 2, 1)

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Score the candidates of lists of equal length.

        Args:
            features: shape (G, C, F), squashed.
            generator: of the dropout; None for none.

        Returns:
            Shape (G, C).
        """
        x = (features - self.mean) / self.std
        if generator is not None:  # whole features, so that none is leant on alone
            x = x * (torch.rand(len(x), 1, x.shape[2], generator=generator) > 0.1)
        hidden = _drop(functional.gelu(self.first(x)), generator)
        hidden = _drop(functional.gelu(self.second(hidden)), generator)
        scores: Tensor = (self.straight(x) + self.last(hidden))[..., 0]
        return scores


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer without values yet; see `_initialise`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return layer


def _drop(x: Tensor, generator: torch.Generator | None, chance: float = 0.2) -> Tensor:
    """Drop units of whole lists: to draw for each candidate would take a fifth of the time."""
    if generator is None:
        return x
    kept = torch.rand(len(x), 1, x.shape[2], generator=generator) > chance
    return x * (kept / (1 - chance))


def initialise(network: Network, generator: torch.Generator) -> None:
    """Give it first weights as torch would, but not from the process's generator."""
    for layer in (network.straight, network.first, network.second, network.last):
        bound = layer.in_features**-0.5
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)


@dataclass(frozen=True)
class JointNetworks:
    """M networks as one, features by drugs, so that nothing is transposed or computed for nothing.

    What each takes of the features is folded into its first layer. A feature that is 0 for all
    drugs then adds nothing to any product and may be left out.
    """

    first: Tensor  #: shape (M (H + 1), F), each network's hidden units, then all straight parts
    first_bias: Tensor  #: shape (M (H + 1), 1)
    second: Tensor  #: shape (M, H / 2, H)
    second_bias: Tensor  #: shape (M, H / 2, 1)
    last: Tensor  #: shape (M, 1, H / 2)
    last_bias: Tensor  #: shape (M, 1, 1)

    @torch.no_grad()
    def part(self, features: Floats, which: IntArray) -> Tensor:
        """What some features add to the first layers, to be computed once for many lists.

        Args:
            features: shape (K, D), squashed, or (K, 1) where they are the same for all drugs.
            which: shape (K,).

        Returns:
            Shape (M (H + 1), D or 1).
        """
        return self.first[:, torch.from_numpy(which)] @ torch.from_numpy(features)

    @torch.no_grad()
    def log_chances(self, features: Floats, which: IntArray, start: Tensor | None = None) -> Floats:
        """Score the drugs of one disease.

        Args:
            features: shape (K, D), squashed.
            which: shape (K,), ascending; the other features are 0, or in `start`.
            start: shape (M (H + 1), D or 1), the sum of their `part` and the biases; these
                alone if None.

        Returns:
            Shape (M, D), by each network the log of the softmax over the drugs.
        """
        num, _, hidden = self.second.shape
        x = self.first[:, torch.from_numpy(which)] @ torch.from_numpy(features)
        x += self.first_bias if start is None else start
        straight = x[num * hidden :]
        y = functional.gelu(x[: num * hidden]).view(num, hidden, -1)
        y = functional.gelu(torch.baddbmm(self.second_bias, self.second, y))
        scores = torch.baddbmm(self.last_bias, self.last, y)[:, 0] + straight
        result: Floats = torch.log_softmax(scores, dim=1).numpy()
        return result


@torch.no_grad()
def join(networks: tuple[Network, ...]) -> JointNetworks:
    """Fold networks of equal sizes into one."""

    def stack(layer: str, part: str) -> Tensor:
        return torch.stack([getattr(getattr(n, layer), part) for n in networks])

    std = torch.stack([network.std for network in networks])[:, None]
    shift = torch.stack([network.mean for network in networks])[:, None] / std
    weights, biases = [], []
    for layer in ("first", "straight"):
        weight = stack(layer, "weight")
        weights.append((weight / std).flatten(0, 1))
        biases.append((stack(layer, "bias") - (weight * shift).sum(dim=2)).flatten())
    return JointNetworks(
        torch.cat(weights),
        torch.cat(biases)[:, None],
        stack("second", "weight"),
        stack("second", "bias")[:, :, None],
        stack("last", "weight"),
        stack("last", "bias")[:, :, None],
    )
