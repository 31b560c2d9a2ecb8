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
        self.linear = _Linear(len(mean), 1)
        self.first = _Linear(len(mean), hidden)
        self.second = _Linear(hidden, hidden // 2)
        self.last = _Linear(hidden // 2, 1)
        self.popular_first = _Linear(num_popularity, POPULAR)
        self.popular_last = _Linear(POPULAR, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Start with the anchor alone; draw the other weights from the distribution of torch."""
        for layer in (self.first, self.second, self.popular_first, self.popular_last):
            bound = layer.weight.shape[1] ** -0.5
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
            features: shape (P, C, F or less), after `squash`; the last features that are not given
                are 0.
            anchor: shape (C,), see `MetapathFeatures.walk_anchor`.
            popularity: shape (C, G), see `MetapathFeatures.popularity`.
            generator: random generator for dropout; None turns dropout off.
        """
        # All candidates of an example share a mask: the weights take it in place of the inputs,
        # which are far more. They also take the mean and the standard deviation.
        used = torch.ones(len(features), 1, len(self.mean))
        if generator is not None:  # drop whole features: no score should rely on one feature
            used = (torch.rand(used.shape, generator=generator) > 0.1).float()
        used = used / self.std
        hidden = functional.gelu(_apply(self.first, features, used, self.mean))
        kept = _kept(hidden, generator)
        hidden = functional.gelu(_apply(self.second, hidden, kept))
        kept = _kept(hidden, generator)
        scores = _apply(self.linear, features, used, self.mean) + _apply(self.last, hidden, kept)
        return scores[..., 0] + self.anchor * anchor + self.popular(popularity)

    def popular(self, popularity: Tensor) -> Tensor:
        """Return the popularity of C drugs, shape (C,); see `forward`."""
        scores: Tensor = self.popular_last(functional.gelu(self.popular_first(popularity)))[:, 0]
        return scores


class _Linear(nn.Module):
    """A linear layer whose weights are not set.

    `nn.Linear` draws weights from the generator of the process, and `nn.utils.skip_init`, which
    would prevent that, imports sympy, which takes 0.4 s.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (C, outputs), of inputs of shape (C, inputs)."""
        return functional.linear(x, self.weight, self.bias)


def _kept(x: Tensor, generator: torch.Generator | None, probability: float = 0.2) -> Tensor:
    """Draw the factors of dropout for P examples, shape (P, 1, inputs)."""
    if generator is None:
        return torch.ones(len(x), 1, x.shape[2])
    kept = torch.rand(len(x), 1, x.shape[2], generator=generator) > probability
    return kept / (1 - probability)


def _apply(layer: _Linear, x: Tensor, factor: Tensor, mean: Tensor | None = None) -> Tensor:
    """Return layer((x - mean) * factor), shape (P, C, outputs).

    Args:
        layer: the linear layer.
        x: shape (P, C, inputs or less); the last inputs that are not given are 0.
        factor: shape (P, 1, inputs).
        mean: shape (inputs,); None for zeros.
    """
    weight = layer.weight * factor
    bias = layer.bias if mean is None else (layer.bias - weight @ mean)[:, None]
    weight = weight[..., : x.shape[2]]
    if len(layer.bias) == 1:  # the gradient of a batch of products with vectors is slow in torch
        return (x * weight).sum(dim=2, keepdim=True) + bias
    return torch.baddbmm(bias, x, weight.mT)


def weights_of(mlp: ScoreMlp) -> dict[str, Floats]:
    """Return the weights of an MLP for `path_scores`, in the same memory."""
    return {name: tensor.numpy() for name, tensor in mlp.state_dict().items()}
