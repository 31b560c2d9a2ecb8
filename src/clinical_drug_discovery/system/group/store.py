"""The store of torchrun, in which the processes of a group leave texts for each other."""

from __future__ import annotations

import os
from datetime import timedelta
from importlib import import_module
from typing import Any

_CONNECT = timedelta(minutes=1)  # the longest wait for torchrun


def open_store(name: str) -> Any:
    """Connect to the store, and return the part of it that has this name.

    After a restart it is another part. Otherwise the processes would find the addresses of those
    that have ended.

    Raises:
        RuntimeError: torchrun cannot be reached.
    """
    dist: Any = import_module("torch.distributed")  # takes a second, in a run that has failed early
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=_CONNECT)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"{name}/{attempt}", store)
