"""Rows of integers as keys of 64 bits, and the sorting of keys that do not fit into memory.

A row is packed into one 64-bit integer (relation, lower node, higher node, direction). Sorting puts
duplicate rows and the two directions of a fact next to each other. Integers are reused in place
because the first write to a page of memory takes twenty times as long as a later write.

Without a directory, all keys are sorted at once, in memory. With a directory, runs of `_RUN_KEYS`
keys are sorted and written to a file, and then merged (external merge sort): each step of the merge
reads the keys below a bound from all runs, and sorts them. The bounds are keys of the runs, chosen
such that a step has about as many keys as a run. The order of equal keys does not matter, so the
result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ...system.limits.numbers import Numbers
from ..knowledge_graph import IntArray

Keys = npt.NDArray[np.int64]

_MOST_COPIED = 2**24  # keys that are copied to be sorted; 16 bytes for each
_PIECE_KEYS = 2**21  # sorted keys that are handed over at a time
_RUN_KEYS = 2**23  # keys of a run; merging holds two such arrays
_SAMPLES = 256  # keys of a run that are candidates for bounds


def node_bits(num_nodes: int) -> int:
    """Return the number of bits that a key has for a node number."""
    return max(num_nodes - 1, 1).bit_length()


def pack_rows(x: IntArray, relation: IntArray, y: IntArray, bits: int) -> Keys:
    """Pack K rows, given as three arrays, into K keys; x and y must differ in every row."""
    key = relation.astype(np.int64)
    key <<= bits
    key |= np.minimum(x, y)
    key <<= bits
    key |= np.maximum(x, y)
    key <<= 1
    key |= x > y
    return key


def sort_integers(keys: Keys) -> None:
    """Sort in place, without a copy of many keys.

    polars takes two thirds of the CPU time of np.sort, and uses two threads, but it needs copies.
    """
    if len(keys) > _MOST_COPIED:
        keys.sort()
    else:
        keys[:] = pl.Series(keys).sort().to_numpy()


class SortedKeys:
    """Sorts keys that are added piece by piece."""

    def __init__(self, most: int, directory: Path | None) -> None:
        """Take room for keys; memory is taken when it is written to.

        Args:
            most: largest number of keys that are added.
            directory: of the files; None: keep all keys in memory.
        """
        self._directory = directory
        self._room = np.empty(most if directory is None else min(most, _RUN_KEYS), np.int64)
        self._end = 0
        self._file: Numbers | None = None
        self._bounds: list[tuple[int, int]] = []  #: where each run begins and ends in the file
        self._samples: list[Keys] = []

    def add(self, keys: Keys) -> None:
        """Add keys, in any order.

        Raises:
            WriteError: the disk is full.
        """
        while len(keys):
            if self._end == len(self._room):
                self._write_run()
            now = keys[: len(self._room) - self._end]
            self._room[self._end : self._end + len(now)] = now
            self._end += len(now)
            keys = keys[len(now) :]

    def pieces(self) -> Iterator[Keys]:
        """Yield all keys in ascending order, piece by piece; the pieces may be changed.

        Only files lack keys: a key that a run has several times is kept once.
        """
        if self._file is None:
            keys = self._room[: self._end]
            sort_integers(keys)
            yield from _pieces(keys)
        else:
            self._write_run()
            self._room = np.empty(0, np.int64)
            yield from self._merged(self._file)

    def _write_run(self) -> None:
        keys = self._room[: self._end]
        sort_integers(keys)
        new = np.ones(len(keys), bool)
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        run = keys if new.all() else keys[new]
        if self._file is None:
            self._file = Numbers(np.int64, 0, self._directory)
        start = len(self._file)
        self._file.append(run)
        self._bounds.append((start, len(self._file)))
        self._samples.append(run[:: max(_RUN_KEYS // _SAMPLES, 1)].copy())
        self._end = 0

    def _merged(self, file: Numbers) -> Iterator[Keys]:
        samples = np.sort(np.concatenate(self._samples))
        runs = [_Run(file, start, stop) for start, stop in self._bounds]
        for bound in [*np.unique(samples[_SAMPLES::_SAMPLES]).tolist(), None]:
            keys = np.concatenate([run.below(bound) for run in runs])
            keys.sort(kind="stable")  # Timsort merges sorted runs in a fifth of the usual time
            yield from _pieces(keys)


def _pieces(keys: Keys) -> Iterator[Keys]:
    for start in range(0, len(keys), _PIECE_KEYS):
        yield keys[start : start + _PIECE_KEYS]


class _Run:
    """A sorted run, which is read from its beginning."""

    def __init__(self, file: Numbers, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop
        self._left = np.empty(0, np.int64)  # keys that were read and not yet handed over

    def below(self, bound: int | None) -> Keys:
        """Return the next keys, all that are less than `bound`; None: all other keys."""
        parts = [self._left]
        step = max(_RUN_KEYS // _SAMPLES, 1)
        while self._at < self._stop and (
            bound is None or not len(parts[-1]) or parts[-1][-1] < bound
        ):
            end = min(self._at + step, self._stop)
            parts.append(self._file.read(self._at, end))
            self._at = end
        keys = np.concatenate(parts)
        end = len(keys) if bound is None else int(np.searchsorted(keys, bound))
        self._left = keys[end:].copy()
        return keys[:end]
