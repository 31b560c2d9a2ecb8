"""Child processes: a fork of a process that has already used this package cannot work."""

from __future__ import annotations

import os

from .errors import InputError

_state = {"used": False, "forked": False}


def use_threads() -> None:
    """Check that this process may start the threads of the libraries, and remember that it does.

    A fork copies only the thread that called it. The libraries in the child would wait for ever for
    threads that do not exist there.

    Raises:
        InputError: this process is a fork of a process that had already used this package.
    """
    if _state["forked"]:
        raise InputError(
            "multiprocessing start method (got 'fork') must be 'spawn' after the parent process "
            "has used this package, because its threads do not exist in a forked process: use "
            "multiprocessing.get_context('spawn'), and for ProcessPoolExecutor its parameter "
            "mp_context"
        )
    if not _state["used"] and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_mark_fork)
    _state["used"] = True


def _mark_fork() -> None:
    _state["forked"] = True
