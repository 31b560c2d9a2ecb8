"""Which of its two versions an operation takes: the kernels, or plain torch.

The one place where that is decided. Other devices than the CPU have no kernels and no bfloat16; on
the CPU `device_path` takes the same path as they do, so that it can be tested, audited and measured
without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from clinical_drug_discovery.chunks import row_chunks, window_rows

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


@dataclass(frozen=True)
class Window:
    """Some rows, and which of them are not meant: what is computed of these is dropped."""

    rows: slice
    outside: Tensor | None = None  #: shape (S, 1), bool; None: all rows are meant

    def only(self, values: Tensor, other: float = 0.0) -> Tensor:
        """Values of the rows, shape (S, C), with another number in the rows not meant."""
        return values if self.outside is None else values.masked_fill(self.outside, other)

    def put(self, target: Tensor, values: Tensor) -> None:
        """Write the values of the rows that are meant to their place in target."""
        if self.outside is not None:
            values = torch.where(self.outside, target[self.rows], values)
        target[self.rows] = values


def chunks_of(x: Tensor, start: int, stop: int) -> Iterator[slice]:
    """Cut rows start:stop of x into chunks that fit the cache: see `chunks`.

    On GPUs, which prepare an operation for each shape, all have one size: the last one may go
    beyond these rows, or stand in part where the one before it does. See `windows`.
    """
    if uses_kernels(x.device):
        yield from row_chunks(start, stop)
        return
    size = window_rows(len(x))
    for first in range(start, stop, size or 1):
        first = min(first, len(x) - size)
        yield slice(first, first + size)


def windows(x: Tensor, start: int, stop: int) -> Iterator[Window]:
    """`chunks_of`, with what of each is no row of start:stop or was in the one before it."""
    for rows in chunks_of(x, start, stop):
        last = min(rows.stop, stop)
        first, start = start, last
        if rows == slice(first, last):
            yield Window(rows)
            continue
        place = torch.arange(rows.start, rows.stop, device=x.device)[:, None]
        outside = place >= last
        if first > rows.start:
            outside = outside.logical_or_(place < first)
        yield Window(rows, outside)
