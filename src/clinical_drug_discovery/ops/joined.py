"""Several tensors in one array, so that they are cleared or changed by one operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
