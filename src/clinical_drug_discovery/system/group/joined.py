"""A group of processes that exchange tensors with `torch.distributed`."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import numba
import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from . import launch
from .interface import ALONE, Group, LostProcessError
from .store import open_store

# The first process may read or embed alone for a while. A process that has ended is noticed at
# once, since its connections are closed.
_LONGEST_WAIT = timedelta(hours=6)
_PAUSE = 0.5  # seconds
_numbers = count()  # of the groups that this process joins, one after the other
_current: list[Group] = [ALONE]


class Joined:
    """The processes that a launcher has started; see `interface.Group`.

    Tensors on the CPU are exchanged by gloo, tensors on NVIDIA GPUs by nccl.
    """

    def __init__(self) -> None:
        """Connect to the other processes, and use as many threads in numba as in torch."""
        self.rank, self.size = launch.rank(), launch.num_processes()
        self.local_rank, self.local_size = launch.local_rank(), launch.local_size()
        self.seconds, self.num_bytes = 0.0, 0
        has_cuda = torch.cuda.is_available()
        if has_cuda:
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
        # torchrun divides the cores by OMP_NUM_THREADS, which numba does not read.
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.get_num_threads()))
        torch.set_num_threads(threads)
        self._members: list[list[Any]] = []  # machine and number of each process in its system
        with self._exchanging():
            backend = "cpu:gloo,cuda:nccl" if has_cuda else "gloo"
            store: dict[str, Any] = {}
            if launch.has_store():
                store = {
                    "store": open_store(f"exchange {next(_numbers)}"),
                    "rank": self.rank,
                    "world_size": self.size,
                }
            dist.init_process_group(backend, timeout=_LONGEST_WAIT, **store)
        self._members = self.gather([socket.gethostname(), os.getpid()])

    def close(self) -> None:
        """Take leave of the other processes."""
        dist.destroy_process_group()

    def gather(self, value: Any) -> list[Any]:
        """Return the small JSON value of each process, in the order of ranks."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._exchanging(len(text)):
            dist.all_gather(sizes, torch.tensor([len(text)]))
            longest = max(int(size) for size in sizes)
            padded = torch.cat([text, text.new_zeros(longest - len(text))])
            found = [torch.empty_like(padded) for _ in sizes]
            dist.all_gather(found, padded)
        texts = (one[: int(size)] for one, size in zip(found, sizes, strict=True))
        return [json.loads(one.numpy().tobytes()) for one in texts]

    def swap(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Send consecutive rows of x to each process; see `interface.Group`."""
        out = x.new_empty(sum(received), *x.shape[1:])
        own = sent[self.rank] * x[:1].numel() * x.element_size()
        with self._exchanging(x.numel() * x.element_size() - own):
            dist.all_to_all_single(out, x.contiguous(), list(received), list(sent))
        return out

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, added in the order of ranks.

        Each process adds one part of the numbers and sends it to all. These are the bytes of a ring
        all-reduce, but the order of the sums, and with it their bits, is that of one process.
        """
        if not tensors:
            return
        numbers = torch.cat([tensor.reshape(-1) for tensor in tensors])
        size = -(-len(numbers) // self.size)
        numbers = torch.cat([numbers, numbers.new_zeros(size * self.size - len(numbers))])
        counts = [size] * self.size
        first, *others = self.swap(numbers, counts, counts).split(size)
        for other in others:
            first += other
        with self._exchanging(first.nbytes * (self.size - 1)):
            dist.all_gather(list(numbers.split(size)), first)
        ends = [0]
        for tensor in tensors:
            ends.append(ends[-1] + tensor.numel())
        for tensor, (start, stop) in zip(tensors, pairwise(ends), strict=True):
            tensor.copy_(numbers[start:stop].view_as(tensor))

    def copy(self, tensor: Tensor, source: int = 0) -> None:
        """Replace a contiguous tensor by that of one process."""
        sent = tensor.nbytes * (self.size - 1) if source == self.rank else 0
        with self._exchanging(sent):
            dist.broadcast(tensor, source)

    def _who_has_ended(self) -> str:
        """Return a text about the processes that do not run any more, as far as this one sees."""
        time.sleep(_PAUSE)  # the system closes the connections of a process before it has ended
        ended = [
            f"process {rank} of {self.size} (pid {pid} on {host})"
            for rank, (host, pid) in enumerate(self._members)
            if host == socket.gethostname() and _has_ended(pid)
        ]
        what = "have" if len(ended) > 1 else "has"
        if not ended:
            return "another process has ended, or its machine cannot be reached"
        return f"{', '.join(ended)} {what} ended"

    @contextmanager
    def _exchanging(self, num_bytes: int = 0) -> Iterator[None]:
        """Measure an exchange, and say in its error that a process has ended.

        Raises:
            LostProcessError: the exchange has failed.
        """
        start = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise LostProcessError(self._who_has_ended()) from error
        finally:
            self.seconds += time.perf_counter() - start
            self.num_bytes += num_bytes


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def current_group() -> Group:
    """Return the group of the `joined` block that runs; one process outside of such a block."""
    return _current[-1]


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that a launcher has started, for the `with` block.

    Without a launcher, and inside another such block, nothing happens.
    """
    if launch.num_processes() == 1 or len(_current) > 1:
        yield current_group()
        return
    group = Joined()
    _current.append(group)
    try:
        yield group
    finally:
        _current.pop()
        group.close()
