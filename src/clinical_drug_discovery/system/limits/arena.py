"""Memory for large arrays that are made and deleted again and again, as in each training step.

The system clears new memory when it is first used. With twenty arrays of 100 MiB in a training
step, this took up to a sixth of the step, and several times as long on a virtual machine whose host
takes back freed memory. An arena lends parts of large mappings. Within `Arena.keeping`, it keeps
the memory of deleted arrays for the next ones, whatever their sizes are.

The memory that it holds never exceeds the largest sum that was lent at a time. So the peak memory
of equal steps does not rise; only between them, the process holds more.
"""

from __future__ import annotations

import math
import mmap
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

PAGE = 2 << 20  #: bytes; the unit of an arena, and the size of Linux's huge pages
_MAPPING = 128  # pages of a mapping at least; only pages in use take memory
_NEW, _IDLE, _LENT = 0, 1, 2  # states of a page; a new page takes no memory
Lent = npt.NDArray[np.generic]


class Arena:
    """Lends memory as numpy arrays. It comes back when the array is deleted."""

    def __init__(self) -> None:
        self._mappings: list[_Mapping] = []
        self._lock = threading.Lock()
        self._num_keeping = 0  # blocks of `keeping` that are entered
        self._most = 0  # within these blocks: largest number of pages that were lent at a time
        # The garbage collector may delete an array at any moment, also while its thread holds the
        # lock. So a deleted array only joins this queue.
        self._returned: deque[tuple[_Mapping, slice]] = deque()

    def lend(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Lent:
        """Return an uninitialized array.

        Raises:
            MemoryError: the system has no address space left.
        """
        num_bytes = np.dtype(dtype).itemsize * math.prod(shape)
        with self._lock:
            self._take_back()
            mapping, pages = self._place(-(-num_bytes // PAGE))
            mapping.state[pages] = _LENT
            self._drop_idle()
        self._settle()
        start = pages.start * PAGE
        lent: Lent = mapping.memory[start : start + num_bytes].view(dtype).reshape(shape)
        weakref.finalize(lent, self._give_back, mapping, pages).atexit = False
        return lent

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep the memory of deleted arrays for the next ones until the outermost block ends."""
        with self._lock:
            self._num_keeping += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_keeping -= 1
                is_outermost = not self._num_keeping
            if is_outermost:
                self.release()

    def release(self) -> None:
        """Return all memory that is not lent to the system."""
        with self._lock:
            self._most = 0
            self._drop_idle()
        self._settle()

    def _give_back(self, mapping: _Mapping, pages: slice) -> None:
        self._returned.append((mapping, pages))
        self._settle()

    def _settle(self) -> None:
        """Return the memory of deleted arrays, unless it is kept or the lock is taken.

        Whoever has taken the lock calls this afterwards.
        """
        while self._returned and not self._num_keeping and self._lock.acquire(blocking=False):
            try:
                self._drop_idle()
            finally:
                self._lock.release()

    def _take_back(self) -> None:
        while self._returned:
            mapping, pages = self._returned.popleft()
            mapping.state[pages] = _IDLE

    def _place(self, num_pages: int) -> tuple[_Mapping, slice]:
        """Return pages that are not lent: as few new ones as possible, in as small a gap."""
        places = ((m.place(num_pages), index) for index, m in enumerate(self._mappings))
        found = [(place, index) for place, index in places if place is not None]
        if not found:
            self._mappings.append(_Mapping(max(_MAPPING, num_pages)))
            return self._mappings[-1], slice(0, num_pages)
        (_, _, first), index = min(found)
        return self._mappings[index], slice(first, first + num_pages)

    def _drop_idle(self) -> None:
        """Return idle memory beyond the largest sum that was lent to the system."""
        self._take_back()
        lent, idle = (sum(m.count(state) for m in self._mappings) for state in (_LENT, _IDLE))
        self._most = max(self._most, lent) if self._num_keeping else lent
        excess = lent + idle - self._most
        for mapping in reversed(self._mappings):
            excess -= mapping.drop(excess)
        if not self._num_keeping:
            self._mappings = [m for m in self._mappings if m.count(_LENT)]


class _Mapping:
    """Pages of address space, each new, idle or lent."""

    def __init__(self, num_pages: int) -> None:
        size = (num_pages + 1) * PAGE
        try:
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"the system has no address space of {size:,} bytes left") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):  # only on Linux
            with suppress(OSError):  # a kernel without huge pages
                pages.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(pages, np.uint8)
        self._pages, self._start = pages, -memory.ctypes.data % PAGE  # huge pages are aligned
        self.memory = memory[self._start : self._start + num_pages * PAGE]
        self.state = np.full(num_pages, _NEW, np.uint8)

    def count(self, state: int) -> int:
        """Return the number of pages in a state."""
        return int(np.count_nonzero(self.state == state))

    def place(self, num_pages: int) -> tuple[int, int, int] | None:
        """Return the best place for some pages, or None.

        Returns:
            The number of new pages, the size of the gap between lent pages, and the first page.
            The smallest tuple is the best place.
        """
        lent = np.flatnonzero(np.concatenate([[True], self.state == _LENT, [True]])) - 1
        gap = np.diff(lent) - 1  # pages between two lent ones
        fits = gap >= num_pages
        new = np.concatenate([[0], np.cumsum(self.state == _NEW)])
        best = None
        for before, size in zip(lent[:-1][fits].tolist(), gap[fits].tolist(), strict=True):
            first = np.arange(before + 1, before + 2 + size - num_pages)
            num_new = new[first + num_pages] - new[first]
            at = int(num_new.argmin())
            found = int(num_new[at]), size, int(first[at])
            best = found if best is None else min(best, found)
        return best

    def drop(self, num_pages: int) -> int:
        """Return at most so many idle pages to the system; return their number."""
        idle = np.flatnonzero(self.state == _IDLE)[::-1][: max(num_pages, 0)][::-1]
        for run in np.split(idle, np.flatnonzero(np.diff(idle) > 1) + 1):
            if len(run):
                _release(self._pages, self._start + int(run[0]) * PAGE, len(run) * PAGE)
        self.state[idle] = _NEW
        return len(idle)


def _release(pages: mmap.mmap, start: int, num_bytes: int) -> None:
    """Return pages to the system. On macOS, it takes them when memory becomes scarce."""
    if sys.platform == "linux":
        pages.madvise(mmap.MADV_DONTNEED, start, num_bytes)
    elif hasattr(mmap, "MADV_FREE"):
        pages.madvise(mmap.MADV_FREE, start, num_bytes)
