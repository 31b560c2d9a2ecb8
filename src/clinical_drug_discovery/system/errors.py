"""The exception for errors that a user can fix (a parameter, a file), and checks that raise it.

The command line prints an `InputError` as one line on stderr and exits with code 2. Any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import math
import numbers
import sys
from typing import TYPE_CHECKING

from .untrusted.text import shortened

if TYPE_CHECKING:
    from torch import Tensor  # not imported at run time, because that takes a second


_MOST = 2**63 - 1  # the largest whole number of numpy, polars and torch


class InputError(ValueError):
    """A parameter or file is invalid; the message states the name, the value and the rule.

    Values of more than 200 characters are cut, so that a message stays readable. A function that
    reads files without the options of `read_graph` raises the error again `without_option`.

    Example:
        >>> try:
        ...     cdd.load_model("nowhere")
        ... except cdd.InputError as error:
        ...     print(error)
        model_dir (got nowhere) must be a directory
    """

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(shortened(message + option))
        #: The message without the option of the reader that would accept the input.
        self.without_option = shortened(message)


_LONGEST = 200  # characters of a value in a message


def shown(value: object) -> str:
    """Return a value as text for a message, cut at 200 characters."""
    try:
        text = repr(value)
    except Exception:  # a value of the user may fail to show itself, such as a huge whole number
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun, such as "1 pair" or "2,000 pairs".

    Args:
        number: the count.
        one: the words behind the number 1: a noun, perhaps with its verb.
        many: the words behind other numbers; empty: `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class DoesNotFitError(InputError):
    """The run needs more memory than the budget."""


class MissingPackageError(InputError, ImportError):
    """A package that only this function needs is not installed; the message names the command."""


def check_between(
    name: str, value: float, low: float, high: float, *, low_allowed: bool = False
) -> None:
    """Check that low < value <= high, or low <= value <= high if `low_allowed`."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    fits = fits and low <= value <= min(high, sys.float_info.max)
    if not fits or (value == low and not low_allowed):
        lowest = f"of at least {low:g}" if low_allowed else f"above {low:g}"
        highest = f" and at most {high:g}" if math.isfinite(high) else ""
        raise InputError(f"{name} (got {shown(value)}) must be a finite number {lowest}{highest}")


def check_at_least(name: str, value: int, least: int, most: int = _MOST) -> None:
    """Check that a parameter is a whole number from `least` to `most`."""
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not fits or not least <= value <= most:
        highest = "" if most == _MOST and (not fits or value < least) else f" and at most {most:,}"
        raise InputError(
            f"{name} (got {shown(value)}) must be a whole number of at least {least}{highest}"
        )


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Check the shape of a tensor, where None allows any size; raise ValueError if it is wrong."""
    fits = tensor.dim() == len(shape) and all(
        want in (None, got) for got, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
