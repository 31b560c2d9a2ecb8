"""Ctrl-C and SIGTERM: finish a training step, or stop in one line with the signal's exit code.

This file imports only small modules, so that it works before the program loads its libraries. In
Python, only `finishing_steps` is active, and only while a model is trained in the main thread.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from .group import launch

_NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_IMPORTING = "<frozen importlib._bootstrap>"  # the file of Python's own functions that import
_MOMENT = 0.01  # seconds
_MOST_PATHS = 3  # files that the line names; further files are counted
_written: list[Path] = []  # files that this process has written completely
_state = {"command line": False, "loading": True}
_stopped: list[int] = []  # the signal for which `Stopped` was raised: nothing, or one number
_flags: list[str] = []  # flag with which the command continues: nothing, or one text
_resume: list[str] = []  # what a stopped run can be continued from: nothing, or one text


class Stopped(SystemExit):
    """A signal has stopped the command; unfinished files are removed while this passes through."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.part = ""  #: the part of the run that was stopped

    def line(self) -> str:
        """Return one line that says which part was stopped and which files are kept."""
        where = f" ({self.part})" if self.part else ""
        if _resume:
            return f"stopped by {_NAMES[self.number]}{where}; {how_to_resume()}"
        kept = [path for path in dict.fromkeys(_written) if path.exists()]
        places = {path.resolve() for path in kept}
        kept = [path for path in kept if not places & {*path.resolve().parents}]
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
    _state["command line"] = True
    sys.unraisablehook = _ignored
    for number in _NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def end_loading() -> None:
    """Say that the libraries are loaded: from now on, a signal raises `Stopped`.

    Before this, a signal ends the process at once. Libraries can swallow an exception that is
    raised during their import, and nothing is written yet.
    """
    _state["loading"] = False


def ignore_signals() -> None:
    """Let no signal change the exit code of a command that has ended but for Python's own end."""
    for number in _NAMES:
        signal.signal(number, signal.SIG_IGN)


def note_written(path: Path) -> None:
    """Remember a file that was written completely, for the line about what is kept."""
    _written.append(path)


def note_resume(what: str | None, flag: str | None = "--resume") -> None:
    """Remember what a stopped run can be continued from, such as a checkpoint.

    Args:
        what: None: nothing.
        flag: flag with which the same command continues; None: it continues without one.
    """
    _resume[:] = [] if what is None else [what]
    _flags[:] = [] if flag is None else [flag]


def how_to_resume() -> str:
    """Say in one line what is saved, and how to continue from it."""
    if launch.num_processes() > 1:
        saved = f"{_resume[0]}; " if _resume else ""
        return f"{saved}to continue from the last checkpoint: torchrun again, with --resume"
    if not _state["command line"]:
        again = " with resume=True" if _flags else ""
        return f"{_resume[0]}; to continue, call the function again{again}"
    words = ["cdd", *sys.argv[1:]]
    more = [flag for flag in _flags if flag not in words]
    return f"{_resume[0]}; to continue: {shlex.join([*words, *more])}"


