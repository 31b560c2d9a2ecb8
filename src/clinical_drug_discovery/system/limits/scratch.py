"""Large arrays in files of a scratch directory, which are mapped into memory.

The system writes pages of such a file to the disk when memory becomes scarce, and reads them when
they are needed again. So an array may be larger than the memory, and it takes memory only as long
as nothing else needs it.

A file loses its name as soon as it is open. The system frees its space when the array is deleted or
the process ends, even by a kill: a dead run leaves nothing behind.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from .. import disk
from ..files import check_writable, writing

_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = ("tmpfs", "ramfs")  # file systems whose files take memory


class Scratch:
    """Makes arrays in files of one directory."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if it is missing.

        Raises:
            WriteError: the directory cannot be made.
        """
        self._directory = directory
        self._pages: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
        with writing(directory):
            disk.make_directory(directory)

    def array(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """Return zeros in a new file, whose space is reserved on the disk.

        Without the reservation, a full disk would kill the process when a page is written.

        Raises:
            WriteError: the disk is full, or the directory cannot be written to.
        """
        with writing(self._directory):
            handle = disk.reserve(self._directory, num_bytes)
            try:
                pages = mmap.mmap(handle, num_bytes)
            finally:
                os.close(handle)
        array = np.frombuffer(pages, np.uint8)
        self._pages[array.ctypes.data] = pages
        return array

    def expect(self, addresses: Sequence[int], *, any_order: bool) -> None:
        """Tell the system in which order the arrays at these addresses are read next.

        In any order, it reads single pages. Otherwise it also reads pages around each of them, by
        default 128 KiB on Linux, of which a few rows of a large table need little.
        """
        option = mmap.MADV_RANDOM if any_order else mmap.MADV_NORMAL
        for address in addresses:
            pages = self._pages.get(address)
            if pages is not None:
                pages.madvise(option)

    def read_ahead(self, address: int, starts: npt.NDArray[np.int64], num_bytes: int) -> None:
        """Let the system begin to read parts of an array, without waiting for them.

        Args:
            address: of the array; one that does not lie in a file here is left alone.
            starts: shape (n,), where each part starts, in bytes, ascending.
            num_bytes: of each part.
        """
        pages = self._pages.get(address)
        if pages is None or not len(starts):
            return
        first, last = starts // mmap.PAGESIZE, (starts + num_bytes - 1) // mmap.PAGESIZE
        is_apart = first[1:] > last[:-1] + 1
        begins = first[np.r_[True, is_apart]] * mmap.PAGESIZE
        ends = np.minimum((last[np.r_[is_apart, True]] + 1) * mmap.PAGESIZE, len(pages))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            pages.madvise(mmap.MADV_WILLNEED, begin, end - begin)


def check_scratch(directory: Path) -> str | None:
    """Check that a scratch directory is writable; return a warning if its files take memory.

    Raises:
        InputError: it is not writable, or cannot be made.
    """
    check_writable("scratch_dir", directory)
    place = next(
        path for path in (directory.absolute(), *directory.absolute().parents) if path.exists()
    )
    kind = _file_system(place)
    if kind not in _IN_MEMORY:
        return None
    return f"scratch_dir (got {directory}) lies in memory ({kind}), so its files do not save any"


def _file_system(place: Path) -> str:
    """Return the type of the file system of an existing path, such as ext4; "" if unknown."""
    device = place.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [number]:
            return after.split(" ")[0]
    return ""
