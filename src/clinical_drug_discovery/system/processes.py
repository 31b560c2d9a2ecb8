"""The process that the package shares with others: its priority, threads and forks."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError

_NICE = 10  # priority of `be_nice`; 0 is usual, 19 waits for everybody
#: Environment variables that limit the threads of a library which is not loaded yet.
_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
_SPINS = "1000"  # of an OpenMP thread that waits, see `set_library_defaults`
_PAUSE = 0.001  # seconds in which a waiting thread wakes up
_state = {"used": False, "forked": False}
_locks = [threading.RLock()]  # one lock; a forked process makes its own
_most: list[int] = []  # see `most_threads`; empty: all cores
_thread = threading.local()  # `unwanted`, if a thread has it, is set to end its work
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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


def set_library_defaults() -> None:
    """Set environment variables of the numerical libraries, unless the user has set them.

    A library reads its variable when it is loaded, or, MKL, when it first computes. After that,
    this call changes nothing for it. Only the command line calls it: a function must not change
    the environment of its caller.

    GOMP_SPINCOUNT: a thread of GNU's OpenMP library that waits for the next parallel region tests
    300,000 times whether there is one, for several milliseconds, before it sleeps. torch and numba
    have such threads of their own. Beside a busy program they used up the share of their core while
    they waited: epochs took 1.6 to 1.8 times as long as with the shorter wait
    (`benchmarks/busy.py`).

    MKL_CBWR: on Intel CPUs, torch's float32 products otherwise depend on the number of threads,
    because MKL divides long sums among them. `STRICT` costs up to a third of a product's speed. MKL
    offers it for Intel's CPUs only. `ops.linear.same_bits` serves the others.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if _is_intel():
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def _is_intel() -> bool:
    """Return whether the CPU is one of Intel's."""
    name = os.environ.get("PROCESSOR_IDENTIFIER", "")  # on Windows
    with suppress(OSError), open("/proc/cpuinfo") as file:  # on Linux
        name = file.read(200)
    return "GenuineIntel" in name


def be_nice() -> str:
    """Lower the priority of this process to 10, and leave one core to others; return what was done.

    The libraries get one thread less than the process has cores, and at least one. A lower number
    or a lower priority that the user has set stays. Call this before the libraries are loaded:
    their threads inherit the priority of the thread that starts them. Only the command line calls
    it: a process cannot raise its priority again, so a function must not lower that of its caller.

    Beside a busy program, as many threads as cores are slower than one thread less. At the end of
    each parallel region all threads wait for the slowest one, which has to share its core.
    """
    cores = _cores()
    threads = max(1, cores - 1)
    for name in _THREADS:
        given = os.environ.get(name, "")
        os.environ[name] = str(min(int(given), threads) if given.isdigit() else threads)
    _most[:] = [threads]
    priority = max(_NICE, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, priority)
    return f"Priority {priority}, {threads} of {cores} cores"


def most_threads() -> int:
    """Return the largest number of threads that this process should use."""
    return _most[0] if _most else _cores()


def _cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def in_order(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: int,
    *,
    first_alone: bool = True,
) -> Iterator[_Result]:
    """Yield the result for each item, in the order of the items, computed by several threads.

    The libraries release Python's lock while they compute, so threads use several cores and share
    the memory of their input. At most one result more than there are workers waits to be taken.

    Args:
        work: computes one result; it must not depend on the other items. Long work calls
            `end_if_unwanted` from time to time.
        items: read as far as needed.
        workers: number of threads; with 1, the caller's thread computes.
        first_alone: compute the first item alone: it makes the parts that all items share.
    """
    remaining = iter(items)
    if workers == 1:
        yield from map(work, remaining)
        return
    unwanted = threading.Event()

    def in_thread(item: _Item) -> _Result:
        stop_by(unwanted)
        return work(item)

    if first_alone:
        yield from map(work, islice(remaining, 1))
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in remaining:
                waiting.append(pool.submit(in_thread, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # after an error or an interrupt, what has not begun is dropped
            unwanted.set()
            for one in waiting:
                one.cancel()


def for_each(work: Callable[[_Item], None], items: Iterable[_Item], workers: int) -> None:
    """Do the work of each item in several threads, and return when all of it is done.

    For work without a result; see `in_order`. The first item is done alone.
    """
    for _ in in_order(work, items, workers):
        pass  # `in_order` works only while its results are taken


def stop_by(unwanted: threading.Event) -> None:
    """Let an event end the work of this thread; see `end_if_unwanted`."""
    _thread.unwanted = unwanted


def end_if_unwanted() -> None:
    """End the work of a thread of `in_order` or after `stop_by` if its result is not wanted.

    An error or an interrupt waits until the threads have ended. Elsewhere, nothing happens.

    Raises:
        CancelledError: the result is not wanted.
    """
    unwanted: threading.Event | None = getattr(_thread, "unwanted", None)
    if unwanted is not None and unwanted.is_set():
        raise CancelledError


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
    lock = _locks[0]
    lock.acquire()
    try:
        yield
    finally:
        with suppress(RuntimeError):  # Ctrl-C came in `let_others`, before it had the lock again
            lock.release()


def let_others() -> None:
    """Let the threads that wait in `alone` run now; a long answer calls this between two steps.

    Outside of `alone`, and within an `alone` inside another, nothing happens. A thread whose result
    is not wanted ends; see `end_if_unwanted`.
    """
    end_if_unwanted()
    lock = _locks[0]
    try:
        lock.release()
    except RuntimeError:  # this thread is not inside
        return
    time.sleep(_PAUSE)
    lock.acquire()


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property:  # noqa: N801  # the name of the standard library
        """A property that is computed once, without a lock.

        Until Python 3.12, that of functools holds a lock that all objects of a class share. A
        thread that calls `let_others` while it computes one would then wait for another thread that
        waits for this lock. Without it, two threads may compute the same value.
        """

        def __init__(self, func: Any) -> None:
            self.func, self.__doc__ = func, func.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self.func(instance)
            return value
