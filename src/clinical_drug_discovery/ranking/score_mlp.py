"""The network of the path ranker: a multilayer perceptron (MLP) over features of a pair."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph.adjacency import Floats
from .path_scores import POPULAR


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
        self.popular_first = nn.utils.skip_init(nn.Linear, num_popularity, POPULAR)
        self.popular_last = nn.utils.skip_init(nn.Linear, POPULAR, 1)

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


def weights_of(mlp: ScoreMlp) -> dict[str, Floats]:
    """Return the weights of an MLP for `path_scores`, in the same memory."""
    return {name: tensor.numpy() for name, tensor in mlp.state_dict().items()}
