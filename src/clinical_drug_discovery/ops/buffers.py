"""Large buffers, in huge pages, some of them kept for the next ones of their size.

The pages of a buffer that the system gives are cleared one by one as they are first touched. For
buffers of a hundred MiB, twenty an epoch, that took as long as a sixth of the epoch, and several
times that on a virtual machine whose host takes back what is freed. So they are made in huge pages,
which numpy asks Linux for and torch does not, and those of up to 64 MiB go from one tensor to the
next. What is kept gives way to whatever of another size is asked for.

Several tensors in one array, so that they are cleared or changed by one operation.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LEAST_BYTES = 8 << 20  # below this the C heap keeps them
_STEP = 2 << 20  # sizes are multiples of it: the rows of batches differ by less
_MOST_SPARE = 1.125  # of the bytes that are asked for, in a buffer that is used again
#: That are kept for later. Three times as many made the peak 3% higher, and no epoch shorter.
MOST_IDLE_BYTES = 64 << 20
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
Block = npt.NDArray[np.uint8]
Lent = npt.NDArray[np.generic]


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A buffer with anything in it, on the device of `like` and of its type if no other is said."""
    dtype = dtype or like.dtype
    num_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if num_bytes < _LEAST_BYTES or like.device.type != "cpu" or dtype not in _NUMPY:
        return like.new_empty(shape, dtype=dtype)
    return torch.from_numpy(_POOL.lend(num_bytes, shape, _NUMPY[dtype])).view(dtype)


def zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A buffer of zeros, on the device of `like` and of its type if no other is said."""
    return empty(like, *shape, dtype=dtype).zero_()


def release_buffers() -> None:
    """Give back to the system what is kept and not in use."""
    _POOL.release()


class _Pool:
    """Blocks of memory, lent as arrays that come back once nothing refers to them."""

    def __init__(self) -> None:
        self._free: list[Block] = []  # in the order in which they came back
        self._lock = threading.RLock()  # of its thread: a block may come back at any time

    def lend(self, num_bytes: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Lent:
        with self._lock:
            block = self._kept(num_bytes)
        lent: Lent = block[:num_bytes].view(dtype).reshape(shape)
        weakref.finalize(lent, self._give_back, block).atexit = False
        return lent

    def release(self) -> None:
        with self._lock:
            self._free.clear()

    def _kept(self, num_bytes: int) -> Block:
        fitting = [b for b in self._free if num_bytes <= b.nbytes <= _MOST_SPARE * num_bytes]
        if fitting:
            best = min(fitting, key=len)
            self._free = [block for block in self._free if block is not best]
            return best
        size = -(-num_bytes // _STEP) * _STEP
        given_back = 0
        while self._free and given_back < size:
            given_back += len(self._free.pop(0))
        return np.empty(size, np.uint8)

    def _give_back(self, block: Block) -> None:
        if block.nbytes > MOST_IDLE_BYTES:
            return
        with self._lock:
            self._free.append(block)
            while self._free and sum(map(len, self._free)) > MOST_IDLE_BYTES:
                del self._free[0]


_POOL = _Pool()


def cut(values: Tensor, alike: Sequence[Tensor]) -> list[Tensor]:
    """The parts of an array, as views of the shapes of some tensors, in their order.

    Args:
        values: shape (at least as many numbers as the tensors have,).
        alike: any tensors.
    """
    sizes = [tensor.numel() for tensor in alike]
    parts = values[: sum(sizes)].split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, alike, strict=True)]


def zeros_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Zeros of the shapes of some tensors of one type and device."""
    count = sum(tensor.numel() for tensor in tensors)
    first = tensors[0]
    return cut(torch.zeros(count, dtype=first.dtype, device=first.device), tensors)
