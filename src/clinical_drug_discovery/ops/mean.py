"""Mean over neighbours: the aggregator of GraphSAGE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.blocks import Block
from clinical_drug_discovery.ops import cpu, reference
from clinical_drug_discovery.runtime import check_shape


def mean_neighbors(x: Tensor, block: Block) -> Tensor:
    """Mean of the source rows of each target row; 0 where a row has no edges.

    The aggregator of "Inductive Representation Learning on Large Graphs" (arXiv:1706.02216), Alg.
    1, line 4 with a mean. Nothing of the size of the edges is kept for the backward pass, which is
    the same sum over the transposed block.

    Args:
        x: shape (N, C), one row per node of the graph.
        block: M target rows.

    Returns:
        shape (M, C).
    """
    check_shape("x", x, None, None)
    mean: Tensor = _MeanNeighbors.apply(x, block)  # type: ignore[no-untyped-call]  # torch has no types for it
    return mean


def mean_neighbors_backward(grad: Tensor, block: Block) -> Tensor:
    """Gradient of `mean_neighbors` by x, shape (N, C), from that by its result, shape (M, C)."""
    if block.by_source is None:
        raise RuntimeError("a range_block has no backward pass: use it under torch.no_grad()")
    scale = block.inverse_degree.to(grad.dtype)
    return _csr_sum(grad)(block.by_source, grad, None, scale)


class _MeanNeighbors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block) -> Tensor:
        ctx.block = block
        scale = block.inverse_degree.to(x.dtype)
        return _csr_sum(x)(block.by_target, x, scale, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return mean_neighbors_backward(grad, ctx.block), None


def _csr_sum(x: Tensor) -> Callable[..., Tensor]:
    return cpu.csr_sum if x.device.type == "cpu" else reference.csr_sum
