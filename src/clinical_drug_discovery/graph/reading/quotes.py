"""Look at the quotes of a text file, because polars reads some malformed fields without an error.

polars drops the quotes of `"so-called "dry" lesion"`, and a quote that is left open may join rows.
This scan of the raw bytes finds both. It runs in a second thread while polars parses the file, and
takes about 0.3 s of CPU time per GB; it keeps 1 MiB in memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import numpy.typing as npt

from ...system.errors import InputError
from ..formats.head import GZIP_MAGIC, ZSTD_MAGIC, Head, text_lines
from ..read_errors import find_fault
from .records import counted

_BLOCK = 2**18  # fits in the cache of a CPU core
Bytes = npt.NDArray[np.uint8]
_QUOTE, _NEWLINE = ord('"'), ord("\n")


class QuoteCheck:
    """Checks the quotes of files in a second thread, which ends with the `with` block."""

    def __init__(self) -> None:
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)
        self._started: dict[tuple[Path, str], Future[tuple[bool, int | None]]] = {}
        self._plain: dict[Path, Path] = {}

    def __enter__(self) -> QuoteCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def start(self, heads: Iterable[Head]) -> None:
        """Start to check each file that is read with quoted fields, once."""
        for head in heads:
            for mark in head.quoted:
                if (head.path, mark) not in self._started:
                    task = self._pool.submit(scan_quotes, head.plain, mark, self._stop)
                    self._started[head.path, mark] = task
                    self._plain[head.path] = head.plain

    def finish(self) -> list[str]:
        """Wait for the checks, and return warnings about fields with line breaks.

        Raises:
            InputError: the quotes of a file are malformed; the message states the first such row.
        """
        warnings = []
        for (path, mark), odd in self._started.items():
            if not odd.result()[0]:
                continue
            several: list[int] = []
            if fault := find_fault(self._plain[path], mark, strict=False, several=several):
                raise InputError(f"{path}{fault}")
            if several:
                number = counted(len(several), "1 row has", "rows have")
                warnings.append(
                    f"{path}: {number} a line break between quotes (first: row {several[0]}); if a "
                    "quote was left open there, the next rows were taken for text"
                )
        return warnings

    def last_bytes(self) -> dict[Path, int]:
        """Return the last byte of each file that a check has read to its end, by the plain file."""
        found = ((self._plain[path], odd.result()[1]) for (path, _), odd in self._started.items())
        return {plain: last for plain, last in found if last is not None}


def scan_quotes(plain: Path, separator: str, stop: Event) -> tuple[bool, int | None]:
    """Return if a file has unusual quotes, and the last byte of the file.

    A quote inside of a field and a line break between quotes are unusual. Both occur in valid
    files, so the caller must look closer. Compressed files are decompressed once more. The last
    byte is None if the scan has ended early, or if the file is compressed with zstd.

    Args:
        plain: a text file, perhaps compressed with gzip or zstd.
        separator: stands between the fields.
        stop: ends the scan early.
    """
    edges = np.zeros(256, bool)
    edges[[ord(separator), _QUOTE, _NEWLINE, ord("\r")]] = True
    before, is_open = _NEWLINE, False  # the byte before the block; is the block within quotes?
    for data in _blocks(plain):
        if stop.is_set():
            return False, None
        if before == _QUOTE and not is_open and not edges[data[0]]:
            return True, None  # a closing quote at the end of the last block
        marks = data == _QUOTE
        np.logical_or(marks, data == _NEWLINE, out=marks)
        at = np.flatnonzero(marks)
        quotes = data[at] == _QUOTE
        within = np.logical_xor.accumulate(quotes) ^ is_open  # is the text after a mark quoted?
        if within[~quotes].any():
            return True, None  # a line break between quotes
        opening = at[quotes & within]
        closing = at[quotes & ~within]
        if len(opening) and opening[0] == 0:
            if not edges[before]:
                return True, None
            opening = opening[1:]
        if len(closing) and closing[-1] == len(data) - 1:
            closing = closing[:-1]  # the next block follows
        if not (edges[data[opening - 1]].all() and edges[data[closing + 1]].all()):
            return True, None
        before = int(data[-1])
        is_open = bool(within[-1]) if len(within) else is_open
    return is_open, None if _is_zstd(plain) else before


def _is_zstd(plain: Path) -> bool:
    with plain.open("rb") as file:
        return file.read(4).startswith(ZSTD_MAGIC)


def _blocks(plain: Path) -> Iterator[Bytes]:
    """Yield the bytes of a text file, decompressed; each block overwrites the one before."""
    if _is_zstd(plain):  # Python cannot decompress it, polars can
        lines = text_lines(plain)
        while some := list(islice(lines, 10_000)):
            yield np.frombuffer(("\n".join(some) + "\n").encode(), np.uint8)
        return
    with plain.open("rb") as file:
        is_gzip = file.read(4).startswith(GZIP_MAGIC)
    buffer = bytearray(_BLOCK)  # one buffer: the first write to a fresh page of memory is slow
    with gzip.open(plain) if is_gzip else plain.open("rb", buffering=0) as source:
        while size := source.readinto(buffer):
            yield np.frombuffer(buffer, np.uint8)[:size]
