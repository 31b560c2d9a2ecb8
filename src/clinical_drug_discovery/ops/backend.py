"""Which of its two versions an operation takes: the kernels, or plain torch.

The one place where that is decided. Other devices than the CPU have no kernels and no bfloat16; on
the CPU `device_path` takes the same path as they do, so that it can be tested, audited and measured
without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_PLAIN = ContextVar("plain", default=False)


def uses_kernels(device: torch.device) -> bool:
    """Whether the compiled kernels, and what is stored and multiplied for them, are used."""
    return device.type == "cpu" and not _PLAIN.get()


@contextmanager
def device_path() -> Iterator[None]:
    """Within it the CPU runs the operations of other devices, in their precision and chunks.

    Concerns the calling thread; the backward pass of tensors on the CPU runs in it as well.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
