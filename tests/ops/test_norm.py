"""Layer normalization with its neighbors: the kernels against torch in float64, and invariances."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from backends import KERNELS, TORCH, drawn, with_one_and_all_threads
from closeness import BFLOAT16, off
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.norm import normalize, normalize_backward

WIDTHS = (3, 16, 33, 64)  # of a single column, normalization leaves rounding errors alone
ROWS = 37


class Layer(NamedTuple):
    """The inputs of the end of a layer, and the gradient of its result."""

    product: Tensor
    bias: Tensor
    out: Tensor
    before: Tensor
    grad: Tensor
    scale: Tensor

    @staticmethod
    def draw(width: int, dtype: torch.dtype) -> Layer:
        rows = drawn(width, dtype)
        product = rows(ROWS, width).bfloat16() if dtype == torch.float32 else rows(ROWS, width)
        shape = ROWS, width
        return Layer(product, rows(width), rows(*shape), rows(*shape), rows(*shape), rows(ROWS))

    def of(self, rows: slice) -> Layer:
        """Some rows."""
        chunk = (part[rows] for part in (self.product, self.out, self.before, self.grad))
        product, out, before, grad = chunk
        return Layer(product, self.bias, out, before, grad, self.scale[rows])

    def run(self, backend: Backend, is_hidden: bool) -> list[Tensor]:
        """Sum and result, the gradient with respect to the sum, and its scaled copy."""
        out, result = self.out.clone(), torch.full_like(self.out, 7)
        before = self.before if is_hidden else None
        normalize(self.product, self.bias, out, result, backend, before)
        by_sum = out.clone()
        padded = 2 * out.shape[1] + 1
        packed = torch.zeros(len(out), padded, dtype=self.product.dtype)
        scale = self.scale if is_hidden else None
        normalize_backward(self.grad, by_sum, packed, backend, relu=is_hidden, scale=scale)
        assert (packed[:, out.shape[1] :] == 0).all()
        return [out, result, by_sum, packed[:, : out.shape[1]]]


def exact(layer: Layer, is_hidden: bool) -> list[Tensor]:
    """The same by autograd in float64."""
    product, bias, out, before, grad, scale = (part.double() for part in layer)
    total = (product + bias + out if is_hidden else product + bias).requires_grad_()
    active = total.relu() if is_hidden else total
    normal = functional.layer_norm(active, active.shape[1:], eps=1e-5)
    (by_sum,) = torch.autograd.grad(normal, total, grad)
    result = before + normal if is_hidden else normal
    packed = by_sum * scale[:, None] if is_hidden else by_sum
    return [active.detach(), result.detach(), by_sum, packed]


@pytest.mark.parametrize("is_hidden", [False, True])
@pytest.mark.parametrize("backend", [KERNELS, TORCH])
def test_equals_autograd(backend: Backend, is_hidden: bool) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        for width in WIDTHS:
            layer = Layer.draw(width, dtype)
            found, wanted = layer.run(backend, is_hidden), exact(layer, is_hidden)
            for value, right in zip(found[:3], wanted[:3], strict=True):
                assert off(value, right) < tolerance
            assert off(found[3], wanted[3]) < (BFLOAT16 if dtype == torch.float32 else tolerance)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_chunks_and_threads_do_not_change_a_bit(is_hidden: bool) -> None:
    layer = Layer.draw(33, torch.float32)
    whole = layer.run(KERNELS, is_hidden)
    for _ in with_one_and_all_threads():
        chunks = [layer.of(slice(at, at + 5)).run(KERNELS, is_hidden) for at in range(0, ROWS, 5)]
        for value, parts in zip(whole, zip(*chunks, strict=True), strict=True):
            assert torch.equal(value, torch.cat(parts))


@pytest.mark.parametrize("backend", [KERNELS, TORCH])
def test_nan_stays_nan(backend: Backend) -> None:
    """Otherwise training would go on after its loss has diverged."""
    layer = Layer.draw(16, torch.float32)
    layer.out[3, 5] = torch.nan
    for value in layer.run(backend, is_hidden=True):
        assert value[3].isnan().any()
        assert not value[4].isnan().any()


def test_a_result_may_replace_the_rows_before_it() -> None:
    layer = Layer.draw(33, torch.float32)
    apart, out = torch.empty_like(layer.before), layer.out.clone()
    normalize(layer.product, layer.bias, layer.out, apart, KERNELS, layer.before)
    normalize(layer.product, layer.bias, out, layer.before, KERNELS, layer.before)
    assert torch.equal(layer.before, apart)
