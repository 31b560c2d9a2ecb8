"""A divided table gives the rows, the sums and the updates of a whole one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from clinical_drug_discovery.system.group.interface import ALONE, Group
from clinical_drug_discovery.system.group.rows import Rows
from clinical_drug_discovery.training.optimizer import LazyAdam

Result = TypeVar("Result")
NUM_ROWS, WIDTH = 23, 3


class Threads:
    """A thread that exchanges values with the other threads of a group; see `Group`."""

    local_rank, local_size, seconds, num_bytes = 0, 1, 0.0, 0

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, shared: list[Any]) -> None:
        self.rank, self.size, self._barrier, self._shared = rank, size, barrier, shared

    def gather(self, value: Any) -> list[Any]:
        self._barrier.wait()
        self._shared[self.rank] = value
        self._barrier.wait()
        return list(self._shared)

    def swap(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        assert (len(x), len(sent)) == (sum(sent), self.size)
        pieces = [pieces[self.rank].clone() for pieces in self.gather(x.split(list(sent)))]
        assert [len(piece) for piece in pieces] == list(received)
        return torch.cat(pieces)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        raise NotImplementedError

    def copy(self, tensor: Tensor, source: int = 0) -> None:
        tensor.copy_(self.gather(tensor.clone())[source])


def in_group(size: int, work: Callable[[Group], Result]) -> list[Result]:
    """Return the results of some threads, which work as the processes of a group."""
    barrier, shared = threading.Barrier(size, timeout=60), [None] * size
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda r: work(Threads(r, size, barrier, shared)), range(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 30])
@pytest.mark.parametrize("unit", [1, 4])
def test_a_table_is_divided_shared_and_collected(size: int, unit: int) -> None:
    table = torch.arange(NUM_ROWS * WIDTH).reshape(NUM_ROWS, WIDTH).float()

    def work(group: Group) -> tuple[Rows, Tensor, Tensor, Tensor]:
        rows = Rows(group, NUM_ROWS, unit)
        own = rows.divide(table if group.rank == 0 else None, table)
        assert torch.equal(own, table[rows.own])
        return rows, own, rows.whole(own), rows.collect(own)

    for rank, (rows, own, whole, collected) in enumerate(in_group(size, work)):
        assert rows.own.start % unit == 0
        assert len(own) == rows.num_own == rows.counts[rank]
        assert torch.equal(whole, table)
        assert torch.equal(collected, table if rank == 0 else table[:0])
    assert rows.bounds[0] == 0
    assert rows.bounds[-1] == NUM_ROWS == sum(rows.counts)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("per_process", [1, 2])
def test_updates_of_a_divided_table_have_the_bits_of_one_process(
    size: int, per_process: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(NUM_ROWS, WIDTH, generator=generator)
    num_steps, num_parts = 5, size * per_process
    drawn = [
        torch.randperm(NUM_ROWS, generator=generator)[: 3 + step + part].sort().values
        for step in range(num_steps)
        for part in range(num_parts)
    ]
    weights = [torch.randn(len(rows), WIDTH, generator=generator) for rows in drawn]

    def work(group: Group) -> Tensor:
        rows = Rows(group, NUM_ROWS)
        own = rows.divide(table.clone() if group.rank == 0 else None, table)
        optimizer = LazyAdam(own, 0.1, rows)
        for step in range(num_steps):
            first = step * num_parts + group.rank * num_parts // group.size
            for part in range(first, first + num_parts // group.size):
                (optimizer.take(drawn[part]).sin() * weights[part]).sum().backward()
            optimizer.step()
        return rows.collect(own)

    alone = work(ALONE)
    assert not torch.equal(alone, table)
    assert torch.equal(in_group(size, work)[0], alone)
