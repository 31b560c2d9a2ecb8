"""Limits on what a file may become: decompressed bytes, and bytes of a row.

A few kilobytes of bz2, xz or zstd can stand for gigabytes. The limit holds for every step of the
conversion to plain text, also for an archive inside of an archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...system.errors import InputError

_GIB = 2**30
#: Default limit: 200 times the size of the file (text shrinks 5 to 40 times), but in these bounds.
_RATIO, _LEAST, _MOST = 200, _GIB // 4, 64 * _GIB
MAX_ROW = 2**24  #: bytes of a line without a line end that are certainly refused, about
_BLOCK = 2**20
_HEAD = 2**16
_ZSTD_BLOCK = 2**17  # largest block of zstd after decompression (RFC 8878)
_SKIPPABLE = 0x184D2A50  # first of the 16 magic numbers of skippable frames
_ZSTD = 0xFD2FB528


class Limit:
    """The largest size of one file after decompression.

    Args:
        path: the file that the user gave; messages name it.
        size: its size in bytes.
        gib: the limit that the user has chosen, in GiB; None for the default.
    """

    def __init__(self, path: Path, size: int, gib: float | None) -> None:
        self.path, self._gib = path, gib
        self.set_size(size)

    def set_size(self, size: int) -> None:
        """Set the size of the file, which is known late for the standard input."""
        default = min(max(_RATIO * size, _LEAST), _MOST)
        self.num_bytes = default if self._gib is None else int(self._gib * _GIB)
        self._size = size

    def check(self, num_bytes: int) -> None:
        """Check a number of decompressed bytes.

        Raises:
            InputError: there are too many; the message names the flag that raises the limit.
        """
        if num_bytes > self.num_bytes:
            times = "" if self._gib is not None else f", {_RATIO} times its size of {self._size:,}"
            least = times and self.num_bytes == _LEAST
            raise InputError(
                f"{self.path} is larger than {self.num_bytes / _GIB:.3g} GiB after decompression"
                f"{' (the least limit)' if least else times}",
                "; if you trust the file, raise the limit with max_unpacked_gib "
                "(--max-unpacked-gib)",
            )

    def copy(self, source: IO[bytes], target: Path) -> Path:
        """Write a decompressed stream to a file, and return the file."""
        total = 0
        with target.open("wb") as plain:
            while block := source.read(_BLOCK):
                total += len(block)
                self.check(total)
                plain.write(block)
        return target


def zstd_bound(path: Path) -> int:
    """Return an upper bound of the decompressed size of a zstd file, from its block headers.

    Nothing is decompressed: the bound is at most 128 KiB too large for each frame and block. A
    damaged file ends the walk; its decompression will fail.
    """
    total, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while len(magic := file.read(4)) == 4:
            number = int.from_bytes(magic, "little")
            if _SKIPPABLE <= number < _SKIPPABLE + 16:
                file.seek(int.from_bytes(file.read(4), "little"), 1)
            elif number != _ZSTD:
                break
            else:
                total += sum(_zstd_blocks(file, size))
    return total


def _zstd_blocks(file: IO[bytes], size: int) -> Iterator[int]:
    """Yield the largest size of each block of a frame, and end behind the frame."""
    flags = (file.read(1) or b"\0")[0]
    single, has_checksum = flags & 0x20, flags & 4
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    file.seek((0 if single else 1) + (0, 1, 2, 4)[flags & 3] + content, 1)
    while len(header := file.read(3)) == 3 and file.tell() <= size:
        number = int.from_bytes(header, "little")
        kind, length = number >> 1 & 3, number >> 3
        yield length if kind < 2 else _ZSTD_BLOCK  # as it is, one byte repeated, compressed
        file.seek(1 if kind == 1 else length, 1)
        if number & 1:
            break
    file.seek(4 if has_checksum else 0, 1)


def check_rows(path: Path, plain: Path) -> None:
    """Check that a plain text file does not have an endless row, without reading all of it.

    A row of more than 32 MiB covers one of the blocks of 16 MiB into which the file is divided. So
    the first line end of each block is searched; in an ordinary file it is among the first bytes.

    Args:
        path: the file that the user gave, for the message.
        plain: its plain copy, or the file itself.

    Raises:
        InputError: a row is too long.
    """
    size = plain.stat().st_size
    with plain.open("rb") as file:
        for start in range(0, size, MAX_ROW):
            file.seek(start)
            at, step, end = start, _HEAD, min(start + MAX_ROW, size)
            while at < end and b"\n" not in (block := file.read(min(step, end - at))):
                at, step = at + len(block), _BLOCK
            if at == start + MAX_ROW:
                raise InputError(long_row(path, f"at byte {start:,}"))


def long_row(path: Path, where: str) -> str:
    """Return the message about a row that is too long."""
    return (
        f"{path} has a row of more than {MAX_ROW // 2**20} MiB {where}; a row must have a line end "
        "(is this file a table?)"
    )
