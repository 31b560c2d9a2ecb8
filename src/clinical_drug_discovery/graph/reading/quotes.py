"""Look at the quotes of a text file, because polars reads some malformed fields without an error.

polars drops the quotes of `"so-called "dry" lesion"`, and a quote that is left open may join rows.
This scan of the raw bytes finds both. It runs in a second thread while polars parses the file, and
takes about 0.45 s of CPU time per GB; it keeps 1 MiB in memory.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...system.errors import InputError, counted
from ..formats.head import GZIP_MAGIC, ZSTD_MAGIC, Head, text_lines
from ..read_errors import find_fault
from .unpacking import MAX_ROW, Limit, long_row

_BLOCK = 2**18  # fits in the cache of a CPU core
Bytes = npt.NDArray[np.uint8]
_QUOTE, _NEWLINE = ord('"'), ord("\n")
_NO_MARK = ""  # in place of a separator: only the size and the rows of a file are checked


class Scan(NamedTuple):
    """The result of `scan_quotes`."""

    is_odd: bool  #: a quote is inside of a field, or the last quote is left open
    num_lines: int  #: 0 if the scan ended early
    last: int | None  #: the last byte of the file; None if unknown


class QuoteCheck:
    """Checks the quotes of files in a second thread, which ends with the `with` block."""

    def __init__(self, limits: Mapping[Path, Limit]) -> None:
        self.is_refused = Event()  #: set once a file exceeds its limit; `finish` raises the error
        self._limits = limits  # by the plain file
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)
        self._started: dict[tuple[Path, str], Future[Scan]] = {}
        self._plain: dict[Path, Path] = {}

    def __enter__(self) -> QuoteCheck:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def start(self, heads: Iterable[Head]) -> None:
        """Start to check each file that is read with quoted fields, once.

        The size of a gzip file is known only after decompression, so it is counted here.
        """
        for head in heads:
            is_packed = not head.is_parquet and head.is_compressed
            for mark in head.quoted or {_NO_MARK} if is_packed else head.quoted:
                if (head.path, mark) not in self._started:
                    task = self._pool.submit(self._scan, head.plain, mark, is_packed)
                    self._started[head.path, mark] = task
                    self._plain[head.path] = head.plain

    def _scan(self, plain: Path, mark: str, is_packed: bool) -> Scan:
        try:
            limit = self._limits.get(plain) if is_packed else None
            return scan_quotes(plain, mark or ",", self._stop, limit)
        except InputError:
            self.is_refused.set()
            raise

    def finish(self, num_lines: Mapping[Path, int]) -> list[str]:
        """Wait for the checks, and return warnings about fields with line breaks.

        Args:
            num_lines: number of the last line that was read, by file. A file with as many lines
                has none between quotes; other files are scanned once more.

        Raises:
            InputError: the quotes of a file are malformed; the message states the first such row.
        """
        warnings = []
        for (path, mark), started in self._started.items():
            plain, scan = self._plain[path], started.result()
            if mark == _NO_MARK:
                continue
            is_as_read = scan.num_lines == num_lines.get(path)
            if not scan.is_odd and (is_as_read or not has_line_break_in_quotes(plain)):
                continue
            several: list[int] = []
            if fault := find_fault(plain, mark, strict=False, several=several):
                raise InputError(f"{path}{fault}")
            if several:
                number = counted(len(several), "row has", "rows have")
                warnings.append(
                    f"{path}: {number} a line break between quotes (first: row {several[0]}); if a "
                    "quote was left open there, the next rows were taken for text"
                )
        return warnings

    def last_bytes(self) -> dict[Path, int]:
        """Return the last byte of each file that a check has read to its end, by the plain file."""
        started = self._started.items()
        found = ((self._plain[path], scan.result().last) for (path, _), scan in started)
        return {plain: last for plain, last in found if last is not None}


def scan_quotes(plain: Path, separator: str, stop: Event, limit: Limit | None = None) -> Scan:
    """Find quotes inside of fields, and count the lines of a file.

    Such quotes occur in valid files, so the caller must look closer. Compressed files are
    decompressed once more. The last byte is None if the scan has ended early, or if the file is
    compressed with zstd.

    Args:
        plain: a text file, perhaps compressed with gzip or zstd.
        separator: stands between the fields.
        stop: ends the scan early.
        limit: of a compressed file; its bytes are then counted to the end.

    Raises:
        InputError: the file is larger than the limit, or has an endless row.
    """
    if limit is None:
        return _scan_blocks(plain, _blocks(plain), separator, stop)
    blocks = _limited(_blocks(plain), limit)
    scan = _scan_blocks(plain, blocks, separator, stop)
    while not stop.is_set() and next(blocks, None) is not None:
        pass
    return scan


def _limited(blocks: Iterator[Bytes], limit: Limit) -> Iterator[Bytes]:
    """Yield blocks of a file, and check its size and its longest row."""
    total = row = 0
    for data in blocks:
        total += len(data)
        limit.check(total)
        row = 0 if _NEWLINE in data else row + len(data)
        if row > MAX_ROW:
            raise InputError(long_row(limit.path, f"before byte {total:,}"))
        yield data


def _scan_blocks(plain: Path, blocks: Iterator[Bytes], separator: str, stop: Event) -> Scan:
    edges = np.zeros(256, bool)
    edges[[ord(separator), _QUOTE, _NEWLINE, ord("\r")]] = True
    before, is_open = _NEWLINE, False  # the byte before the block; is the block within quotes?
    num_lines = 0
    for data in blocks:
        if stop.is_set():
            return Scan(False, 0, None)
        if before == _QUOTE and not is_open and not edges[data[0]]:
            return Scan(True, 0, None)  # a closing quote at the end of the last block
        num_lines += int(np.count_nonzero(data == _NEWLINE))
        quotes = np.flatnonzero(data == _QUOTE)
        opening, closing = quotes[is_open::2], quotes[not is_open :: 2]
        if len(opening) and opening[0] == 0:
            if not edges[before]:
                return Scan(True, 0, None)
            opening = opening[1:]
        if len(closing) and closing[-1] == len(data) - 1:
            closing = closing[:-1]  # the next block follows
        if not (edges[data[opening - 1]].all() and edges[data[closing + 1]].all()):
            return Scan(True, 0, None)
        before = int(data[-1])
        is_open ^= len(quotes) % 2 == 1
    num_lines += before != _NEWLINE
    return Scan(is_open, num_lines, None if _is_zstd(plain) else before)


def has_line_break_in_quotes(plain: Path) -> bool:
    """Return True if a line break follows an odd number of quotes; see `scan_quotes`."""
    is_open = False
    for data in _blocks(plain):
        marks = data[np.flatnonzero((data == _QUOTE) | (data == _NEWLINE))]
        quotes = marks == _QUOTE
        within = np.logical_xor.accumulate(quotes) ^ is_open  # is the text after a mark quoted?
        if within[~quotes].any():
            return True
        is_open = bool(within[-1]) if len(within) else is_open
    return False


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
