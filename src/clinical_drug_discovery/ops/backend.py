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
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.chunks import MOST_ROWS, filled_chunks, row_chunks

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


def chunks_of(x: Tensor, start: int, stop: int) -> Iterator[slice]:
    """Cut rows start:stop of x into chunks that fit the cache: see `chunks`."""
    if uses_kernels(x.device):
        yield from row_chunks(start, stop)
        return
    for first, size in filled_chunks(start, stop, MOST_ROWS):
        yield slice(first, min(first + size, stop))


def filled(x: Tensor, rows: slice) -> Tensor:
    """Some rows of x, and on GPUs rows of zeros up to one of four sizes.

    There a product of matrices of another shape costs another kernel.
    """
    part, count = x[rows], rows.stop - rows.start
    if uses_kernels(x.device):
        return part
    more = next(filled_chunks(0, count, MOST_ROWS), (0, 0))[1] - count
    return functional.pad(part, (0, 0, 0, more)) if more > 0 else part
