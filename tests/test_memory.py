"""Budgets are parsed, kept or refused; every parameter that is said to help does."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.memory import SagePlan, check_budget, parse_memory
from clinical_drug_discovery.runtime import GIB

PRIMEKG = SagePlan(129_375, 8_100_498, 256, 512, 3, 10_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GiB", 4 * GIB),
        ("5.33 GB", 5_330_000_000),
        ("512mib", GIB // 2),
        ("1000", 1000),
        (123, 123),
    ],
)
def test_amounts(text: str | int, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "four", "4 GiBs", "-1GiB", "0", 0, "1e9", "nan"])
def test_what_is_no_amount(text: str | int) -> None:
    with pytest.raises(InputError, match="memory_budget"):
        parse_memory(text)


def test_none_is_most_of_what_is_free() -> None:
    assert 0 < parse_memory(None) < psutil.virtual_memory().total


@pytest.mark.parametrize("name", ["hidden_dim", "num_layers", "num_nodes", "num_edges"])
def test_smaller_plans_need_less(name: str) -> None:
    smaller = replace(PRIMEKG, **{name: getattr(PRIMEKG, name) // 2})
    assert smaller.bytes_needed() < PRIMEKG.bytes_needed()


def test_a_budget_that_is_too_small_is_refused_with_what_would_do() -> None:
    needed = check_budget(PRIMEKG, "64GiB")
    assert needed > PRIMEKG.bytes_needed()
    with pytest.raises(InputError, match=r"memory_budget .*needs \d+\.\d\d GiB; hidden_dim 128 "):
        check_budget(PRIMEKG, needed // 2)
