"""The processes that train one model together, as the rest of the package sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor  # not imported at run time, because that takes a second


class LostProcessError(RuntimeError):
    """An exchange has failed, because another process of the group has ended."""


class Group(Protocol):
    """A group of processes. All of them call the same verbs in the same order."""

    rank: int  #: number of this process, from 0; the first one reads, writes and prints
    size: int  #: number of processes
    local_rank: int  #: number of this process on its machine, from 0
    local_size: int  #: number of processes on this machine
    seconds: float  #: time in exchanges so far, including the time in which others are waited for
    num_bytes: int  #: bytes that this process has sent to others so far

    def gather(self, value: Any) -> list[Any]:
        """Return the small JSON value of each process, in the order of ranks."""

    def swap(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Send consecutive rows of x to each process, and return the rows from each process.

        Args:
            x: shape (sum(sent), ...).
            sent: number of rows for each process.
            received: number of rows from each process.

        Returns:
            shape (sum(received), ...), in the order of ranks.
        """

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, added in the order of ranks."""

    def copy(self, tensor: Tensor, source: int = 0) -> None:
        """Replace a contiguous tensor by that of one process."""


class Alone:
    """One process, which exchanges nothing; see `Group`."""

    rank = local_rank = 0
    size = local_size = 1
    seconds = 0.0
    num_bytes = 0

    def gather(self, value: Any) -> list[Any]:
        """Return the value of this process."""
        return [value]

    def swap(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Return x itself."""
        return x

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Change nothing."""

    def copy(self, tensor: Tensor, source: int = 0) -> None:
        """Change nothing."""


ALONE = Alone()


@contextmanager
def first_here(group: Group) -> Iterator[None]:
    """Run the `with` block in the first process of each machine, then in all others.

    The others then find what the first process saved, such as a cached graph or compiled kernels.
    """
    if group.local_rank:
        group.gather(None)
    yield
    if not group.local_rank:
        group.gather(None)
