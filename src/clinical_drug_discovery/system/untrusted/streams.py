"""Standard streams that the caller has closed, or to which nothing more can be written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

_NAMES = ("stdin", "stdout", "stderr")


def open_missing_streams() -> None:
    """Open the null device in place of each standard stream that the caller has closed.

    Otherwise Python has None in place of the stream, and the next file that is opened gets its
    number: what native code prints would go into this file. Only the command line calls this.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so it is `number`
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # until the end


def drop_full_stderr() -> None:
    """Put the null device in place of the standard error if it cannot take what it still holds.

    Otherwise Python tries again when the process ends, and turns the exit code into 120. Lost lines
    do not change the exit code, as with a standard error that the caller has closed. Only the
    command line calls this, at its end.
    """
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the end


@contextmanager
def printing() -> Iterator[None]:
    """Turn a failure to print in the `with` block into one line.

    Raises:
        InputError: the standard output cannot take the text. The end of a pipe (`| head`) is left
            to rich and typer, which end the program without a message.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # Python flushes it at the end
        raise InputError(
            f"the standard output cannot be written: {error.strerror or error}"
        ) from None
