"""The number of the processes and their places, as torchrun or another launcher states them.

These are the environment variables of `torch.distributed`, which this file reads without torch.
"""

from __future__ import annotations

import os

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def num_processes() -> int:
    """Return the number of processes that a launcher has started; 1 without a launcher."""
    return _number("WORLD_SIZE", 1) if all(os.environ.get(name) for name in _NEEDED) else 1


def rank() -> int:
    """Return the number of this process, from 0; the first one reads, writes and prints."""
    return _number("RANK", 0) if num_processes() > 1 else 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return _number("LOCAL_RANK", 0) if num_processes() > 1 else 0


def local_size() -> int:
    """Return the number of processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if num_processes() > 1 else 1


def is_restart() -> bool:
    """Return whether torchrun has started all processes again after one has failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def has_store() -> bool:
    """Return whether torchrun keeps the store of the group, so that no process must."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
