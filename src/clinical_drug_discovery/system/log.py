"""The lines that a process shows while it works, and the current part with its progress.

If the user has configured `logging` to show lines of the logger `clinical_drug_discovery` of level
INFO, all lines go there. Otherwise a terminal and Jupyter get marked lines above one live line,
which a timer thread rewrites. Everywhere else lines go to `logging`, and the timer thread adds a
line about the current part if none was written for some seconds. If `logging` does not have any
handler, the lines go to stderr, so that a plain script is not silent.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from .group import launch
from .interrupts import Stopped
from .untrusted.text import printable

LOGGER = logging.getLogger("clinical_drug_discovery")
_LINES, _TERMINAL, _JUPYTER = "lines", "terminal", "jupyter"  # kinds of display
# Seconds between lines. At most 10 s were promised, and the thread may wake up late, because some
# libraries keep Python's lock during long calls.
_MOST_SILENT = 8.0
_REFRESH = {_TERMINAL: 0.25, _JUPYTER: 1.0}  # seconds between updates of the live line
# Steps whose mean time gives the remaining time: few, so that it soon shows that a machine slows
# down, and several, because single steps take longer (every tenth epoch has a check).
_RECENT = 5
_BAR, _JUPYTER_WIDTH = 12, 110  # characters of the bar; characters of the live line in Jupyter
_LEAST_WIDTH = 20  # characters of a wrapped line


@dataclass
class Part:
    """A part of the work in progress."""

    text: str
    total: int | None  #: number of steps; None if unknown
    unit: str  #: name of a step
    start: float = field(default_factory=time.monotonic)
    done: int = 0
    before: int = 0  #: steps that were done at the start
    note: str = ""
    #: times of the last steps, with the time before the first of them
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT + 1))

    def __post_init__(self) -> None:
        """Count the time from the start of the part."""
        self.times.append(self.start)

    def advance(self, note: str = "") -> None:
        """Count one step, and keep a note on it. Nothing is written here, so this takes 0.2 us."""
        self.done += 1
        self.times.append(time.monotonic())
        self.note = note

    def describe(self, live: bool = False) -> str:
        """Return the text, the current step, the note, the time so far and the remaining time.

        Args:
            live: return a shorter text with a bar, for a line that is rewritten.
        """
        now = time.monotonic()
        so_far, about = ("", "") if live else (" so far", "about ")
        pieces = [f"{_duration(now - self.start)}{so_far}"]
        if self.total is None:
            return f"{self.text}, {pieces[0]}"
        if self.note:
            pieces.insert(0, self.note)
        if self.done > self.before:
            last = self.times[-1]
            each = (last - self.times[0]) / (len(self.times) - 1)
            left = each * (self.total - self.done)
            pieces.append(f"{about}{_duration(max(0.0, left - (now - last)))} left")
        filled = _BAR * self.done // max(self.total, 1)
        bar = f"{'━' * filled}{'─' * (_BAR - filled)} " if live else ""
        step = f"{self.unit} {min(self.done + 1, self.total)}/{self.total}"
        return ", ".join([f"{self.text}: {bar}{step}", *pieces])


# The parts that are open, the innermost last; and the time and the thread of the display.
_parts: list[Part] = []
_lock = threading.RLock()
_shown = {"line": 0.0, "width": 0.0}  # time of the last line; characters of the live line
_timers: list[threading.Event] = []  # stops the timer thread; empty without a thread


@contextmanager
def part(
    text: str,
    total: int | None = None,
    unit: str = "step",
    *,
    announce: bool = False,
    before: int = 0,
) -> Iterator[Callable[..., None]]:
    """Show the `with` block as the current part of the work, until it ends.

    Args:
        text: name of the part.
        total: number of steps, if known.
        unit: name of a step.
        announce: write a line at the start.
        before: number of steps that an earlier process has done.

    Yields:
        A function that counts one step. Its argument is a note on the step, such as "loss 0.3".

    Example:
        >>> from clinical_drug_discovery.system.log import part
        >>> with part("Training", total=100, unit="epoch") as advance:
        ...     for epoch in range(100):
        ...         advance("loss 0.3")
    """
    this = Part(text, total, unit, done=before, before=before)
    if announce and _display() == _LINES:
        _log(logging.INFO, text)
    with _lock:
        _parts.append(this)
        if not _timers:
            _timers.append(threading.Event())
            _shown["line"] = max(_shown["line"], time.monotonic() - _MOST_SILENT / 2)
            threading.Thread(target=_keep_time, args=_timers, name="progress", daemon=True).start()
    try:
        yield this.advance
    except Stopped as stop:
        stop.part = stop.part or this.describe()
        raise
    finally:
        with _lock:
            _parts.remove(this)
            _clear()
            if not _parts:
                _timers.pop().set()


def current_part() -> str | None:
    """Return a line about the innermost open part and its progress; None if no part is open."""
    with _lock:
        return _parts[-1].describe() if _parts else None


def milestone(text: str) -> None:
    """Write a line about what was reached."""
    _write("✓ ", "32", text)


def detail(text: str) -> None:
    """Write an indented line below a milestone."""
    _write("  ", "", text)


def warning(text: str) -> None:
    """Write a warning."""
    _write("warning: ", "33", text, logging.WARNING)


def log_to_stderr() -> None:
    """Send the lines to stderr unless it is a terminal; only the command line calls this."""
    if _display() == _LINES and not LOGGER.handlers:
        LOGGER.addHandler(_handler())
        LOGGER.setLevel(logging.INFO)


def _write(mark: str, color: str, text: str, level: int = logging.INFO) -> None:
    display, text = _display(), printable(text)
    if display == _LINES:
        _log(level, text)
        return
    if display == _TERMINAL:
        text = _wrapped(text, len(mark))
        if color and not os.environ.get("NO_COLOR"):
            mark = f"\x1b[{color}m{mark}\x1b[0m"
    with _lock:
        _clear()
        _put(f"{mark}{text}\n")
        _shown["line"] = time.monotonic()


def _wrapped(text: str, start: int) -> str:
    """Wrap a text at words, to the width of the terminal; paths stay whole, to be copied.

    Args:
        text: one line.
        start: the column at which the first line starts.
    """
    lines = textwrap.wrap(
        text, max(shutil.get_terminal_size().columns, _LEAST_WIDTH), initial_indent=" " * start,
        subsequent_indent="  ", break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines)[start:]


def _log(level: int, text: str) -> None:
    if launch.rank():  # the first process speaks for all
        return
    _shown["line"] = time.monotonic()
    if LOGGER.hasHandlers():
        LOGGER.log(level, "%s", text)
    elif level >= LOGGER.level and level > LOGGER.manager.disable:
        _handler().handle(LOGGER.makeRecord(LOGGER.name, level, "", 0, text, (), None))


def _handler() -> logging.Handler:
    """Return a handler that writes lines with the time to stderr, and marks warnings."""

    def mark(record: logging.LogRecord) -> bool:
        record.mark = "warning: " if record.levelno >= logging.WARNING else ""
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(mark)
    handler.setFormatter(logging.Formatter("%(asctime)s %(mark)s%(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def _display() -> str:
    """Return the kind of display. It is chosen anew for each line, and costs microseconds."""
    asked_for = LOGGER.isEnabledFor(logging.INFO) and LOGGER.hasHandlers()
    if asked_for or LOGGER.level > logging.INFO:  # or the user wants warnings only
        return _LINES
    # If IPython is not loaded, this process is not a notebook. Importing IPython takes a second.
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return _JUPYTER
    with suppress(ValueError, AttributeError):  # stderr is closed or missing
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            return _TERMINAL
    return _LINES


def _keep_time(ended: threading.Event) -> None:
    """Rewrite the live line, or write a line if none was written for some seconds."""
    wait = _REFRESH[_TERMINAL]
    while not ended.wait(wait):
        display = _display()
        with _lock:
            if ended.is_set() or not _parts:
                return
            if display != _LINES:
                _draw(_parts[-1].describe(live=True), display)
                wait = _REFRESH[display]
                continue
            silent = time.monotonic() - _shown["line"]
            text = _parts[-1].describe()
        if silent >= _MOST_SILENT:
            _log(logging.INFO, text)
            silent = 0.0
        wait = _MOST_SILENT - silent


def _draw(text: str, display: str) -> None:
    text = printable(text)
    width = _JUPYTER_WIDTH if display == _JUPYTER else shutil.get_terminal_size().columns - 1
    text = text if len(text) <= width else f"{text[: width - 1]}…"
    blank = " " * int(_shown["width"] - len(text))  # covers the rest of a longer line
    _shown["width"] = len(text)
    _put(f"\r{text}{blank}")


def _clear() -> None:
    """Remove the live line; lines and results can then be written."""
    if _shown["width"]:
        _put("\r" + " " * int(_shown["width"]) + "\r")
        _shown["width"] = 0


def _put(text: str) -> None:
    if launch.rank():
        return
    with suppress(OSError, ValueError):  # a terminal that was closed must not end the run
        sys.stderr.write(text)
        sys.stderr.flush()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
