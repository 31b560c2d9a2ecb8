"""The record of devices that passed `cdd doctor --try` on this machine.

It is one JSON file in the user's cache directory. A trial counts as long as the device
and the versions of macOS, torch and this package stay the same.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from clinical_drug_discovery.system.files import save_record


def trials_file() -> Path:
    """Return the path of the record, in XDG_CACHE_HOME, ~/Library/Caches (macOS) or ~/.cache."""
    default = "Library/Caches" if sys.platform == "darwin" else ".cache"
    directory = os.environ.get("XDG_CACHE_HOME") or Path.home() / default
    return Path(directory) / "clinical-drug-discovery" / "tried_devices.json"


def device_name(device: str) -> str:
    """Return the name that the hardware gives itself, such as "Apple M2".

    Args:
        device: "cuda", "mps" or "cpu", available here.
    """
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps" and hasattr(torch.backends.mps, "get_name"):  # torch 2.9 and newer
        return str(torch.backends.mps.get_name())
    return platform.processor() or platform.machine()


def record_passed_trial(device: str) -> Path:
    """Note that a device passed its trial, and return the file.

    Raises:
        OSError: the file cannot be written.
    """
    path = trials_file()
    save_record(path, _read(path) | {device: _conditions(device)})
    return path


def has_passed_trial(device: str) -> bool:
    """Return whether a device passed its trial here, under the conditions of today."""
    return _read(trials_file()).get(device) == _conditions(device)


def _conditions(device: str) -> dict[str, str]:
    import torch

    return {
        "device_name": device_name(device),
        "macos": platform.mac_ver()[0],
        "torch": torch.__version__,
        "clinical_drug_discovery": version("clinical-drug-discovery"),
    }


def _read(path: Path) -> dict[str, object]:
    """Return the record; an unreadable one counts as empty, since a trial is easily repeated."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
