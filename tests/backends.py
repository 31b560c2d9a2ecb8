"""Backends for the tests, and operations of `ops` as differentiable functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from clinical_drug_discovery.ops.attention import Parameters, attend, attend_backward, head_dots
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.buffers import zeros
from clinical_drug_discovery.ops.mean import add_mean, inverse_degree, mean_backward_by_type, packed


@dataclass(frozen=True)
class _ExactKernels(Backend):
    """Kernels without bfloat16, whose only error is the rounding of float32."""

    def storage_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype

    def product_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


CPU = torch.device("cpu")
KERNELS = Backend(CPU, kernels=True)
TORCH = Backend(CPU, kernels=False)
EXACT_KERNELS = _ExactKernels(CPU, kernels=True)

#: For `parametrize`. Only tests compile kernels with rows in float32, so these tests are slow ones.
#: Kernels in float64, to 1e-9, and kernels with rows in bfloat16 are tested always.
SLOW_EXACT_KERNELS = pytest.param(EXACT_KERNELS, marks=pytest.mark.slow)


def drawn(seed: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return a function that draws arrays of normal numbers, given their shape."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator).to(dtype)


def with_one_and_all_threads() -> Iterator[None]:
    """Let the kernels use one thread, then all of them, and in the end as many as before."""
    before = numba.get_num_threads()
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):  # type: ignore[attr-defined]  # numba sets it later
            numba.set_num_threads(threads)
            yield
    finally:
        numba.set_num_threads(before)


def mean_neighbors(x: Tensor, block: Block) -> Tensor:
    """`add_mean` to zeros, with its gradient."""
    mean: Tensor = _Mean.apply(x, block)  # type: ignore[no-untyped-call]  # torch has no types for it
    return mean


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block) -> Tensor:
        ctx.block = block
        messages = packed(x, block.backend)
        return add_mean(messages, block, zeros(x, block.num_rows, x.shape[1]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        messages = packed(grad, ctx.block.backend, inverse_degree(ctx.block, grad))
        parts = [part.clone() for _, part in mean_backward_by_type(messages, ctx.block, grad)]
        return torch.cat(parts), None


def heterogeneous_attention(block: Block, x: Tensor, *weights: Tensor) -> Tensor:
    """`attend` with its gradients, by x and the weights that `Parameters.padded` takes."""
    result: Tensor = _Attention.apply(block, x, *weights)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, block: Block, x: Tensor, *weights: Tensor) -> Tensor:
        parameters = Parameters.padded(block.backend, *weights)
        width = parameters.weight.shape[1] // 3
        queries = x.new_empty(block.num_rows, width, dtype=block.backend.storage_dtype(x.dtype))
        out, ctx.log_total = attend(x, parameters, block, queries)
        ctx.save_for_backward(x, out, *weights)
        ctx.block = block
        heads = out.unflatten(1, (weights[2].shape[1], -1))
        result: Tensor = heads[..., : parameters.dim].flatten(1).clone()
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, *weights = ctx.saved_tensors
        parameters = Parameters.padded(ctx.block.backend, *weights)
        num_heads = parameters.scale.shape[1]
        grad_out = zeros(out, *out.shape)
        heads = grad.unflatten(1, (num_heads, -1))
        grad_out.unflatten(1, (num_heads, -1))[..., : parameters.dim] = heads
        delta = head_dots(out, grad_out, num_heads, ctx.block.backend)
        grad_x = zeros(x, *x.shape)
        given = ctx.log_total, delta, grad_out, grad_x
        grads = attend_backward(x, parameters, ctx.block, *given)
        return None, grad_x, *parameters.cut(grads)
