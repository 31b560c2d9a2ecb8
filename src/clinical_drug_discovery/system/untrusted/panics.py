"""Errors of native code that are printed although they are caught.

polars reports a damaged file as a panic of Rust: an exception in Python, and some lines on the
standard error, which it cannot switch off. The command line shows one line instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_STDERR = 2
_PANIC = b"\nthread '"  # begins the lines of a panic
_state = {"is_command_line": False}


def keep_stderr() -> None:
    """Let Python write to a copy of the standard error, so that `without_panics` can hide it.

    Only the command line calls this: in the process of another program, the standard error is not
    ours, and panics stay visible.
    """
    if sys.stderr is None:  # closed
        return
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    copy = os.dup(_STDERR)
    # It stays open until the process ends.
    sys.stderr = open(copy, "w", buffering=1, encoding=encoding, errors=errors)  # noqa: SIM115
    _state["is_command_line"] = True


@contextmanager
def without_panics() -> Iterator[None]:
    """Hide panics of native code within the `with` block if it raises an error.

    Other lines on the standard error are shown at the end of the block. Outside of the command line
    this does nothing.
    """
    held = _temporary() if _state["is_command_line"] else None
    if held is None:
        yield
        return
    before = os.dup(_STDERR)
    os.dup2(held.fileno(), _STDERR)
    failed = True
    try:
        yield
        failed = False
    finally:
        os.dup2(before, _STDERR)
        os.close(before)
        with held, suppress(OSError):
            held.seek(0)
            lines = held.read()
            os.write(_STDERR, lines.split(_PANIC)[0] if failed else lines)


def _temporary() -> IO[bytes] | None:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no directory is writable
        return None
