"""A table whose rows are divided among the processes of a group, each of which owns a range."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .interface import Group


class Asked(NamedTuple):
    """Rows that the processes of a group have asked each other for."""

    rows: Tensor  #: shape (m,), int64: rows of the own range, those for each process in turn
    given: list[int]  #: number of these rows for each process
    taken: list[int]  #: number of rows that this process took from each process


class Rows:
    """The division of N rows into consecutive ranges, one for each process.

    With one process, the range is the whole table, and nothing is copied.
    """

    def __init__(self, group: Group, num_rows: int, unit: int = 1) -> None:
        """Divide the rows.

        Args:
            group: the processes.
            num_rows: number of rows N.
            unit: ranges start at multiples of this number.
        """
        self._group, units = group, -(-num_rows // unit)
        starts = (units * rank // group.size * unit for rank in range(group.size + 1))
        #: start of each range, and N
        self.bounds: list[int] = [min(start, num_rows) for start in starts]
        self.own = slice(*self.bounds[group.rank : group.rank + 2])  #: range of this process
        self.num_rows = num_rows

    @property
    def counts(self) -> list[int]:
        """Number of rows of each process."""
        return [stop - start for start, stop in pairwise(self.bounds)]

    @property
    def num_own(self) -> int:
        """Number of rows of this process."""
        return self.bounds[self._group.rank + 1] - self.bounds[self._group.rank]

    def fetch(self, own: Tensor, rows: Tensor) -> tuple[Tensor, Asked]:
        """Return copies of any rows of the table, and what the processes have asked for.

        Args:
            own: shape (n, C), the rows of this process.
            rows: shape (m,), int64, distinct and ascending.
        """
        bounds = torch.tensor(self.bounds, device=rows.device)
        taken = torch.searchsorted(rows, bounds).diff()
        once = [1] * self._group.size
        given: list[int] = self._group.swap(taken, once, once).tolist()
        asked = Asked(
            self._group.swap(rows, taken.tolist(), given) - self.own.start, given, taken.tolist()
        )
        return self._group.swap(own[asked.rows], given, asked.taken), asked

    def give_back(self, parts: Sequence[tuple[Asked, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the gradients of fetched rows to their owners.

        Gradients of the same row are added in the order of ranks and then of parts. One process
        with all parts adds them in the same order.

        Args:
            parts: what `fetch` returned, and the gradient of the rows, shape (m, C), of each part.

        Returns:
            The own rows that have a gradient, shape (k,), int64, numbered from the start of the
            range, and the sums of their gradients, shape (k, C).
        """
        returned = [
            (
                asked.rows.split(asked.given),
                self._group.swap(gradient, asked.taken, asked.given).split(asked.given),
            )
            for asked, gradient in parts
        ]
        pieces = [
            (rows[rank], gradients[rank])
            for rank in range(self._group.size)
            for rows, gradients in returned
        ]
        if len(pieces) == 1:
            return pieces[0]
        found, place = torch.cat([rows for rows, _ in pieces]).unique(return_inverse=True)
        total = parts[0][1].new_zeros(len(found), *parts[0][1].shape[1:])
        for at, (_, gradient) in zip(
            place.split([len(rows) for rows, _ in pieces]), pieces, strict=True
        ):
            total[at] += gradient
        return found, total

    def divide(self, whole: Tensor | None, like: Tensor) -> Tensor:
        """Return the own rows of a table that the first process has.

        Args:
            whole: shape (N, ...); None in all other processes.
            like: any tensor with the type, the device and the other sizes of the table.
        """
        if whole is None:
            whole = like.new_empty(0, *like.shape[1:])
        return self._group.swap(whole, *self._to_first()[::-1])

    def collect(self, own: Tensor) -> Tensor:
        """Return the whole table in the first process, and no rows in all others."""
        return self._group.swap(own, *self._to_first())

    def share(self, whole: Tensor) -> Tensor:
        """Fill a table of which each process has filled its own rows; return it."""
        for rank, (start, stop) in enumerate(pairwise(self.bounds)):
            if start < stop:
                self._group.copy(whole[start:stop], rank)
        return whole

    def whole(self, own: Tensor) -> Tensor:
        """Return the whole table in all processes; with one process, the table itself."""
        if self._group.size == 1:
            return own
        table = own.new_empty(self.num_rows, *own.shape[1:])
        table[self.own] = own
        return self.share(table)

    def _to_first(self) -> tuple[list[int], list[int]]:
        """Return the numbers of rows that are sent and received when the first collects all."""
        others = [0] * (self._group.size - 1)
        return [self.num_own, *others], self.counts if self._group.rank == 0 else [0, *others]
