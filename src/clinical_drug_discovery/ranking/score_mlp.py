"""The network of the path ranker: a multilayer perceptron (MLP) over features of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        base: Tensor,
        rankings: Sequence[int],
        co_indicated: Tensor | None,
        anchor: Tensor,
        popularity: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the scores of C candidates in each of P rankings, shape (P, C).

        Args:
            base: shape (E, C, B), the first features, for each of E examples; after `squash`.
            rankings: number of rankings of each example, which follow each other; P in total.
            co_indicated: shape (P, F - B, C), the other features, after `squash`; None: they are 0.
            anchor: shape (E, C), see `MetapathFeatures.walk_anchor`.
            popularity: shape (E, C, G), see `MetapathFeatures.popularity`.
            generator: random generator for dropout; None turns dropout off.
        """
        # All candidates of a ranking share a mask: the weights take it in place of the inputs,
        # which are far more. They also take the mean and the standard deviation.
        num, hidden, half = sum(rankings), len(self.first.bias), len(self.second.bias)
        used = torch.ones(num, 1, len(self.mean))
        if generator is not None:  # drop whole features: no score should rely on one feature
            used = (torch.rand(used.shape, generator=generator) > 0.1).float()
        factors = used / self.std, _kept(num, hidden, generator), _kept(num, half, generator)
        layers = (self.linear, self.first, self.second, self.last)
        weights = (each for layer in layers for each in (layer.weight, layer.bias))
        scores: Tensor = _Scores.apply(  # type: ignore[no-untyped-call]  # of torch
            base, rankings, co_indicated, self.mean, *factors, *weights
        )
        rest = self.anchor * anchor + self.popular(popularity)
        return scores + rest.repeat_interleave(torch.tensor(rankings), dim=0, output_size=num)

    def popular(self, popularity: Tensor) -> Tensor:
        """Return the popularity of drugs, shape (..., C), given features (..., C, G)."""
        scores: Tensor = self.popular_last(functional.gelu(self.popular_first(popularity)))[..., 0]
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
        """Return the outputs, shape (..., outputs), of inputs of shape (..., inputs)."""
        return functional.linear(x, self.weight, self.bias)


def _kept(
    num: int, inputs: int, generator: torch.Generator | None, probability: float = 0.2
) -> Tensor:
    """Draw the factors of dropout for P rankings, shape (P, 1, inputs)."""
    if generator is None:
        return torch.ones(num, 1, inputs)
    kept = torch.rand(num, 1, inputs, generator=generator) > probability
    return kept / (1 - probability)


class _Scores(torch.autograd.Function):
    """The layers after the features, with a backward pass of few operations.

    That of autograd takes more than twice as long. Candidates are the last dimension of all arrays,
    so the base features of an example are one matrix product for all its rankings.
    """

    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        rankings: Sequence[int],
        co_indicated: Tensor | None,
        mean: Tensor,
        used: Tensor,
        kept_first: Tensor,
        kept_second: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Return the scores without anchor and popularity, shape (P, C).

        Args:
            ctx: of torch.
            base: see `ScoreMlp.forward`.
            rankings: see `ScoreMlp.forward`.
            co_indicated: see `ScoreMlp.forward`.
            mean: shape (F,).
            used: shape (P, 1, F), factors of the features.
            kept_first: shape (P, 1, H), factors of the first hidden layer.
            kept_second: shape (P, 1, H / 2), factors of the second.
            weights: weight and bias of `linear`, `first`, `second` and `last`.
        """
        linear, linear_bias, first, first_bias, second, second_bias, last, last_bias = weights
        hidden, num_base = len(first), base.shape[2]
        weight = torch.cat([first, linear]) * used
        bias = torch.cat([first_bias, linear_bias]) - weight @ mean
        x = base.new_empty(*bias.shape, base.shape[1])
        of_base = weight[..., :num_base].contiguous()
        for rows, one, out in zip(of_base.split(rankings), base, x.split(rankings), strict=True):
            torch.mm(rows.view(-1, num_base), one.T, out=out.view(-1, len(one)))
        x.add_(bias[..., None])
        if co_indicated is not None:
            x.baddbmm_(weight[..., num_base:], co_indicated)
        h = functional.gelu(x[:, :hidden])
        masked, masked_last = second * kept_first, last * kept_second
        y = torch.baddbmm(second_bias[:, None], masked, h)
        z = functional.gelu(y)
        scores = torch.baddbmm(x[:, hidden:] + last_bias, masked_last, z)[:, 0]
        ctx.rankings = rankings
        ctx.save_for_backward(
            base, co_indicated, mean, used, kept_first, kept_second, x, h, masked, y, z, masked_last
        )
        return scores

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return the gradients of the weights, given those of the scores."""
        (
            base, co_indicated, mean, used, kept_first, kept_second, x, h, masked, y, z, masked_last
        ) = ctx.saved_tensors  # fmt: skip
        hidden, num_base, grad = h.shape[1], base.shape[2], grad[:, None]
        grad_last = (z @ grad.mT).mT * kept_second
        grad_y = torch.ops.aten.gelu_backward(masked_last.mT * grad, y)
        grad_second = torch.bmm(grad_y, h.mT) * kept_first
        grad_x = torch.empty_like(x)
        grad_h = torch.bmm(masked.mT, grad_y)
        grad_x[:, :hidden] = torch.ops.aten.gelu_backward(grad_h, x[:, :hidden])
        grad_x[:, hidden:] = grad
        grad_bias = grad_x.sum(dim=2)
        grad_weight = -grad_bias[..., None] * mean
        parts = zip(grad_weight.split(ctx.rankings), grad_x.split(ctx.rankings), base, strict=True)
        for out, rows, one in parts:
            of_base = rows.view(-1, len(one)) @ one
            out[..., :num_base] += of_base.view(*rows.shape[:2], num_base)
        if co_indicated is not None:
            grad_weight[..., num_base:] += torch.bmm(grad_x, co_indicated.mT)
        grad_weight = (grad_weight * used).sum(dim=0)
        grad_bias = grad_bias.sum(dim=0)
        return (
            None, None, None, None, None, None, None,
            grad_weight[hidden:], grad_bias[hidden:], grad_weight[:hidden], grad_bias[:hidden],
            grad_second.sum(dim=0), grad_y.sum(dim=(0, 2)),
            grad_last.sum(dim=0), grad.sum().view(1),
        )  # fmt: skip


def weights_of(mlp: ScoreMlp) -> dict[str, Floats]:
    """Return the weights of an MLP for `path_scores`, in the same memory."""
    return {name: tensor.numpy() for name, tensor in mlp.state_dict().items()}
