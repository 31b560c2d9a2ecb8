"""Large buffers, in huge pages where the system has them.

A buffer of 8 MiB and more is given back to the system when it is freed, and the pages of the next
one are cleared one by one as they are first touched: 4 KiB at a time, that was an epoch's every
seventh second. numpy asks Linux for pages of 2 MiB, torch does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.ops.backend import uses_kernels

_LEAST_BYTES = 1 << 22  # from which numpy asks for them
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A buffer with anything in it, on the device of `like` and of its type if no other is said."""
    return _made(np.empty, like.new_empty, like, shape, dtype or like.dtype)


def zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A buffer of zeros, on the device of `like` and of its type if no other is said."""
    return _made(np.zeros, like.new_zeros, like, shape, dtype or like.dtype)


def _made(
    by_numpy: Callable[..., Any],
    by_torch: Callable[..., Tensor],
    like: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    is_large = dtype.itemsize * np.prod(shape, dtype=np.int64) >= _LEAST_BYTES
    if not (is_large and uses_kernels(like.device) and dtype in _NUMPY):
        return by_torch(shape, dtype=dtype)
    return torch.from_numpy(by_numpy(shape, _NUMPY[dtype])).view(dtype)
