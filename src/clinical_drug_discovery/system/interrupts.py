"""Ctrl-C and SIGTERM on the command line: one line, no traceback, the exit code of the signal.

This file imports only small modules, so that it works before the program loads its libraries. In
Python, nothing of this is active: a KeyboardInterrupt passes through.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_MOST_PATHS = 3  # files that the line names; further files are counted
_written: list[Path] = []  # files that this process has written completely
_state = {"loading": True, "stopped": False}


class Stopped(SystemExit):
    """A signal has stopped the command; unfinished files are removed while this passes through."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.part = ""  #: the part of the run that was stopped

    def line(self) -> str:
        """Return one line that says which part was stopped and which files are kept."""
        where = f" ({self.part})" if self.part else ""
        kept = [path for path in dict.fromkeys(_written) if path.exists()]
        if not kept:
            return f"stopped by {_NAMES[self.number]}{where}; nothing was written"
        names = ", ".join(map(str, kept[:_MOST_PATHS]))
        more = f" and {len(kept) - _MOST_PATHS} more" if len(kept) > _MOST_PATHS else ""
        return (
            f"stopped by {_NAMES[self.number]}{where} before all results were written; "
            f"kept, complete: {names}{more}"
        )


def catch_signals() -> None:
    """Let Ctrl-C and SIGTERM stop the command without a traceback; ignored signals stay ignored."""
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def end_loading() -> None:
    """Say that the libraries are loaded: from now on, a signal raises `Stopped`.

    Before this, a signal ends the process at once. Libraries can swallow an exception that is
    raised during their import, and nothing is written yet.
    """
    _state["loading"] = False


def note_written(path: Path) -> None:
    """Remember a file that was written completely, for the line about what is kept."""
    _written.append(path)


def _stop(number: int, frame: FrameType | None) -> None:
    if _state["loading"]:
        _end(number, "while the program was loading; nothing was written")
    if _state["stopped"]:
        _end(number, "at once; files named .part-* may be left over")
    _state["stopped"] = True
    raise Stopped(number)


def _end(number: int, what: str) -> None:
    """Write one line and end the process without any further Python code."""
    clear = "\r\x1b[K" if sys.stderr is not None and sys.stderr.isatty() else ""
    os.write(2, f"{clear}stopped by {_NAMES[number]} {what}\n".encode())
    os._exit(128 + number)
