"""Lists of integers that lie in memory, or in files without a name.

A file takes no memory of this process: integers are written to it and read back in pieces. The
system keeps pages of the file only as long as nothing else needs the memory. Like the files of
`scratch`, it ends with the process, even by a kill.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from .. import disk
from ..errors import InputError
from ..files import writing

Array = npt.NDArray[Any]


class Numbers:
    """A list of integers of one type, in memory or in a file."""

    def __init__(self, dtype: npt.DTypeLike, most: int, directory: Path | None) -> None:
        """Make an empty list.

        Args:
            dtype: type of the integers.
            most: largest length of a list in memory; memory is taken when it is written to.
            directory: of the file; None: in memory.

        Raises:
            WriteError: the directory cannot be made or written to.
        """
        self._dtype = np.dtype(dtype)
        self._directory = directory
        self._length = 0
        if directory is None:
            self._array: Array = np.empty(most, self._dtype)
            return
        with writing(directory):
            disk.make_directory(directory)
            self._handle = disk.open_nameless(directory)
        self._close = finalize(self, os.close, self._handle)

    def __len__(self) -> int:
        return self._length

    def append(self, values: Array) -> None:
        """Write integers to the end; see `write`."""
        self.write(self._length, values)

    def write(self, start: int, values: Array) -> None:
        """Write integers to the positions from `start` on.

        Raises:
            WriteError: the disk is full.
        """
        stop = start + len(values)
        if self._directory is None:
            self._array[start:stop] = values
        else:
            data = np.ascontiguousarray(values, self._dtype).view(np.uint8).data
            with writing(self._directory):
                at = start * self._dtype.itemsize
                disk.write_at(self._directory, self._handle, data, at)
        self._length = max(self._length, stop)

    def read(self, start: int, stop: int) -> Array:
        """Return the integers from `start` to `stop` - 1; do not change them.

        Raises:
            InputError: the disk fails.
        """
        if self._directory is None:
            return self._array[start:stop]
        found = np.empty(stop - start, self._dtype)
        view, at = found.view(np.uint8).data, start * self._dtype.itemsize
        with _reading(self._directory):
            while len(view):
                count = os.preadv(self._handle, [view], at)
                if not count:
                    raise OSError("it is shorter than it was written")
                view, at = view[count:], at + count
        return found

    def array(self) -> Array:
        """Return all integers as one array, whose pages the system can drop if it lies in a file.

        The list must not be used afterwards.

        Raises:
            InputError: the process may not take so much address space.
        """
        if self._directory is None:
            return self._array[: self._length]
        if not self._length:
            return np.empty(0, self._dtype)
        size = self._length * self._dtype.itemsize
        with _reading(self._directory):
            pages = mmap.mmap(self._handle, size, access=mmap.ACCESS_COPY)
        self._close()
        return np.frombuffer(pages, self._dtype)


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Turn errors of the system within the `with` block into errors that name the directory."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"a file of this run in {directory} cannot be read: {why}") from error
