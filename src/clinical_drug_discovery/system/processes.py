"""The process that the package shares with others: forks, threads and interrupted imports."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from .errors import InputError

_state = {"used": False, "forked": False}
_locks = [threading.RLock()]  # one lock; a forked process makes its own


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
    _state["used"] = True


def _mark_fork() -> None:
    _state["forked"] = _state["used"]
    _locks[0] = threading.RLock()  # a thread that does not exist here may hold the other one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_fork)


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time run the `with` block; the others wait.

    numba's threading layer "workqueue" ends the process if two threads run kernels at once, and
    the number of threads of torch and of the BLAS libraries is a setting of the whole process.
    A thread may enter again while it is inside.
    """
    with _locks[0]:
        yield


def import_for_gradients() -> None:
    """Import the modules that torch would import within the first backward pass.

    An interrupt during that import would leave half of sympy behind, and each later backward pass
    in this process would fail. Here, an import of sympy that is interrupted is forgotten. (The
    modules of torch may be imported in two attempts.)
    """
    for name in ("mpmath", "sympy", "torch.fx.experimental.symbolic_shapes"):
        before = set(sys.modules)
        try:
            import_module(name)
        except BaseException:
            for new in set(sys.modules) - before:
                if new.split(".")[0] == name:
                    del sys.modules[new]
            raise
