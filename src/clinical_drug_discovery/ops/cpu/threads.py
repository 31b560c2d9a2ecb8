"""Kernels on several threads: each thread computes a range of the parts of a kernel's work.

Kernels release Python's lock, so threads of Python use several cores. Parallel loops of numba would
take the compiler three times as long, and one of its threading layers allows only one caller.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import torch

_pools: dict[int, ThreadPoolExecutor] = {}  # by number of threads; they wait without using a core


def run_parts(kernel: Callable[..., None], num_parts: int, *arguments: Any) -> None:
    """Call a kernel for all parts of its work, on as many threads as torch uses.

    The result must not depend on which parts a call computes. So it does not depend on the number
    of threads.

    Args:
        kernel: called with the first part, the part after the last one, and the arguments.
        num_parts: number of parts; parts should be about equal in work.
        *arguments: of each call.
    """
    threads = max(1, min(torch.get_num_threads(), num_parts))
    bounds = pairwise(num_parts * number // threads for number in range(threads + 1))
    own, *others = bounds
    started = [_pool(threads - 1).submit(kernel, *part, *arguments) for part in others]
    try:
        kernel(*own, *arguments)
    finally:
        wait(started)  # the caller may free the arrays
    for one in started:
        one.result()  # raises the error of a kernel


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="kernel")
    return _pools[threads]
