"""Vectors in kernels: what is stored, rounded and added up is what numpy and torch say."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch

from clinical_drug_discovery.ops.cpu import llvm
from clinical_drug_discovery.ops.cpu.simd import (
    FAST,
    LANES,
    add,
    add_pair_products,
    add_products,
    exp,
    fma,
    load,
    load_splat,
    mul,
    narrow,
    splat,
    store,
    store_pairs,
    store_totals,
    total,
    widen,
)


@numba.njit(fastmath=FAST)
def narrow_all(values, out):  # type: ignore[no-untyped-def]  # numba infers its types
    for i in range(len(values)):
        out[i] = narrow(values[i], out)


@numba.njit(fastmath=FAST)
def widen_all(values, out):  # type: ignore[no-untyped-def]  # as above
    for i in range(len(values)):
        out[i] = widen(values[i])


@numba.njit(fastmath=FAST)
def copy_all(values, out):  # type: ignore[no-untyped-def]  # as above
    for i in range(0, len(values), LANES):
        store(out, i, load(values, i))


@numba.njit(fastmath=FAST)
def exp_all(values, out):  # type: ignore[no-untyped-def]  # as above
    for i in range(0, len(values), LANES):
        store(out, i, exp(load(values, i)))


@numba.njit(fastmath=FAST)
def sum_all(values, at, out):  # type: ignore[no-untyped-def]  # as above
    a, b = load(values, at), load(values, at + LANES)
    c, d = load(values, at + 2 * LANES), load(values, at + 3 * LANES)
    store_totals(out, 1, a, b, c, d)
    out[6] = total(a)


@numba.njit(fastmath=FAST)
def combine(a, b, x, out):  # type: ignore[no-untyped-def]  # as above
    store(out, 0, fma(load(a, 0), load(b, 0), splat(x)))
    store(out, LANES, add(load(a, 0), mul(load(b, 0), load_splat(b, 3))))


@numba.njit(fastmath=FAST)
def dot(a, i, b, j, out):  # type: ignore[no-untyped-def]  # as above
    out[0] = total(add_products(a, i, b, j, splat(out.dtype.type(1))))


@numba.njit(fastmath=FAST)
def times_pair(rows, pairs, at, out):  # type: ignore[no-untyped-def]  # as above
    store_pairs(pairs, at, rows, 0, LANES)
    one = splat(out.dtype.type(1))
    store(out, 0, add_pair_products(rows, 2 * LANES + 5, pairs, at, one))


def bit_patterns(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers of every kind but NaN: of any exponent, subnormal, infinite, ties and beside ties."""
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    upper = bits & np.uint32(0xFFFF0000)
    near = [upper | np.uint32(low) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
    subnormal = bits & np.uint32(0x807FFFFF)
    special = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1], np.uint32)
    values = np.concatenate([bits, *near, subnormal, special]).view(np.float32)
    values = values[~np.isnan(values)]
    return values[: len(values) // LANES * LANES]


def to_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The upper halves of the float32 numbers, rounded by torch."""
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    return np.asarray(rounded.view(torch.uint16).numpy())


def test_bfloat16_is_rounded_as_torch_rounds_it(rng: np.random.Generator) -> None:
    values = np.concatenate([bit_patterns(rng), np.full(LANES, -np.inf, np.float32)])
    wanted = to_bits(values)
    for kernel in (narrow_all, copy_all):
        found = np.zeros(len(values), np.uint16)
        kernel(values, found)
        if kernel is copy_all:  # some CPUs write subnormal numbers as zero, of their sign
            tiny = np.abs(values) < np.finfo(np.float32).tiny
            found[tiny & (found == wanted & 0x8000)] = wanted[tiny & (found == wanted & 0x8000)]
        np.testing.assert_array_equal(found, wanted)
    widened = np.zeros((2, len(values)), np.float32)
    widen_all(wanted, widened[0])
    copy_all(wanted, widened[1])
    exact = torch.from_numpy(wanted).view(torch.bfloat16).float().numpy()
    for row in widened:
        np.testing.assert_array_equal(row.view(np.uint32), exact.view(np.uint32))


def test_what_is_no_number_stays_none() -> None:
    values = np.full(LANES, np.nan, np.float32)
    for sign in (values, -values):
        for kernel in (narrow_all, copy_all):
            found = np.zeros(LANES, np.uint16)
            kernel(sign, found)
            assert torch.from_numpy(found).view(torch.bfloat16).isnan().all()


def test_other_precisions_are_stored_as_they_are(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        values = rng.standard_normal(10 * LANES).astype(dtype)
        for kernel in (narrow_all, widen_all, copy_all):
            found = np.zeros_like(values)
            kernel(values, found)
            np.testing.assert_array_equal(found, values)


def test_exp(rng: np.random.Generator) -> None:
    ends = LANES // 2 * [0, -87]
    values = np.concatenate([-np.geomspace(1e-8, 87, 100_000), -87 * rng.random(100_000), ends])
    single = values.astype(np.float32)
    found = np.zeros_like(single)
    exp_all(single, found)
    exact = np.exp(single.astype(np.float64))
    units = np.abs(found - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert units[single > -20].max() <= 2
    assert units.max() <= 5
    assert found[-2] == 1
    low = np.repeat(np.array([-87.5, -1e4, -1e30, -np.inf], np.float32), LANES // 4)
    found = np.ones_like(low)
    exp_all(low, found)  # nothing that would count beside the 1 of a row's highest logit
    assert ((found >= 0) & (found < 1e-37)).all()
    found = np.ones_like(low)
    exp_all(np.full_like(low, np.nan), found)
    assert np.isnan(found).all()
    found = np.zeros_like(values)
    exp_all(values, found)
    np.testing.assert_allclose(found, np.exp(values), rtol=1e-15)


def test_sums_of_vectors(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        for at in (0, 3, 5):
            # Whole numbers: in any order their sums are exact.
            values = rng.integers(-1000, 1000, 5 * LANES).astype(dtype)
            out = np.full(8, 7, dtype)
            sum_all(values, at, out)
            sums = values[at : at + 4 * LANES].reshape(4, LANES).sum(axis=1)
            np.testing.assert_array_equal(out, [7, *sums, 7, sums[0], 7])


def test_arithmetic_of_vectors(rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64):
        a, b = rng.standard_normal((2, LANES)).astype(dtype)
        x, out = dtype(1.5), np.zeros_like(a, shape=2 * LANES)
        combine(a, b, x, out)
        wanted = np.concatenate([a * b + x, a + b * b[3]])
        assert np.abs(out - wanted).max() < 16 * np.finfo(dtype).eps
    stored = to_bits(rng.standard_normal((2, LANES)).astype(np.float32))
    single = torch.from_numpy(stored).view(torch.bfloat16).float().numpy()
    out = np.zeros(2 * LANES, np.float32)
    combine(stored[0], stored[1], np.float32(1.5), out)
    wanted = np.concatenate([single[0] * single[1] + 1.5, single[0] + single[1] * single[1, 3]])
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-6)


def test_sums_of_products(rng: np.random.Generator) -> None:
    whole = rng.integers(-9, 10, (2, 5 * LANES))  # their sums are exact
    for dtype in (np.float32, np.float64, np.uint16):
        values = whole.astype(np.float32) if dtype == np.uint16 else whole.astype(dtype)
        a, b = (to_bits(v) for v in values) if dtype == np.uint16 else values
        out = np.zeros(1, values.dtype)
        for i, j in ((0, 0), (3, LANES), (2 * LANES, 5)):
            dot(a, i, b, j, out)
            wanted = LANES + (whole[0, i : i + 2 * LANES] * whole[1, j : j + 2 * LANES]).sum()
            assert out[0] == wanted


@pytest.mark.parametrize("has_instruction", [True, False])
def test_pairs_of_rows(
    has_instruction: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_instruction:
        monkeypatch.setattr(llvm, "_has_bfloat16_products", lambda context: False)
    whole = rng.integers(-9, 10, (3, LANES)).astype(np.float32)
    rows = to_bits(whole).reshape(-1)
    pairs, out = np.full(2 * LANES + 5, 7, np.uint16), np.zeros(LANES, np.float32)
    numba.njit(times_pair.py_func)(rows, pairs, 3, out)
    np.testing.assert_array_equal(pairs[3:-2], rows[: 2 * LANES].reshape(2, LANES).T.reshape(-1))
    assert (pairs[[0, 1, 2, -2, -1]] == 7).all()
    np.testing.assert_array_equal(out, 1 + whole[2, 5] * whole[0] + whole[2, 6] * whole[1])


def test_sums_of_products_without_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "_has_bfloat16_products", lambda context: False)
    a = to_bits(np.arange(2 * LANES, dtype=np.float32))
    out = np.zeros(1, np.float32)
    numba.njit(dot.py_func)(a, 0, a, 0, out)
    assert out[0] == LANES + (np.arange(2 * LANES) ** 2).sum()
