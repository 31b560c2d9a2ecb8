"""The rows of tables as integers, chunk by chunk, in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...system.limits.numbers import Numbers
from ..knowledge_graph import IntArray

NO_RELATION = 2**32 - 1  #: code of a missing relation; polars gives no relation this code
Codes = npt.NDArray[np.uint32]


class Chunk(NamedTuple):
    """Rows of one batch; 12 bytes per row."""

    table: int
    row: int | IntArray  #: number of the first row, or of each row if rows were removed
    x: IntArray  #: record of each x node, int32
    y: IntArray  #: record of each y node, int32
    relation: Codes  #: polars' code of each relation, or `NO_RELATION`

    def rows(self, at: IntArray) -> IntArray:
        """Return the row numbers at some positions."""
        return at + self.row if isinstance(self.row, int) else self.row[at]


class _Place(NamedTuple):
    """Where a chunk of `length` rows lies in the file."""

    table: int
    length: int
    start: int  #: of x, y and relation
    row: int | None  #: number of the first row; None: the file has the number of each row
    numbers: int | None  #: where these numbers lie, if the file has them


class Chunks:
    """A list of chunks, in memory or in a file, from which they are read again."""

    def __init__(self, directory: Path | None) -> None:
        """Make an empty list.

        Args:
            directory: of the file; None: keep the chunks in memory.
        """
        self._file = None if directory is None else Numbers(np.int32, 0, directory)
        self._chunks: list[Chunk | _Place] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return map(self._read, self._chunks)

    def __getitem__(self, number: int) -> Chunk:
        return self._read(self._chunks[number])

    def tables(self) -> list[int]:
        """Return the number of the table of each chunk."""
        return [chunk.table for chunk in self._chunks]

    def append(self, chunk: Chunk) -> None:
        """Add a chunk.

        Raises:
            WriteError: the disk is full.
        """
        self._chunks.append(self._written(chunk, None))

    def replace(self, number: int, chunk: Chunk) -> None:
        """Replace a chunk by one with at most as many rows, which takes its place in a file."""
        self._chunks[number] = self._written(chunk, self._chunks[number])

    def used_up(self) -> Iterator[Chunk]:
        """Yield the chunks in any order, and remove them from memory; at the end, the file, too."""
        while self._chunks:
            yield self._read(self._chunks.pop())
        self._file = None

    def _written(self, chunk: Chunk, old: Chunk | _Place | None) -> Chunk | _Place:
        """Write a chunk to the end of the file, or to the place of an old one."""
        if self._file is None:
            return chunk
        start, numbers = len(self._file), None
        if isinstance(old, _Place):
            start, numbers = old.start, old.numbers
        columns = (chunk.x, chunk.y, chunk.relation.view(np.int32))
        self._file.write(start, np.concatenate(columns))
        row = chunk.row if isinstance(chunk.row, int) else None
        if not isinstance(chunk.row, int):
            numbers = len(self._file) if numbers is None else numbers
            self._file.write(numbers, chunk.row.astype(np.int64).view(np.int32))
        return _Place(chunk.table, len(chunk.x), start, row, numbers)

    def _read(self, chunk: Chunk | _Place) -> Chunk:
        if isinstance(chunk, Chunk):
            return chunk
        assert self._file is not None
        table, length, start, row, numbers = chunk
        x, y, relation = self._file.read(start, start + 3 * length).reshape(3, length)
        rows: int | IntArray
        if row is None:
            assert numbers is not None
            rows = self._file.read(numbers, numbers + 2 * length).view(np.int64)
        else:
            rows = row
        return Chunk(table, rows, x, y, relation.view(np.uint32))
