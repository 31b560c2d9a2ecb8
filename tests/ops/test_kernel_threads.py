"""Kernels on several threads: every part is computed once, and errors come through."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from clinical_drug_discovery.ops.cpu.threads import run_parts


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before, number = torch.get_num_threads(), int(request.param)
    torch.set_num_threads(number)
    yield number
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_parts", [1, 2, 5, 64])
def test_each_part_is_computed_once_by_as_many_threads_as_torch_uses(
    threads: int, num_parts: int
) -> None:
    expected = min(threads, num_parts)
    together, calls = threading.Barrier(expected, timeout=60), []

    def kernel(first: int, last: int, more: str) -> None:
        together.wait()  # fails unless all calls run at once
        calls.append((first, last, more))

    run_parts(kernel, num_parts, "more")
    assert len(calls) == expected
    parts = [part for first, last, _ in calls for part in range(first, last)]
    assert sorted(parts) == list(range(num_parts))
    assert max(last - first for first, last, _ in calls) <= -(-num_parts // expected)
    assert {more for *_, more in calls} == {"more"}


def test_the_error_of_a_part_comes_after_all_parts_have_ended(threads: int) -> None:
    ended = []

    def kernel(first: int, last: int) -> None:
        if first == 0:
            raise MemoryError("part 0")
        ended.append((first, last))

    with pytest.raises(MemoryError, match="part 0"):
        run_parts(kernel, 64)
    assert len(ended) == threads - 1
    with pytest.raises(MemoryError, match="last"):
        run_parts(_fail_last, 64)


def _fail_last(first: int, last: int) -> None:
    if last == 64:
        raise MemoryError("last")
