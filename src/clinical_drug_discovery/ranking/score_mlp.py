"""The network of the path ranker: a multilayer perceptron (MLP) over features of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray

_POPULAR = 16  # width of the hidden layer of the popularity


class ScoreMlp(nn.Module):
    """Map features to a score; see the top of `path_ranker`.

    The constructor does not set the weights: call `initialise` or `load_state_dict`.
    """

    def __init__(self, mean: Tensor, std: Tensor, num_popularity: int, hidden: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.anchor = nn.Parameter(torch.ones(()))
        self.linear = nn.utils.skip_init(nn.Linear, len(mean), 1)
        self.first = nn.utils.skip_init(nn.Linear, len(mean), hidden)
        self.second = nn.utils.skip_init(nn.Linear, hidden, hidden // 2)
        self.last = nn.utils.skip_init(nn.Linear, hidden // 2, 1)
        self.popular_first = nn.utils.skip_init(nn.Linear, num_popularity, _POPULAR)
        self.popular_last = nn.utils.skip_init(nn.Linear, _POPULAR, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Start with the anchor alone; draw the other weights from the distribution of torch."""
        for layer in (self.first, self.second, self.popular_first, self.popular_last):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        for layer in (self.linear, self.last):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        features: Tensor,
        anchor: Tensor,
        popularity: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the scores of C candidates in each of P examples, shape (P, C).

        Args:
            features: shape (P, C, F), after `squash`.
            anchor: shape (C,), see `MetapathFeatures.walk_anchor`.
            popularity: shape (C, G), see `MetapathFeatures.popularity`.
            generator: random generator for dropout; None turns dropout off.
        """
        x = (features - self.mean) / self.std
        if generator is not None:  # drop whole features: no score should rely on one feature
            x = x * (torch.rand(len(x), 1, x.shape[2], generator=generator) > 0.1)
        hidden = _drop(functional.gelu(self.first(x)), generator)
        hidden = _drop(functional.gelu(self.second(hidden)), generator)
        scores: Tensor = (self.linear(x) + self.last(hidden))[..., 0]
        return scores + self.anchor * anchor + self.popular(popularity)

    def popular(self, popularity: Tensor) -> Tensor:
        """Return the popularity of C drugs, shape (C,); see `forward`."""
        scores: Tensor = self.popular_last(functional.gelu(self.popular_first(popularity)))[:, 0]
        return scores


def _drop(x: Tensor, generator: torch.Generator | None, probability: float = 0.2) -> Tensor:
    """Apply dropout; all candidates share a mask, because separate masks would take longer."""
    if generator is None:
        return x
    kept = torch.rand(len(x), 1, x.shape[2], generator=generator) > probability
    return x * (kept / (1 - probability))


@dataclass(frozen=True)
class StackedMlps:
    """The stacked weights of M MLPs, for features of shape (F, D): all drugs of one disease.

    Mean and standard deviation are folded into the first layer. A feature that is 0 for all drugs
    therefore adds 0 and can be left out. Anchor and popularity are not included.
    """

    first: Tensor  #: shape (M (H + 1), F): `first` of all MLPs, then `linear` of all MLPs
    first_bias: Tensor  #: shape (M (H + 1), 1)
    second: Tensor  #: shape (M, H / 2, H)
    second_bias: Tensor  #: shape (M, H / 2, 1)
    last: Tensor  #: shape (M, 1, H / 2)
    last_bias: Tensor  #: shape (M, 1, 1)

    @torch.no_grad()
    def partial_sum(self, features: Floats, which: IntArray) -> Tensor:
        """Return what K features contribute to the first layers, shape (M (H + 1), D or 1).

        Args:
            features: shape (K, D), after `squash`; (K, 1) if they are the same for all drugs.
            which: shape (K,), indices of these features.
        """
        return self.first[:, torch.from_numpy(which)] @ torch.from_numpy(features)

    @torch.no_grad()
    def scores(self, features: Floats, which: IntArray, start: Tensor) -> Tensor:
        """Return the scores of each MLP for the drugs of one disease, shape (M, D).

        Args:
            features: shape (K, D), after `squash`.
            which: shape (K,), indices of these features, ascending.
            start: shape (M (H + 1), D or 1): `first_bias` plus partial sums of all other features.
        """
        num, _, hidden = self.second.shape
        x = self.partial_sum(features, which)
        x += start
        y = functional.gelu(x[: num * hidden]).view(num, hidden, -1)
        y = functional.gelu(torch.baddbmm(self.second_bias, self.second, y))
        return torch.baddbmm(self.last_bias, self.last, y)[:, 0] + x[num * hidden :]


@torch.no_grad()
def stack_mlps(mlps: Sequence[ScoreMlp]) -> StackedMlps:
    """Stack the weights of MLPs; all must have the same sizes."""

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
