"""Look at the quotes of a text file, because polars reads some malformed fields without an error.

polars drops the quotes of `"so-called "dry" lesion"`, and a quote that is left open may join rows.
This scan of the raw bytes finds both. It runs in a second thread while polars parses the file, and
takes about 0.3 s of CPU time per GB; it keeps 1 MiB in memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np

from ...system.errors import InputError
from ..formats.head import GZIP_MAGIC, ZSTD_MAGIC, Head
from ..read_errors import find_fault, text_lines

_BLOCK = 2**20
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
    previous, is_open = _NEWLINE, False
    block = b""
    for following in _blocks(plain):
        if stop.is_set():
            return False
        if _is_odd(block, previous, following[0], edges, is_open):
            return True
        if block:
            previous, is_open = block[-1], is_open ^ (block.count(b'"') % 2 == 1)
        block = following
    return bool(block) and _is_odd(block, previous, _NEWLINE, edges, is_open)


def _is_odd(block: bytes, previous: int, following: int, edges: np.ndarray, is_open: bool) -> bool:
    """Examine one block between two bytes; `is_open` tells if it starts within quotes."""
    data = np.frombuffer(block, np.uint8)
    at = np.flatnonzero(data == _QUOTE)
    if not len(at):
        return is_open and b"\n" in block
    before, after = data[np.maximum(at - 1, 0)], data[np.minimum(at + 1, len(data) - 1)]
    if at[0] == 0:
        before[0] = previous
    if at[-1] == len(data) - 1:
        after[-1] = following
    opens = slice(int(is_open), None, 2)  # every other quote opens a field or is the second of two
    closes = slice(1 - int(is_open), None, 2)
    if not (edges[before[opens]].all() and edges[after[closes]].all()):
        return True
    lines = np.searchsorted(np.flatnonzero(data == _NEWLINE), at)
    if is_open:
        lines = np.concatenate([[0], lines])
    if len(lines) % 2:  # the last quote is still open at the end of the block
        lines = np.append(lines, block.count(b"\n"))
    return bool((lines[::2] != lines[1::2]).any())


def _blocks(plain: Path) -> Iterator[bytes]:
    """Yield the bytes of a text file, decompressed."""
    with plain.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(ZSTD_MAGIC):  # Python cannot decompress it, polars can
        lines: list[str] = []
        for line in text_lines(plain):
            lines.append(line)
            if len(lines) == 10_000:
                yield ("\n".join(lines) + "\n").encode()
                lines = []
        if lines:
            yield ("\n".join(lines) + "\n").encode()
        return
    with gzip.open(plain) if magic.startswith(GZIP_MAGIC) else plain.open("rb") as source:
        while block := source.read(_BLOCK):
            yield block