@contextmanager
def signals_first() -> Iterator[None]:
    """Raise `Stopped` in place of an error of the `with` block that follows from a signal.

    polars raises KeyboardInterrupt after Ctrl-C. Where native code calls Python, it can turn
    `Stopped` into an error of its own, which would then blame the file that it reads.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT) from None
    except BaseException as error:
        if _stopped and type(error) is not Stopped:
            raise Stopped(_stopped[0]) from None
        raise


class StopWish:
    """A signal that was noted within `finishing_steps`."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.previous: dict[int, Any] = {}  #: the handlers outside of the block

    @property
    def is_wanted(self) -> bool:
        """True after a signal."""
        return self.number is not None

    def now(self, number: int | None = None) -> None:
        """Do what the signal would have done without the block.

        Args:
            number: a signal that another process has noted; None: the one of this process.

        Raises:
            Stopped: on the command line.
            KeyboardInterrupt: after Ctrl-C in Python; its message says how to continue.
        """
        number, self.number = self.number if number is None else number, None
        self.restore()
        if number is None:
            return
        if self.previous.get(number) is _stop:
            _stop(number, None)
        if number == signal.SIGINT:
            raise KeyboardInterrupt(how_to_resume() if _resume else "")
        if _resume:
            _tell(f"stopped by {_NAMES[number]}; {how_to_resume()}\n")
        signal.raise_signal(number)  # with the system's own handler: ends the process

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: note the first, and let the second act.

        torchrun passes a signal on, which the terminal or the cluster has sent to all processes, so
        a second one is ignored. After half a minute, torchrun ends the processes itself.
        """
        is_one = launch.num_processes() == 1
        if self.number is not None and not is_one:
            return
        if self.number is not None:
            self.number = None
            self.restore()
            if self.previous[number] is _stop:
                _end(number, "at once; files named .part-* may be left over")
            signal.raise_signal(number)
            return
        self.number = number
        if self.previous[number] is _stop and launch.rank() == 0:
            what = "stopping after this step, with a checkpoint"
            what += "; a second signal stops at once" if is_one else ""
            _tell(f"{_clear()}{_NAMES[number]}: {what}\n")

    def restore(self) -> None:
        """Set the handlers of before the block again, unless somebody has set others since."""
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self.note:
                signal.signal(number, handler)


@contextmanager
def finishing_steps() -> Iterator[StopWish]:
    """Note the first Ctrl-C or SIGTERM within the block, which then chooses when to stop.

    A second signal acts at once. Handlers are changed only in the main thread, and only where they
    are those of Python, of the system or of the command line: a handler of the caller stays. At the
    end of the block all handlers are as before, and a signal that was noted acts.
    """
    wish = StopWish()
    if threading.current_thread() is threading.main_thread():
        usual = (_stop, signal.default_int_handler, signal.SIG_DFL)
        for number in _NAMES:
            handler = signal.getsignal(number)
            if handler in usual:
                wish.previous[number] = handler
                signal.signal(number, wish.note)
    try:
        yield wish
        wish.now()
    finally:
        wish.restore()


def end_stopped(code: int) -> None:
    """End the process now, after the line of a stopped command.

    The usual end would abort the process if a thread is within native code at this moment, such as
    the one that prepares the explorer's lists: Python ends such threads when they ask for its lock,
    and C++ does not allow that.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed or full; the exit code says what happened
            stream.flush()
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    if _state["loading"]:
        _end(number, "while the program was loading; nothing was written")
    if _stopped:
        _end(number, "at once; files named .part-* may be left over")
    if frame is not None and frame.f_code.co_filename == _IMPORTING:  # it may hold the import lock
        _send_again(number)
        return
    _stopped.append(number)
    raise Stopped(number)


def _ignored(args: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose `Stopped` was raised where Python must ignore every exception.

    Such places are the functions that run when an object is freed. All other exceptions are
    reported as usual.
    """
    if isinstance(args.exc_value, Stopped):
        _stopped.clear()
        _send_again(args.exc_value.number)
    else:
        sys.__unraisablehook__(args)


def _send_again(number: int) -> None:
    """Send a signal to the main thread in a moment, when it is likely to be elsewhere."""
    main = threading.main_thread().ident
    again = threading.Timer(_MOMENT, signal.pthread_kill, (main, number))
    again.daemon = True
    again.start()


def _end(number: int, what: str) -> None:
    """Write one line and end the process without any further Python code."""
    _tell(f"{_clear()}stopped by {_NAMES[number]} {what}\n")
    os._exit(128 + number)


def _tell(text: str) -> None:
    """Write a text to stderr; if stderr cannot take it, the signal acts all the same."""
    with suppress(OSError):
        os.write(2, text.encode())


def _clear() -> str:
    """Return the characters that clear the live line of a terminal."""
    return "\r\x1b[K" if sys.stderr is not None and sys.stderr.isatty() else ""
