"""The device to compute on: an NVIDIA GPU ("cuda"), the GPU of a Mac ("mps") or the CPU.

Devices that passed `cdd doctor --try` are recorded in a JSON file in the user's cache directory. A
trial counts as long as the device and the versions of macOS, torch and this package stay the same.

Importing torch takes a second, so functions import it only when they need it.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import platformdirs

from .errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("cuda", "mps", "cpu")  #: best first


class DeviceChoice(NamedTuple):
    """The device of a run, and why it was chosen."""

    device: torch.device
    reason: str


def choose_device(device: str | None) -> DeviceChoice:
    """Choose the device to run on.

    Args:
        device: "cuda", "mps" or "cpu". None takes the first that is available, but mps only if
            `cdd doctor --try mps` has passed on this machine.

    Raises:
        InputError: see `check_device`.
    """
    device, reason = (device, "as asked") if device is not None else _best_device()
    check_device(device)
    import torch

    return DeviceChoice(torch.device(device), reason)


def _best_device() -> tuple[str, str]:
    best = available_devices()[0]
    if best != "mps":
        return best, "no GPU was found" if best == "cpu" else "a GPU was found"
    if has_passed_trial("mps"):
        return "mps", "a GPU was found, and it passed `cdd doctor --try mps`"
    return "cpu", "the GPU (mps) becomes the default once `cdd doctor --try mps` has passed here"


def check_device(device: str) -> None:
    """Check that a device is known and available, and that it runs all operations itself."""
    check_device_name(device)
    if why := _why_missing(device):
        raise InputError(
            f"device (got {device!r}) is not available here: {why}; "
            f"available: {', '.join(available_devices())}"
        )
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    if device == "mps" and fallback not in ("", "0"):
        raise InputError(
            f"device 'mps' does not run while PYTORCH_ENABLE_MPS_FALLBACK is set (got "
            f"{fallback!r}): PyTorch could move operations to the CPU silently; unset it"
        )


def check_device_name(device: str) -> None:
    """Check the name of a device; the device itself need not be available."""
    if device not in DEVICES:
        raise InputError(f"device (got {device!r}) must be one of {', '.join(DEVICES)} or left out")


def available_devices() -> list[str]:
    """Return the devices that work here, best first."""
    return [name for name in DEVICES if _why_missing(name) is None]


def _why_missing(device: str) -> str | None:
    if device == "cpu":
        return None
    if device == "mps" and sys.platform != "darwin":
        return "it needs Metal, which only a Mac has"
    if device == "cuda" and not _has_cuda_driver():
        return "no NVIDIA GPU or driver was found"
    import torch

    if device == "cuda":
        if not torch.backends.cuda.is_built():
            return "this torch is built without CUDA"
        return None if torch.cuda.is_available() else "no NVIDIA GPU or driver was found"
    if not torch.backends.mps.is_built():
        return "this torch is built without MPS"
    # Before macOS 15, MPS may lose values that are written to a view of a tensor.
    if not torch.backends.mps.is_macos_or_newer(15, 0):
        return f"macOS 15 or newer is needed, this is {platform.mac_ver()[0]}"
    return None if torch.backends.mps.is_available() else "no GPU that Metal can use was found"


def _has_cuda_driver() -> bool:
    """Return whether the driver that torch.cuda would load exists, without importing torch."""
    if Path("/dev/kfd").exists():  # an AMD GPU, which PyTorch for ROCm calls "cuda"
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def trials_file() -> Path:
    """Return the path of the record of passed trials."""
    directory = platformdirs.user_state_path("clinical-drug-discovery", appauthor=False)
    return directory / "tried_devices.json"


def device_name(device: str) -> str:
    """Return the name of the hardware, such as "Apple M2"; the device must be available here."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps" and hasattr(torch.backends.mps, "get_name"):  # torch 2.9 and newer
        return str(torch.backends.mps.get_name())
    return platform.processor() or platform.machine()


def record_passed_trial(device: str) -> Path:
    """Record that a device passed the trial, and return the path of the record."""
    from .files import save_record

    path = trials_file()
    save_record(path, _read(path) | {device: _conditions(device)})
    return path


def has_passed_trial(device: str) -> bool:
    """Return whether a device passed the trial here with the same versions; see `_conditions`."""
    return _read(trials_file()).get(device) == _conditions(device)


def _conditions(device: str) -> dict[str, str]:
    from importlib.metadata import version

    import torch

    return {
        "device_name": device_name(device),
        "macos": platform.mac_ver()[0],
        "torch": torch.__version__,
        "clinical_drug_discovery": version("clinical-drug-discovery"),
    }


def _read(path: Path) -> dict[str, object]:
    """Return the record of trials. An unreadable record counts as empty; trials can be repeated."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
