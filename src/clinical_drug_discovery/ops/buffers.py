"""Large buffers, whose memory is used again (`system.limits.arena`).

Within `large_in_files`, buffers of at least 64 MiB lie in files of a scratch directory instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..system.limits.arena import Arena
from ..system.limits.scratch import Scratch

_LEAST_BYTES = 8 << 20  # bytes; torch allocates smaller buffers, and the C heap reuses them
#: Least size of a buffer in a file. Buffers of a subgraph of the default size stay below.
LEAST_IN_FILES = 64 << 20
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialized buffer.

    Args:
        like: has the device of the buffer, and the dtype if `dtype` is None.
        shape: of the buffer.
        dtype: of the buffer.
    """
    dtype = dtype or like.dtype
    num_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if _is_in_file(like, num_bytes, dtype):
        pages = _FILES[-1].array(num_bytes).view(_NUMPY[dtype])
        return torch.from_numpy(pages.reshape(shape)).view(dtype)
    if num_bytes < _LEAST_BYTES or like.device.type != "cpu" or dtype not in _NUMPY:
        return like.new_empty(shape, dtype=dtype)
    return torch.from_numpy(_ARENA.lend(shape, _NUMPY[dtype])).view(dtype)


def zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return a buffer of zeros; the arguments are those of `empty`."""
    buffer = empty(like, *shape, dtype=dtype)
    # A new file is all zeros; to clear it would write it to the disk.
    return buffer if _is_in_file(like, buffer.nbytes, buffer.dtype) else buffer.zero_()


@contextmanager
def large_in_files(directory: Path | None) -> Iterator[None]:
    """Put the large buffers that are made within the block into files of a directory.

    Args:
        directory: see `system.limits.scratch`; None: all buffers stay in memory.
    """
    if directory is None:
        yield
        return
    _FILES.append(Scratch(directory))
    try:
        yield
    finally:
        _FILES.pop()


@contextmanager
def rows_in_any_order(*buffers: Tensor) -> Iterator[None]:
    """Let the block read single pages of the buffers that lie in files, without those around."""
    addresses = [buffer.data_ptr() for buffer in buffers]
    for files in _FILES:
        files.expect(addresses, any_order=True)
    try:
        yield
    finally:
        for files in _FILES:
            files.expect(addresses, any_order=False)


def read_ahead(buffer: Tensor, rows: Tensor) -> None:
    """Let the system read rows of a buffer that lies in a file, many at a time.

    Otherwise it reads a page when it is first used, and waits for the disk each time: on a disk
    that reads 35,000 pages per second, it then read 10,000.

    Args:
        buffer: shape (N, C); the columns between two rows are read, too, if it is a view.
        rows: shape (n,), int64, ascending.
    """
    width = buffer.stride(0) * buffer.itemsize
    for files in _FILES:
        files.read_ahead(buffer.data_ptr(), rows.numpy() * width, width)


def lies_in_file(buffer: Tensor) -> bool:
    """Return whether a buffer that `empty` made within the same block lies in a file."""
    return _is_in_file(buffer, buffer.nbytes, buffer.dtype)


def _is_in_file(like: Tensor, num_bytes: int, dtype: torch.dtype) -> bool:
    """Return whether `empty` puts a buffer into a file."""
    can_be = like.device.type == "cpu" and dtype in _NUMPY
    return can_be and bool(_FILES) and num_bytes >= LEAST_IN_FILES


def used_again() -> AbstractContextManager[None]:
    """Keep the memory of deleted buffers for the next ones until the outermost block ends."""
    return _ARENA.keeping()


def release_buffers() -> None:
    """Return the memory of deleted buffers to the system."""
    _ARENA.release()


_ARENA = Arena()
_FILES: list[Scratch] = []  # of the blocks of `large_in_files`, the innermost last


def _cut(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return consecutive views of `values`, with the shapes of the tensors in `like`.

    Args:
        values: one-dimensional, with at least as many numbers as all these tensors together.
        like: any tensors.
    """
    sizes = [tensor.numel() for tensor in like]
    parts = values[: sum(sizes)].split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def zeros_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return zeros with the shapes of `tensors`, which must share a dtype and a device.

    The results are views of one array, so one operation clears them all.
    """
    count = sum(tensor.numel() for tensor in tensors)
    first = tensors[0]
    return _cut(torch.zeros(count, dtype=first.dtype, device=first.device), tensors)
