"""The plan of reading: whether the rows lie in memory or in files, and whether all of it fits.

Under the limit of a control group, the system would end the process without a message. So the
memory is predicted from the sizes of the files before they are read. In memory, reading takes bytes
for each row. With a scratch directory, the rows of a graph that does not fit lie in files there,
and memory is taken by the distinct nodes alone; their number is known only while they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...system.errors import InputError
from ...system.limits.memory import Room, available_memory, parse_memory
from ...system.machine import held_bytes
from ..formats.head import GZIP_MAGIC, PARQUET_MAGIC, ZSTD_MAGIC
from .parquet_sizes import declared_rows

_MIB, _GIB = 2**20, 2**30
# Bytes that reading takes in memory: the first bytes of a file wait in buffers, and later each row
# takes some. 14 MB of PrimeKG-shaped rows took 0.07 GiB, 202 MB 0.26 GiB, and 1 GB 0.46 GiB.
_LEAST, _BUFFERS, _ROW = 64 * _MIB, 220 * _MIB, 40
_PARQUET = 680 * _MIB  # more bytes in buffers for a Parquet file
_TEXT_ROW = 110  # bytes of a row as text, if they cannot be counted
_PACKED = 8  # size of a compressed text after decompression / before, about
_HEAD = 2**16  # bytes of a text in which line ends are counted
#: Bytes that reading takes with the rows in files: buffers, sorting and merging; and for each node.
FILES_BUFFERS, NODE = 900 * _MIB, 150
# The same for each byte of a text of more than 12 bytes, which lies in a buffer of its own and is
# copied when tables of nodes are joined. Names of 40 and 100 bytes took up to 1.7.
_LONG_TEXT = 2
#: Most bytes of a row in files, beside the pointers of the graph: 8 bytes for each node and edge
#: type that leads to its type.
ROW_ON_DISK = 32


@dataclass(frozen=True)
class ReadingMemory:
    """The memory that reading may take.

    Attributes:
        budget: most bytes of the whole process; see `parse_memory`. None: what is free.
        scratch_dir: directory for rows that do not fit into the memory; None: every row lies in
            the memory.
    """

    budget: str | int | None = None
    scratch_dir: Path | None = None


@dataclass(frozen=True)
class ReadingPlan:
    """Where reading keeps the rows.

    Attributes:
        directory: of the files of the rows; None: they lie in memory.
        text: a line for the user if the rows lie in files.
        room: the memory that reading may take, if the rows lie in files.
    """

    directory: Path | None = None
    text: str = ""
    room: Room | None = None

    def check_nodes(self, path: Path, num_nodes: int, long_text: int) -> None:
        """Check that the nodes of a file that is being read still fit into memory.

        Args:
            path: of the file.
            num_nodes: number of nodes so far.
            long_text: bytes of their texts of more than 12 bytes.

        Raises:
            InputError: they do not. Only reading with files checks this.
        """
        needed = FILES_BUFFERS + NODE * num_nodes + _LONG_TEXT * long_text
        if self.room is not None and needed > self.room.num_bytes:
            raise InputError(
                f"{path}: reading {num_nodes:,} and more nodes needs more than "
                f"{needed / _GIB:.2f} GiB, also with the rows in files, but {_left(self.room)}"
            )


def plan_reading(files: Sequence[Path], memory: ReadingMemory) -> ReadingPlan:
    """Predict the memory for reading files of a graph, and choose where the rows lie.

    The prediction assumes at least five rows for each node; files with fewer take more.

    Raises:
        InputError: reading needs more memory than is free, or than a limit or the budget leaves.
    """
    size = num_rows = buffers = 0.0
    for path in files:
        with suppress(OSError):  # a file that is missing has a message of its own
            text, rows, is_parquet = _contents(path)
            size, num_rows = size + text, num_rows + rows
            buffers = max(buffers, _BUFFERS + _PARQUET * is_parquet)
    needed = min(_LEAST + size, buffers + _ROW * num_rows)
    names = ", ".join(map(str, files))
    room = available_memory()
    if memory.scratch_dir is None:
        if room.num_bytes < needed:
            raise InputError(
                f"{names}: reading needs about {needed / _GIB:.2f} GiB, but {_left(room)}",
                ", or name a directory for the rows with scratch_dir (cdd embed --scratch-dir)",
            )
        return ReadingPlan()
    room = _within_budget(room, memory.budget)
    if needed <= room.num_bytes:
        return ReadingPlan()
    plan = ReadingPlan(
        memory.scratch_dir,
        f"Reading about {num_rows / 1e6:,.1f} million rows in memory would take about "
        f"{needed / _GIB:.2f} GiB, but {room.limit} has {room.num_bytes / _GIB:.2f} GiB: the rows "
        f"lie in files in {memory.scratch_dir}, up to {ROW_ON_DISK * num_rows / _GIB:.2f} GiB "
        "and 8 bytes for each node and edge type that leads to its type; "
        f"{FILES_BUFFERS / _GIB:.2f} GiB and {NODE} bytes for each node stay in memory, "
        f"and {_LONG_TEXT} for each byte of ids and names of more than 12 bytes",
        room,
    )
    for path in files[:1]:
        plan.check_nodes(path, 0, 0)
    return plan


def _within_budget(room: Room, budget: str | int | None) -> Room:
    """Return the room that a budget for the whole process leaves."""
    if budget is None:
        return Room(parse_memory(None), f"the default memory_budget (70% of {room.limit})")
    left = max(parse_memory(budget) - held_bytes(), 0)
    return min(room, Room(left, f"the rest of memory_budget (got {budget!r})"))


def _left(room: Room) -> str:
    return f"{room.limit} has {room.num_bytes / _GIB:.2f} GiB: allow the process more memory"


def _contents(path: Path) -> tuple[float, float, bool]:
    """Return about how many bytes of text and rows a file holds, and whether it is Parquet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(PARQUET_MAGIC):
        rows = declared_rows(path)
        return _TEXT_ROW * rows, rows, True
    if head.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
        return _PACKED * size, _PACKED * size / _TEXT_ROW, False
    lines = head.count(b"\n")
    return size, size * lines / len(head) if lines else size / _TEXT_ROW, False
