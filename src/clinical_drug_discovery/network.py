"""The networks of a ranker: one for training, and all of them as one for scoring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray


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
