"""The one exception for what a user can put right: a bad parameter, file or name.

Anything else that is raised is a fault of ours and keeps its traceback. The command line turns an
`InputError` into one line on stderr and exit code 2.
"""

from __future__ import annotations

import math
import sys

from torch import Tensor


class InputError(ValueError):
    """A parameter or file breaks a stated rule; the message names it, its value and the rule."""


class DoesNotFitError(InputError):
    """A memory budget is too small for what is asked."""


def check_between(
    name: str, value: float, low: float, high: float, *, low_allowed: bool = False
) -> None:
    """Refuse a parameter that is no number above `low` (or equal, if allowed) and up to `high`."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    fits = fits and low <= value <= min(high, sys.float_info.max)
    if not fits or (value == low and not low_allowed):
        lowest = f"of at least {low:g}" if low_allowed else f"above {low:g}"
        highest = f" and at most {high:g}" if math.isfinite(high) else ""
        raise InputError(f"{name} (got {value!r}) must be a finite number {lowest}{highest}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse a parameter that is no whole number or below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise InputError(f"{name} (got {value!r}) must be a whole number of at least {least}")


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Refuse a tensor whose shape is not `shape`; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(
        want in (None, got) for got, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
