"""Products in chunks of rows equal whole ones, and give the same bits on any number of threads."""

from __future__ import annotations

import pytest
import torch
from backends import EXACT_KERNELS, KERNELS, TORCH
from closeness import BFLOAT16, off
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.linear import linear_backward, linear_into, multiply, same_bits

NUM_ROWS = (1, 3, 9, 63, 64, 200, 4_096 + 2_048 + 70)  # chunks have 4,096 rows, then fewer
ALL = pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        (EXACT_KERNELS, torch.float64, 1e-12),
        (EXACT_KERNELS, torch.float32, 1e-5),
        (KERNELS, torch.float32, BFLOAT16),
        (TORCH, torch.float32, 1e-5),
    ],
    ids=["exact-64", "exact-32", "kernels", "torch"],
)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double).to(
        dtype
    )


@ALL
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_rows_times_weights(
    num_rows: int, biased: bool, backend: Backend, dtype: torch.dtype, tolerance: float
) -> None:
    for in_dim, out_dim in ((64, 80), (12, 20)):
        x = draw(num_rows, in_dim, dtype=dtype)
        weight = draw(out_dim, in_dim, dtype=dtype, seed=1) / in_dim**0.5
        bias = draw(out_dim, dtype=dtype, seed=2) if biased else None
        exact = functional.linear(
            x.double(), weight.double(), None if bias is None else bias.double()
        )
        for stored in (dtype, torch.bfloat16):
            out = torch.full((num_rows, out_dim), torch.nan, dtype=stored)
            linear_into(out, x, weight, bias, backend)
            assert off(out, exact) < (tolerance if stored == dtype else BFLOAT16)


@ALL
@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_gradients(num_rows: int, backend: Backend, dtype: torch.dtype, tolerance: float) -> None:
    x, weight = draw(num_rows, 64, dtype=dtype), draw(80, 64, dtype=dtype, seed=1) / 8
    grad, bias = draw(num_rows, 80, dtype=dtype, seed=2), torch.zeros(80, dtype=dtype)
    doubles = [value.double().requires_grad_() for value in (x, weight, bias)]
    exact = torch.autograd.grad(functional.linear(*doubles), doubles, grad.double())
    added = [torch.ones_like(value) for value in (x, weight, bias)]
    grad_x, grad_weight, grad_bias = added
    linear_backward(grad, x, weight, grad_x, grad_weight, grad_bias, backend)
    for value, wanted in zip(added, exact, strict=True):
        assert off(value - 1, wanted) < tolerance
    before = grad_bias.clone()
    linear_backward(grad, x, weight, grad_x, grad_weight, None, backend)
    assert torch.equal(grad_bias, before)


def test_the_number_of_threads_changes_no_bit() -> None:
    weight, most = draw(64, 64, seed=1), torch.get_num_threads()
    try:
        for num_rows in range(1, 140):
            results = []
            for threads in (1, 2, 8):
                torch.set_num_threads(threads)
                results.append(multiply(draw(num_rows, 64), weight))
                assert torch.get_num_threads() == threads
            assert torch.equal(results[0], results[1]), num_rows
            assert torch.equal(results[0], results[2]), num_rows
    finally:
        torch.set_num_threads(most)


@pytest.mark.parametrize(("num_rows", "inside"), [(9, 1), (8, 3), (127, 1), (128, 3), (1_001, 3)])
def test_few_rows_get_one_thread_also_after_an_error(num_rows: int, inside: int) -> None:
    most = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with same_bits(num_rows):
            assert torch.get_num_threads() == inside
        with pytest.raises(ZeroDivisionError), same_bits(num_rows):
            1 / 0  # noqa: B018  # fails
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(most)


@pytest.mark.parametrize(("num_columns", "inside"), [(16, 3), (17, 1), (48, 3), (331, 1), (401, 3)])
def test_some_numbers_of_columns_get_one_thread(num_columns: int, inside: int) -> None:
    most = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with same_bits(128, num_columns):
            assert torch.get_num_threads() == inside
        with same_bits(127, num_columns):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(most)
