"""The machine: devices, memory readings, shape checks. Knows nothing of graphs or models.

What a GPU's allocator may take, and the most that it took.

On Apple silicon the GPU's memory is the machine's; on CUDA it is the card's own. Nothing here
concerns the CPU, whose peak is `runtime.peak_memory_bytes`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import resource
import sys
from pathlib import Path

import psutil
import torch

from clinical_drug_discovery.system.errors import InputError

GIB = 2**30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # their numbers in malloc.h
DEVICES = ("mps", "cuda", "cpu")
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_FREE_SHARE = 0.7  # of what is free, when no budget is named: the user's other programs live too


def resolve_device(device: str | None) -> torch.device:
    """The device to run on: the one that is named, or the best that is there.

    Args:
        device: "mps", "cuda" or "cpu"; None takes the first of these that is available.

    Raises:
        InputError: the named device is not available, or would not be used for everything.
    """
    available = available_devices()
    if device is None:
        device = available[0]
    check_device_name(device)
    if device not in available:
        raise InputError(
            f"device (got {device!r}) is not available here: {_why_missing(device)}; "
            f"available: {', '.join(available)}"
        )
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    if device == "mps" and fallback not in ("", "0"):
        raise InputError(
            f"device 'mps' refuses to run while PYTORCH_ENABLE_MPS_FALLBACK is set "
            f"(got {fallback!r}): operations could move to the CPU without a word; unset it"
        )
    return torch.device(device)


def check_device_name(device: str) -> None:
    """Refuse what is the name of no device, be it here or not."""
    if device not in DEVICES:
        raise InputError(f"device (got {device!r}) must be one of {', '.join(DEVICES)} or left out")


def available_devices() -> list[str]:
    """The devices that work here, best first; "cpu" is always the last."""
    found = {
        # Before macOS 15, MPS may lose what is written to a view of a tensor.
        "mps": torch.backends.mps.is_available() and torch.backends.mps.is_macos_or_newer(15, 0),
        "cuda": torch.cuda.is_available(),
        "cpu": True,
    }
    return [name for name in DEVICES if found[name]]


def _why_missing(device: str) -> str:
    if device == "cuda":
        built = torch.backends.cuda.is_built()
        return "no NVIDIA GPU or driver was found" if built else "this torch is built without CUDA"
    if sys.platform != "darwin":
        return "it needs Metal, which only a Mac has"
    if not torch.backends.mps.is_built():
        return "this torch is built without MPS"
    if not torch.backends.mps.is_macos_or_newer(15, 0):
        return f"macOS 15 or newer is needed, this is {platform.mac_ver()[0]}"
    return "no GPU that Metal can use was found"


def return_large_buffers() -> None:
    """Have the C heap give buffers of 8 MiB and more back at once, and keep the smaller ones.

    glibc on its own keeps what is freed up to 32 MiB, which made the peak of HGT on PrimeKG 0.1 GiB
    higher and let it creep up. Memory that is given back and taken again has to be cleared by the
    system each time, so chunks of rows stay. Concerns the whole process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # not in every C library
        mallopt(_MMAP_THRESHOLD, 8 * 2**20 + 4096)
        mallopt(_TRIM_THRESHOLD, 64 * 2**20)


def empty_cache(device: torch.device) -> None:
    """Give freed memory back to the system: what the device's allocator keeps, and the C heap.

    glibc keeps what is freed in small pieces; over 100 epochs on PrimeKG that grew by 0.4 GB.
    """
    if device.type != "cpu":
        gc.collect()
        torch.accelerator.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)


def peak_memory_bytes() -> int:
    """Highest resident size of this process so far, interpreter and libraries included."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a child process inherits its parent's figure.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes() -> int:
    """Memory that a program could still take: what is free, or what a container's limit leaves."""
    available: int = psutil.virtual_memory().available
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, max(0, int(text) - int(used.read_text())))
    return available


def limit_memory(device: torch.device, budget: int) -> None:
    """Have the allocator of a GPU refuse what goes beyond a budget, with an error of its own.

    Args:
        device: nothing happens on the CPU, which has no such limit.
        budget: bytes.
    """
    if device.type == "mps":  # a share of what Metal recommends, which may be exceeded up to twice
        share = budget / torch.mps.recommended_max_memory()
        torch.mps.set_per_process_memory_fraction(min(2.0, share))
    elif device.type == "cuda":
        share = budget / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


class PeakMemory:
    """The most that the allocator of a device held since this was made."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._highest = device, 0
        self.source = "none"  #: "reported" by torch, or the highest of the "samples" taken
        if device.type == "cpu":
            return
        try:
            torch.accelerator.reset_peak_memory_stats(device)
            self.source = "reported"
        except (AttributeError, NotImplementedError, RuntimeError):  # MPS before torch 2.13
            self.source = "samples"

    def sample(self) -> None:
        """Look at what is held now; needed where nothing is reported."""
        if self.source == "samples" and self._device.type == "mps":
            self._highest = max(self._highest, torch.mps.current_allocated_memory())

    def num_bytes(self) -> int | None:
        """The peak; of samples it is a lower bound. None on the CPU."""
        if self.source == "none":
            return None
        if self.source == "reported":
            return int(torch.accelerator.max_memory_allocated(self._device))
        return self._highest


def parse_memory(budget: str | int | None) -> int:
    """A memory budget in bytes.

    Args:
        budget: a number of bytes, text such as "4GiB" or "5.33 GB", or None for 70% of what is
        free.

    Raises:
        InputError: it is no amount of memory.
    """
    if budget is None:
        return int(available_memory_bytes() * _FREE_SHARE)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(budget))
    if match is None or match[2].upper() not in _UNITS or not 0 < float(match[1]) < 1e30:
        raise InputError(
            f"memory_budget (got {budget!r}) must be a positive number of bytes, "
            "or text such as '4GiB'"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])
