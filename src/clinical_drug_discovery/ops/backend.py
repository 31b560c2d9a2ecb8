"""Which of its two versions an operation takes: the kernels, or plain torch, and how precise that.

The one place where that is decided. Other devices than the CPU have no kernels, and bfloat16 only
`in_bfloat16`; on the CPU `device_path` takes the same path as they do, so that it can be tested,
audited and measured without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from clinical_drug_discovery.graph.chunks import row_chunks, window_rows


@dataclass(frozen=True)
class _Choice:
    """What a thread has chosen."""

    plain: bool = False  #: plain torch on the CPU as well
    bfloat16: bool = False  #: where torch is plain


_USUAL = _Choice()
_CHOICE = ContextVar("choice", default=_USUAL)
AnyFunction = TypeVar("AnyFunction", bound=type[torch.autograd.Function])


def uses_kernels(device: torch.device) -> bool:
    """Whether the compiled kernels, and what is stored and multiplied for them, are used."""
    return device.type == "cpu" and not _CHOICE.get().plain


def uses_bfloat16(device: torch.device) -> bool:
    """Whether plain torch stores rows for gathering, and multiplies matrices, in bfloat16."""
    return _CHOICE.get().bfloat16 and not uses_kernels(device)


@contextmanager
def device_path() -> Iterator[None]:
    """Within it the CPU runs the operations of other devices, in their precision and chunks.

    Concerns the calling thread, and the backward passes of what was computed in it.
    """
    with _chosen(replace(_CHOICE.get(), plain=True)):
        yield


@contextmanager
def in_bfloat16(wanted: bool) -> Iterator[None]:
    """Within it `uses_bfloat16`, if that is wanted; concerns what `device_path` does."""
    with _chosen(replace(_CHOICE.get(), bfloat16=wanted)):
        yield


def choosing_once(function: AnyFunction) -> AnyFunction:
    """Have the backward pass of an autograd function choose as its forward pass did.

    Autograd runs the backward pass of tensors on CUDA in a thread of its own, which sees no context
    variable of the thread that asks for it: rows stored in bfloat16 would meet weights in float32.
    So what the forward pass has chosen is kept beside what it keeps, and chosen again around the
    backward pass, whatever thread that runs in. What torch differentiates itself needs none of it:
    its gradients have the types of what was computed.
    """
    forward, backward = function.forward, function.backward

    @wraps(forward)
    def keeping(ctx: Any, *given: Any) -> Any:
        ctx.choice = _CHOICE.get()
        return forward(ctx, *given)

    @wraps(backward)
    def following(ctx: Any, *grads: Any) -> Any:
        with _chosen(ctx.choice):
            return backward(ctx, *grads)

    function.forward = staticmethod(keeping)  # type: ignore[method-assign]  # for this class only
    function.backward = staticmethod(following)  # type: ignore[method-assign]  # likewise
    return function


@contextmanager
def _chosen(choice: _Choice) -> Iterator[None]:
    token = _CHOICE.set(choice)
    try:
        yield
    finally:
        _CHOICE.reset(token)


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
