"""The machine: devices, memory readings, shape checks. Knows nothing of graphs or models."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import resource
import sys
from pathlib import Path

import psutil
import torch
from torch import Tensor

from clinical_drug_discovery.errors import InputError

GIB = 2**30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # their numbers in malloc.h
DEVICES = ("mps", "cuda", "cpu")


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


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Refuse a tensor whose shape is not `shape`; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(
        want in (None, got) for got, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def check_between(
    name: str, value: float, low: float, high: float, *, low_allowed: bool = False
) -> None:
    """Refuse a parameter that is no number above `low` (or equal, if allowed) and up to `high`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    fits = fits and low <= value <= min(high, sys.float_info.max)
    if not fits or (value == low and not low_allowed):
        lowest = f"of at least {low:g}" if low_allowed else f"above {low:g}"
        highest = f" and at most {high:g}" if math.isfinite(high) else ""
        raise InputError(f"{name} (got {value!r}) must be a finite number {lowest}{highest}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse a parameter that is no whole number or below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise InputError(f"{name} (got {value!r}) must be a whole number of at least {least}")
