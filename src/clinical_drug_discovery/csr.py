"""Compressed sparse rows: for each row its entries. The shape that all edge work takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph import IntArray


@dataclass(frozen=True)
class Csr:
    """For each row the nodes at the other end of its edges."""

    indptr: Tensor  #: shape (rows + 1,), int64: the edges of row i are indptr[i]:indptr[i + 1]
    indices: Tensor  #: shape (edges,), int32

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.indptr.numel() - 1

    def to(self, device: torch.device) -> Csr:
        """The same on `device`."""
        return Csr(self.indptr.to(device), self.indices.to(device))

    def range(self, start: int, stop: int) -> Csr:
        """Rows start:stop; only `indptr` is new memory."""
        indptr = self.indptr[start : stop + 1]
        return Csr(indptr - indptr[0], self.indices[int(indptr[0]) : int(indptr[-1])])

    def pick(self, rows: IntArray) -> Csr:
        """The given rows in the given order; on the CPU, 16 bytes per edge of theirs meanwhile."""
        indptr = self.indptr.numpy()
        degree = indptr[rows + 1] - indptr[rows]
        ends = np.concatenate([[0], np.cumsum(degree)])
        edges = np.arange(ends[-1]) + np.repeat(indptr[rows] - ends[:-1], degree)
        return Csr(torch.from_numpy(ends), torch.from_numpy(self.indices.numpy()[edges]))

    def keep(self, entries: IntArray, num_entries: int) -> Csr:
        """Only the given entries, renumbered by their places; on the CPU, about 30 bytes per edge.

        An edge and its mirror stand in the same structure, so this is the transpose of `pick`
        without any sorting.

        Args:
            entries: shape (K,), distinct.
            num_entries: all entries are below it.
        """
        place = np.full(num_entries, -1, np.int32)
        place[entries] = np.arange(len(entries), dtype=np.int32)
        renumbered = place[self.indices.numpy()]
        kept = renumbered >= 0
        before = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        return Csr(
            torch.from_numpy(before[self.indptr.numpy()]), torch.from_numpy(renumbered[kept])
        )
