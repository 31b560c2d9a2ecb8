"""The end of an HGT layer: the kernels against autograd in float64, and invariances."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from backends import EXACT_KERNELS, KERNELS, TORCH, drawn, with_one_and_all_threads
from closeness import BFLOAT16, off
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.ops.attention import head_dots
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.norm import mix_and_normalize, mix_and_normalize_backward

WIDTHS = (3, 16, 33, 64)  # of a single column, normalization leaves rounding errors alone
ROWS = 37
GATE = torch.tensor(0.3)


class Mixture(NamedTuple):
    """The inputs of the end of a layer, and the gradient of its result."""

    product: Tensor
    bias: Tensor
    own: Tensor
    grad: Tensor

    @staticmethod
    def draw(width: int, dtype: torch.dtype) -> Mixture:
        rows = drawn(width, dtype)
        product = rows(ROWS, width).bfloat16() if dtype == torch.float32 else rows(ROWS, width)
        return Mixture(product, rows(width), rows(ROWS, width), rows(ROWS, width))

    def of(self, rows: slice) -> Mixture:
        """Some rows."""
        return Mixture(self.product[rows], self.bias, self.own[rows], self.grad[rows])

    def run(self, backend: Backend) -> list[Tensor]:
        """Result and scale, and the three results of the backward pass."""
        out, scale = torch.full_like(self.own, 7), self.own.new_full((len(self.own), 1), 7)
        gate = GATE.to(self.own.dtype)
        mix_and_normalize(self.product, self.bias, gate, self.own, out, scale, backend)
        given = self.grad, out, scale, self.own, gate
        return [out, scale, *mix_and_normalize_backward(*given, backend)]


def exact(mixture: Mixture) -> list[Tensor]:
    """The same by autograd in float64."""
    product, bias, own, grad = (part.double() for part in mixture)
    gate = GATE.double().expand(ROWS, 1).clone().requires_grad_()
    mixed = gate * (product + bias) + (1 - gate) * own
    out = functional.layer_norm(mixed, mixed.shape[1:], eps=1e-5)
    by_mixed, by_gate = torch.autograd.grad(out, (mixed, gate), grad)
    scale = (mixed.var(dim=1, correction=0) + 1e-5).rsqrt()[:, None]
    found = [out, scale, by_mixed, by_mixed * gate, (by_gate * gate)[:, 0]]
    return [value.detach() for value in found]


@pytest.mark.parametrize("backend", [KERNELS, EXACT_KERNELS, TORCH])
def test_equals_autograd(backend: Backend) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        for width in WIDTHS:
            mixture = Mixture.draw(width, dtype)
            found, wanted = mixture.run(backend), exact(mixture)
            assert found[3].dtype == backend.product_dtype(dtype)
            for at, (value, right) in enumerate(zip(found, wanted, strict=True)):
                rounded = at == 3 and value.dtype == torch.bfloat16
                assert off(value, right) < (BFLOAT16 if rounded else tolerance)


def test_chunks_and_threads_do_not_change_a_bit() -> None:
    mixture = Mixture.draw(33, torch.float32)
    whole = mixture.run(KERNELS)
    for _ in with_one_and_all_threads():
        chunks = [mixture.of(slice(at, at + 5)).run(KERNELS) for at in range(0, ROWS, 5)]
        for value, parts in zip(whole, zip(*chunks, strict=True), strict=True):
            assert torch.equal(value, torch.cat(parts))


@pytest.mark.parametrize("backend", [KERNELS, TORCH])
def test_nan_stays_nan(backend: Backend) -> None:
    """Otherwise training would go on after its loss has diverged."""
    mixture = Mixture.draw(16, torch.float32)
    mixture.product[3, 5] = torch.nan
    mixture.grad[6, 5] = torch.nan
    out, _, by_mixed, packed, by_gate = mixture.run(backend)
    assert out.isnan().any(dim=1).nonzero().flatten().tolist() == [3]
    for value in (by_mixed, packed, by_gate[:, None]):
        assert value.isnan().any(dim=1).nonzero().flatten().tolist() == [3, 6]


def test_a_gradient_may_have_any_layout() -> None:
    mixture = Mixture.draw(33, torch.float32)
    turned = mixture._replace(grad=mixture.grad.t().contiguous().t())
    for value, wanted in zip(turned.run(KERNELS), mixture.run(KERNELS), strict=True):
        assert torch.equal(value, wanted)


@pytest.mark.parametrize("backend", [KERNELS, TORCH])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_dot_products_of_heads(backend: Backend, stored: torch.dtype) -> None:
    for num_rows, num_heads, dim in ((37, 8, 32), (5, 3, 16), (0, 2, 16)):
        shape = num_rows, num_heads * dim
        generator = torch.Generator().manual_seed(dim)
        a = torch.randn(shape, generator=generator).to(stored)
        b = torch.randn(shape, generator=generator)
        wanted = (a.double() * b.double()).view(num_rows, num_heads, dim).sum(dim=-1)
        found = head_dots(a, b, num_heads, backend)
        assert found.dtype == b.dtype
        assert off(found, wanted) < 1e-5
