"""Layers that the models share: a linear map per node type, DistMult.

Notation: M rows, T node types, C and D columns of input and output, R relations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..ops.blocks import Block
from ..ops.buffers import empty, zeros_like
from ..ops.linear import multiply, product_of
from ..ops.norm import normalize, normalize_backward
from .initialisation import uniform

_MEAN = 0.5  # mean of a relation's initial weights, divided by their standard deviation
_FIRST_WEIGHT = 3.0  # root mean square of a relation's initial weights: makes the softmax sharp


class TypedLinear(nn.Module):
    """One linear map per node type. Layer normalization follows if `norm` is set."""

    def __init__(
        self,
        num_types: int,
        in_dim: int,
        out_dim: int,
        generator: torch.Generator,
        *,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.weight = nn.Parameter(uniform((num_types, out_dim, in_dim), in_dim, generator))
        self.bias = nn.Parameter(torch.zeros(num_types, out_dim))

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Map each row by the weights of its node type.

        Args:
            x: shape (M, C), the block's target rows.
            block: knows the node type of each row.

        Returns:
            shape (M, D). Kept for the backward pass: x.
        """
        out: Tensor = _TypedLinear.apply(x, self.weight, self.bias, block, self.norm)  # type: ignore[no-untyped-call]  # torch has no types for it
        return out


class _TypedLinear(torch.autograd.Function):
    """`TypedLinear`, a few thousand rows at a time; backward with `norm` computes the map again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, block: Block, norm: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.block, ctx.norm = block, norm
        out = empty(x, len(x), bias.shape[1])
        for t, rows in block.typed_chunks():
            product = product_of([x[rows]], [weight[t]], block.backend)
            if norm:
                mapped = torch.empty_like(out[rows])
                normalize(product, bias[t], mapped, out[rows], block.backend)
            else:
                torch.add(product, bias[t], out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        block: Block = ctx.block
        dtype = block.backend.product_dtype(x.dtype)
        grad_x = empty(x, *x.shape)
        grad_weight, grad_bias = zeros_like((weight, bias))
        for t, rows in block.typed_chunks():
            own, matrix, part = x[rows].to(dtype), weight[t].to(dtype), grad[rows]
            if ctx.norm:
                part = multiply(own, matrix.t()) + bias[t]
                packed = torch.empty_like(part, dtype=dtype)
                normalize_backward(grad[rows], part, packed, block.backend, relu=False)
            else:
                packed = part.to(dtype)
            grad_x[rows] = multiply(packed, matrix)
            grad_weight[t] += multiply(packed.t(), own)
            grad_bias[t] += part.sum(dim=0)
        return grad_x, grad_weight, grad_bias, None, None


class DistMult(nn.Module):
    """Score a triple as sum_d z_src[d] * w_relation[d] * z_dst[d] / sqrt(D).

    "Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    (arXiv:1412.6575), eq. 2 with a diagonal matrix. It is symmetric, as the facts are. The division
    by sqrt(D) keeps the scores of random vectors near `_FIRST_WEIGHT` for any D. Scores rank the
    targets of one source and relation; they are not probabilities.

    The initial weights of a relation are random, and their mean is half their standard deviation.
    With equal weights, each fact would pull its endpoints together in every dimension: the nearest
    drugs of a statin would be drugs that interact with it, instead of drugs with the same targets.
    Neighbors start with similar vectors. With mean 0, their first scores would be as low as those
    of other nodes, so training would be slower.
    """

    def __init__(self, num_relations: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        spread = torch.randn(num_relations, dim, generator=generator)
        self.relation = nn.Parameter(_FIRST_WEIGHT * (_MEAN + spread) / (1 + _MEAN**2) ** 0.5)

    def forward(self, z: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
        """Return the scores of triples.

        Args:
            z: shape (M, D), embeddings.
            src: shape (B,), int64, rows of z.
            relation: shape (B,), int64.
            dst: shape (B,), int64, rows of z.

        Returns:
            shape (B,).
        """
        products = z[src] * self.relation[relation] * z[dst]
        scores: Tensor = products.sum(dim=1) / z.shape[1] ** 0.5
        return scores
