"""What this machine offers: versions, devices, memory, threads."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import psutil
import torch

from clinical_drug_discovery.runtime import GIB, available_devices

_PACKAGES = ("clinical-drug-discovery", "torch", "numpy", "numba", "polars", "safetensors")


def describe_machine() -> dict[str, Any]:
    """Describe what a run would find here; reads, changes nothing.

    Returns:
        Versions, devices (the first is the default), memory in GiB and numbers of threads.
    """
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _PACKAGES},
        "devices": available_devices(),
        "memory_total_gib": round(memory.total / GIB, 2),
        "memory_available_gib": round(memory.available / GIB, 2),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }
