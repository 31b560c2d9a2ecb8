"""Memory of the process and the GPU (peak, limit), and small work on one thread.

On Apple silicon the GPU uses the main memory of the machine. A CUDA card has separate memory.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GIB = 2**30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt, from malloc.h


def return_large_buffers() -> None:
    """Make the C heap return freed buffers of 8 MiB and more to the system, and keep smaller ones.

    By default glibc keeps freed buffers of up to 32 MiB. That raised the peak memory of HGT on
    PrimeKG by 0.1 GiB, and the peak grew over time. Buffers below 8 MiB are kept, because the
    system clears memory before it returns it to a process. The setting affects the whole process.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # only in glibc
        libc.mallopt(_MMAP_THRESHOLD, 8 * 2**20 + 4096)
        libc.mallopt(_TRIM_THRESHOLD, 64 * 2**20)


def empty_cache(device: torch.device) -> None:
    """Return freed memory of the device's allocator and of the C heap to the system.

    Otherwise glibc keeps small freed blocks, which took 0.4 GB after 100 epochs on PrimeKG.
    """
    if device.type != "cpu":
        import torch

        gc.collect()
        torch.accelerator.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Return freed memory of the C heap to the system."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Run torch, if it is imported, and the BLAS libraries on one thread within the block.

    Small work has thousands of short parallel regions. At the end of each region, all threads wait
    for the slowest thread. If another program is busy, the work takes many times as long. Compiled
    kernels ignore this setting, but small graphs do not use them.
    """
    if not wanted:
        yield
        return
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    if torch is None:  # numpy alone computes the answers of a saved model
        with threadpool_limits(1):
            yield
        return
    # threadpool_limits affects only libraries that are already loaded, so scipy's BLAS is loaded
    # first.
    import scipy.linalg  # noqa: F401

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def peak_memory_bytes() -> int:
    """Return the peak resident size of this process, interpreter and libraries included."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would be wrong: on Linux a child process inherits the peak of its parent.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes() -> int:
    """Return the resident bytes of this process, without the pages that it has freed.

    Allocators free pages with MADV_FREE. Such pages stay resident until the system needs them or
    the allocator returns them: 0.25 to 0.55 GiB for a second after PrimeKG's table is read. Only
    Linux tells them apart; elsewhere all resident bytes count.
    """
    import psutil  # a question to a model reads this file, and needs no psutil

    return int(psutil.Process().memory_info().rss) - _freed_bytes()


def anonymous_bytes() -> int:
    """Return the bytes that this process holds and no file has, which the system cannot drop.

    Only Linux tells them apart; elsewhere all resident bytes count.
    """
    import psutil

    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0)) - _freed_bytes()


def _freed_bytes() -> int:
    """Return the resident bytes that this process has freed with MADV_FREE."""
    with suppress(OSError):  # the file may be missing, or not readable in a container
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("LazyFree:"):
                return int(line.split()[1]) * 1024
    return 0


def limit_memory(device: torch.device, budget: int) -> None:
    """Make torch raise an out-of-memory error if a GPU needs more bytes than the budget."""
    import torch

    if device.type == "mps":  # torch expects a fraction of Metal's recommendation, at most 2
        fraction = budget / torch.mps.recommended_max_memory()
        torch.mps.set_per_process_memory_fraction(min(2.0, fraction))
    elif device.type == "cuda":
        fraction = budget / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), device)


class PeakMemory:
    """The peak memory of a GPU's allocator since this object was made."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._highest = device, 0
        self.source = "none"  #: "reported" (by torch), "samples" (their maximum), "none" (on CPUs)
        if device.type == "cpu":
            return
        import torch

        try:
            torch.accelerator.reset_peak_memory_stats(device)
            self.source = "reported"
        except (AttributeError, NotImplementedError, RuntimeError):  # MPS before torch 2.13
            self.source = "samples"

    def sample(self) -> None:
        """Sample the memory in use, if torch does not report the peak."""
        if self.source == "samples" and self._device.type == "mps":
            import torch

            self._highest = max(self._highest, torch.mps.current_allocated_memory())

    def num_bytes(self) -> int | None:
        """Return the peak in bytes (a lower bound if sampled), or None on the CPU."""
        if self.source == "none":
            return None
        import torch

        if self.source == "reported":
            return int(torch.accelerator.max_memory_allocated(self._device))
        return self._highest
