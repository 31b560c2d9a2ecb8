"""A ranker of drugs for a disease, fitted on the evidence of paths and on whatever else is given.

Small networks with a listwise loss: for each known pair a softmax over all drugs, in which the
disease's other known drugs do not stand. Each disease is learned both ways: as if none of its drugs
were known, and as if all but one were. One ranker so serves diseases of both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.boosting import Trees, fit_trees
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray
from clinical_drug_discovery.lists import (
    Extra,
    TrainingList,
    base_features,
    feature_scales,
    squash,
    training_lists,
)
from clinical_drug_discovery.paths import PathEvidence, fellows_of
from clinical_drug_discovery.typed import Floats

_GROUP = 4  # lists a step
_MAX_GOALS = 4  # known drugs of a disease that are hidden one at a time, each epoch
_BELOW = 0.3  # a disease with k known drugs weighs k^(1 - 0.3): less than by pairs, more than one
_TREES_WEIGHT = 0.4  # of the blend, for diseases with known drugs; trees are no help without
_MIN_STD = 0.02
_CHUNK = 16  # diseases scored at a time: 60 MB of features on the real graph


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
        """Score the candidates of one list.

        Args:
            features: shape (C, F), squashed.
            generator: of the dropout; None for none.

        Returns:
            Shape (C,).
        """
        x = (features - self.mean) / self.std
        if generator is not None:  # whole features, so that none is leant on alone
            x = x * (torch.rand(x.shape[1], generator=generator) > 0.1)
        hidden = _drop(functional.gelu(self.first(x)), generator)
        hidden = _drop(functional.gelu(self.second(hidden)), generator)
        scores: Tensor = (self.straight(x) + self.last(hidden))[:, 0]
        return scores


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer without values yet; see `_initialise`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return layer


def _drop(x: Tensor, generator: torch.Generator | None, chance: float = 0.2) -> Tensor:
    if generator is None:
        return x
    return x * (torch.rand(x.shape, generator=generator) > chance) / (1 - chance)


@dataclass(frozen=True)
class PathRanker:
    """A fitted ranker; what it was fitted on is not kept."""

    networks: tuple[Network, ...]
    trees: Trees | None
    base_scale: Floats
    fellow_scale: Floats
    seconds: dict[str, float]  #: how long each part of the fit took

    def scores(
        self, evidence: PathEvidence, diseases: IntArray, *, extra: Extra | None = None
    ) -> Floats:
        """Score all drugs for diseases, known or not.

        Args:
            evidence: of the graph whose known pairs count; may be larger than the fitted one.
            diseases: shape (n,).
            extra: the features that stood beside the paths in the fit.

        Returns:
            Shape (n, drugs), comparable within a disease only; without trees its logarithm of
            the probability that a drug is the next to be known.
        """
        rows = self._features(evidence, diseases, extra)
        return np.stack([self._score(features, has_known) for features, has_known in rows])

    def tree_scores(
        self, evidence: PathEvidence, diseases: IntArray, *, extra: Extra | None = None
    ) -> Floats:
        """What the trees alone say, of every disease, with known drugs or without.

        Args:
            evidence: see `scores`.
            diseases: see `scores`.
            extra: see `scores`.

        Raises:
            InputError: the ranker was fitted without trees.
        """
        if self.trees is None:
            raise InputError("trees (got False) must be True in the fit for tree_scores")
        rows = self._features(evidence, diseases, extra)
        return np.stack([self.trees.log_odds(features) for features, _ in rows])

    def _features(
        self, evidence: PathEvidence, diseases: IntArray, extra: Extra | None
    ) -> Iterator[tuple[Floats, bool]]:
        """For each disease the features of all drugs, and whether any is known."""
        for start in range(0, len(diseases), _CHUNK):
            chunk = diseases[start : start + _CHUNK]
            base = squash(base_features(evidence, chunk, extra), self.base_scale)
            for own, disease in zip(base, chunk.tolist(), strict=True):
                drugs, rows = evidence.fellow_rows(disease)
                fellows = squash(fellows_of(rows), self.fellow_scale)
                features = np.concatenate([own, fellows]).T
                yield np.ascontiguousarray(features), len(drugs) > 0

    @torch.no_grad()
    def _score(self, features: Floats, has_known: bool) -> Floats:
        x = torch.from_numpy(features)
        parts = [torch.log_softmax(network(x), dim=0) for network in self.networks]
        scores: Floats = torch.stack(parts).mean(dim=0).numpy()
        if self.trees is not None and has_known:
            scores = (1 - _TREES_WEIGHT) * scores + _TREES_WEIGHT * self.trees.log_odds(features)
        return scores


def fit_ranker(
    evidence: PathEvidence,
    *,
    extra: Extra | None = None,
    num_networks: int = 2,
    num_epochs: int = 6,
    hidden: int = 64,
    learning_rate: float = 3e-3,
    trees: bool = True,
    seed: int = 0,
) -> PathRanker:
    """Fit a ranker on all known pairs of a graph.

    Args:
        evidence: of the graph to learn from.
        extra: more features, from a model that has not seen the pairs it is asked about.
        num_networks: networks whose scores are averaged, each from a seed of its own.
        num_epochs: passes over the treated diseases, for each network.
        hidden: width of the networks.
        learning_rate: highest of the one-cycle schedule.
        trees: whether to blend in boosted trees.
        seed: of everything that is drawn.

    Returns:
        The ranker.
    """
    start = perf_counter()
    base_scale, fellow_scale = feature_scales(evidence, extra)
    lists = training_lists(evidence, base_scale, extra=extra, seed=seed)
    formed = perf_counter()
    mean, std = _moments(lists, fellow_scale)
    networks = []
    for n in range(num_networks):
        generator = torch.Generator().manual_seed(seed * 1000 + n)
        network = Network(mean, std, hidden)
        _initialise(network, generator)
        _train(network, lists, fellow_scale, num_epochs, learning_rate, generator)
        networks.append(network)
    trained = perf_counter()
    fitted = fit_trees(lists, fellow_scale, seed=seed) if trees else None
    seconds = {
        "features": formed - start,
        "networks": trained - formed,
        "trees": perf_counter() - trained,
    }
    return PathRanker(tuple(networks), fitted, base_scale, fellow_scale, seconds)


def _train(
    network: Network,
    lists: list[TrainingList],
    fellow_scale: Floats,
    num_epochs: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    steps = num_epochs * -(-len(lists) // _GROUP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.15
    )
    scale = torch.from_numpy(fellow_scale)
    for _ in range(num_epochs):
        order = torch.randperm(len(lists), generator=generator)
        for group in order.split(_GROUP):
            losses = [_loss(network, lists[i], scale, generator) for i in group.tolist()]
            loss = torch.stack(losses).sum() / (_GROUP * 3)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def _loss(
    network: Network, one: TrainingList, fellow_scale: Tensor, generator: torch.Generator
) -> Tensor:
    """Weighted loss of one list, with none of its drugs known or with all but one, by a coin."""
    known, size = one.num_known, len(one.candidates)
    base = torch.from_numpy(one.base).float()
    log_share = torch.from_numpy(one.log_share)
    if torch.rand(1, generator=generator) < 0.5:
        nothing = torch.zeros(size, len(fellow_scale))
        scores = network(torch.cat([base, nothing], dim=1), generator) - log_share
        goals, others = scores[:known], scores[known:].logsumexp(dim=0)
        losses = torch.logaddexp(others, goals) - goals
    else:
        rows = one.rows.astype(np.float32)
        parts = []
        for goal in torch.randperm(known, generator=generator)[:_MAX_GOALS].tolist():
            stands = np.concatenate([[goal], np.arange(known, size)])
            fellows = torch.from_numpy(fellows_of(rows[:, :, stands], without=goal)).t()
            features = torch.cat([base[stands], torch.arcsinh(fellows / fellow_scale)], dim=1)
            scores = network(features, generator) - log_share[stands]
            parts.append(scores.logsumexp(dim=0) - scores[0])
        losses = torch.stack(parts)
    weighted: Tensor = losses.mean() * known ** (1 - _BELOW)
    return weighted


def _moments(lists: list[TrainingList], fellow_scale: Floats) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every feature, over a sample of candidates."""
    base = np.concatenate([one.base[::9].astype(np.float32) for one in lists])
    fellows = np.concatenate(
        [
            squash(fellows_of(one.rows[:, :, ::9].astype(np.float32), without=0), fellow_scale).T
            for one in lists[::3]
        ]
    )
    mean = np.concatenate([base.mean(axis=0), fellows.mean(axis=0)])
    std = np.concatenate([base.std(axis=0), fellows.std(axis=0)]) + _MIN_STD
    return torch.from_numpy(mean), torch.from_numpy(std)


def _initialise(network: Network, generator: torch.Generator) -> None:
    """As torch would, but from a generator of our own: the process's is left alone."""
    for layer in (network.straight, network.first, network.second, network.last):
        bound = layer.in_features**-0.5
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
