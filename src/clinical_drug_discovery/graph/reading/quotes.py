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
from ..formats.head import GZIP_MAGIC, ZSTD_MAGIC, Head
from ..read_errors import find_fault, text_lines

_BLOCK = 2**18  # fits in the cache of a CPU core
Bytes = npt.NDArray[np.uint8]
_QUOTE, _NEWLINE = ord('"'), ord("\n")


class QuoteCheck:
    """Checks the quotes of files in a second thread, which ends with the `with` block."""

    def __init__(self) -> None:
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)
        self._started: dict[tuple[Path, str], Future[bool]] = {}
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
                    task = self._pool.submit(has_odd_quotes, head.plain, mark, self._stop)
                    self._started[head.path, mark] = task
                    self._plain[head.path] = head.plain

    def finish(self) -> list[str]:
        """Wait for the checks, and return warnings about fields with line breaks.

        Raises:
            InputError: the quotes of a file are malformed; the message states the first such row.
        """
        warnings = []
        for (path, mark), odd in self._started.items():
            if not odd.result():
                continue
            several: list[int] = []
            if fault := find_fault(self._plain[path], mark, strict=False, several=several):
                raise InputError(f"{path}{fault}")
            if several:
                number = "1 row has" if len(several) == 1 else f"{len(several):,} rows have"
                warnings.append(
                    f"{path}: {number} a line break between quotes (first: row {several[0]}); if a "
                    "quote was left open there, the next rows were taken for text"
                )
        return warnings


def has_odd_quotes(plain: Path, separator: str, stop: Event) -> bool:
    """Return True if a quote stands inside of a field, or if a line break stands between quotes.

    Both occur in valid files, so the caller must look closer. Compressed files are decompressed
    once more.

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
            return False
        if before == _QUOTE and not is_open and not edges[data[0]]:
            return True  # a closing quote at the end of the last block
        marks = data == _QUOTE
        np.logical_or(marks, data == _NEWLINE, out=marks)
        at = np.flatnonzero(marks)
        quotes = data[at] == _QUOTE
        within = np.logical_xor.accumulate(quotes) ^ is_open  # is the text after a mark quoted?
        if within[~quotes].any():
            return True  # a line break between quotes
        opening = at[quotes & within]
        closing = at[quotes & ~within]
        if len(opening) and opening[0] == 0:
            if not edges[before]:
                return True
            opening = opening[1:]
        if len(closing) and closing[-1] == len(data) - 1:
            closing = closing[:-1]  # the next block follows
        if not (edges[data[opening - 1]].all() and edges[data[closing + 1]].all()):
            return True
        before = int(data[-1])
        is_open = bool(within[-1]) if len(within) else is_open
    return is_open


def _blocks(plain: Path) -> Iterator[Bytes]:
    """Yield the bytes of a text file, decompressed; each block overwrites the one before."""
    with plain.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(ZSTD_MAGIC):  # Python cannot decompress it, polars can
        lines = text_lines(plain)
        while some := list(islice(lines, 10_000)):
            yield np.frombuffer(("\n".join(some) + "\n").encode(), np.uint8)
        return
    is_gzip = magic.startswith(GZIP_MAGIC)
    buffer = bytearray(_BLOCK)  # one buffer: the first write to a fresh page of memory is slow
    with gzip.open(plain) if is_gzip else plain.open("rb", buffering=0) as source:
        while size := source.readinto(buffer):
            yield np.frombuffer(buffer, np.uint8)[:size]
