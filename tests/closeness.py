"""The distance of two results, relative to the largest number and not to each."""

from __future__ import annotations

from torch import Tensor

#: Half a last place of bfloat16 is 2**-9 of a number. A result has several such errors behind it:
#: of stored rows, of both factors of a product and of the product.
BFLOAT16 = 2**-7


def off_in_all(value: Tensor, wanted: Tensor) -> float:
    """The length of the difference, relative to that of what is wanted: for many roundings."""
    value, wanted = value.detach().double(), wanted.detach().double()
    assert value.shape == wanted.shape
    assert value.isfinite().all()
    return float((value - wanted).norm() / wanted.norm().clamp(min=1e-6))


def off(value: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number that is wanted (or to 1e-6)."""
    value, wanted = value.detach().double(), wanted.detach().double()
    assert value.shape == wanted.shape
    assert value.isfinite().all()
    if not wanted.numel():
        return 0.0
    return float((value - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
