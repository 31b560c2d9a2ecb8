"""The last words of several processes: one of them says why all end.

A process that fails puts its reason into the store of the group, which torchrun keeps. The first
process prints, if it still runs. If it does not print for a few seconds, another one does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from . import launch
from .store import open_store

# Seconds in which the first process looks for the reason of another one, in which the others wait
# for the first to print, and between two looks.
_LOOK, _WAIT, _PAUSE = 2.0, 5.0, 0.1


def let_first_speak() -> None:
    """Silence all processes but the first, and let tracebacks pass through `say_last`."""
    if launch.num_processes() == 1:
        return
    sys.excepthook = _traceback
    if launch.rank():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the end


def say_last(text: str, *, is_lost: bool = False) -> None:
    """Print the text with which a process ends, unless another process speaks for all.

    Args:
        text: one line or a traceback.
        is_lost: this process ends because another one has ended, whose reason is better.
    """
    rank = launch.rank()
    if launch.num_processes() == 1 or not launch.has_store():
        if rank == 0:
            _write(text)
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun stops all others when one has failed
        signal.signal(number, signal.SIG_IGN)
    try:
        chosen = _chosen(open_store("last words"), rank, text, is_lost)
    except RuntimeError:  # torchrun itself has ended
        chosen = None if rank else text
    if chosen is not None:
        _write(chosen)


def _chosen(store: Any, rank: int, text: str, is_lost: bool) -> str | None:
    """Return what this process must print; None: nothing, since another one speaks."""
    if not is_lost:
        store.set(f"reason/{rank}", text)
    if rank:
        if _until(lambda: store.check(["said"]), _WAIT):
            return None
        text = text if is_lost else f"process {rank}: {text}"
    elif is_lost:
        text = _reason(store) or text
    return text if store.add("said", 1) == 1 else None


def _reason(store: Any) -> str | None:
    """Return the reason of another process that has failed."""
    others = range(1, launch.num_processes())

    def found() -> list[int]:
        return [rank for rank in others if store.check([f"reason/{rank}"])]

    if not _until(lambda: bool(found()), _LOOK):
        return None
    rank = found()[0]
    return f"process {rank}: {store.get(f'reason/{rank}').decode()}"


def _until(happens: Callable[[], bool], seconds: float) -> bool:
    """Wait until something happens; return False if it does not within some seconds."""
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)
    return True


def _write(text: str) -> None:
    with suppress(OSError):  # stderr may be full; the exit code still tells that the process failed
        if launch.rank() == 0:
            sys.stderr.write(f"{text.rstrip()}\n")
            sys.stderr.flush()
        else:  # `let_first_speak` has closed its stderr
            os.write(2, f"{text.rstrip()}\n".encode())


def _traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    import traceback

    say_last("".join(traceback.format_exception(kind, error, trace)))
