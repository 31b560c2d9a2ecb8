"""Large buffers in huge pages, some of them kept and reused.

The system clears each page of a new buffer when it is first touched. For twenty buffers of a
hundred MiB in an epoch that took a sixth of the epoch, and several times as long on a virtual
machine whose host takes freed memory back. So buffers are allocated in huge pages, which numpy asks
Linux for and torch does not, and those of up to 64 MiB are kept for later tensors. A request for
another size frees kept buffers first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LEAST_BYTES = 8 << 20  # the C heap keeps smaller buffers
_STEP = 2 << 20  # sizes are multiples of it: the rows of batches differ by less
_MOST_SPARE = 1.125  # a reused buffer may be larger than the request by this factor
#: Bytes that are kept for later. Three times as many raised the peak by 3%, and saved no time.
MOST_IDLE_BYTES = 64 << 20
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
Block = npt.NDArray[np.uint8]
Lent = npt.NDArray[np.generic]


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialized buffer.

    Args:
        like: has the device, and the dtype if no other is given.
        shape: of the buffer.
        dtype: of the buffer.
    """
    dtype = dtype or like.dtype
    num_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if num_bytes < _LEAST_BYTES or like.device.type != "cpu" or dtype not in _NUMPY:
        return like.new_empty(shape, dtype=dtype)
    return torch.from_numpy(_POOL.lend(num_bytes, shape, _NUMPY[dtype])).view(dtype)


def zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return a buffer of zeros; the arguments are those of `empty`."""
    return empty(like, *shape, dtype=dtype).zero_()


def release_buffers() -> None:
    """Return the kept buffers to the system."""
    _POOL.release()


class _Pool:
    """Blocks of memory, lent as arrays that return once nothing refers to them."""

    def __init__(self) -> None:
        self._free: list[Block] = []  # in the order of their return
        self._lock = threading.RLock()  # reentrant: a block may return at any time

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


def _cut(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut an array into views with the shapes of some tensors.

    Args:
        values: one dimension, with at least as many numbers as the tensors have.
        like: any tensors.
    """
    sizes = [tensor.numel() for tensor in like]
    parts = values[: sum(sizes)].split(sizes)
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def zeros_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return zeros with the shapes of some tensors, which share a dtype and a device.

    They are views of one array, cleared by one operation.
    """
    count = sum(tensor.numel() for tensor in tensors)
    first = tensors[0]
    return _cut(torch.zeros(count, dtype=first.dtype, device=first.device), tensors)
