"""What to tell the user of a file that could not be parsed: which row, and what is wrong with it.

Runs only after reading failed, so it may be slow (about 10 s for 8 million rows) but stays small: the
file is streamed again, line by line, by a parser that knows where it is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import polars as pl

_REPLACED = "\N{REPLACEMENT CHARACTER}"


def explain_unreadable(path: Path, num_rows: int, error: Exception) -> str:
    """Explain in one line why `path` could not be read.

    Args:
        path: the file.
        num_rows: rows that were read before the error.
        error: what the reader raised.

    Returns:
        A message that names the file, the rule and, where it can be known, the row.
    """
    if path.stat().st_size == 0:
        return f"{path} is empty"
    if path.name.lower().endswith(".parquet"):
        return f"{path} is no readable Parquet file: {_first_line(error)}"
    if isinstance(error, OSError):
        return (
            f"{path} is truncated or damaged after about row {num_rows + 1}: {_first_line(error)}; "
            "fetch it again"
        )
    try:
        fault = _find_fault(path)
    except (pl.exceptions.PolarsError, OSError) as second:
        fault = f": {_first_line(second)}"
    return f"{path}{fault or f' is no readable CSV file: {_first_line(error)}'}"


def _find_fault(path: Path) -> str | None:
    """The first row that breaks a rule of CSV, as the tail of a sentence; None if none is found."""
    lines = _Lines(path)
    reader = csv.reader(lines, strict=True)
    row, start, num_fields = 0, 1, 0
    try:
        for row, fields in enumerate(reader, start=1):
            if _REPLACED in lines.current and lines.undecodable():
                return f", row {row}: not valid UTF-8: {lines.current[:80]!r}"
            num_fields = num_fields or len(fields)
            if fields and len(fields) != num_fields:
                return (
                    f", row {row}: {len(fields)} fields where the header has {num_fields}: "
                    f"{lines.current[:80]!r}"
                )
            if reader.line_num == start and _has_bare_quote(lines.current):
                return f", row {row}: a quote inside a field that is not quoted: {lines.current[:80]!r}"
            start = reader.line_num + 1
    except csv.Error as error:
        return f", row {row + 1}: {error} (is a quote left open?)"
    return None


class _Lines:
    """The lines of a file of any compression, undecodable bytes replaced, remembering the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.current = ""

    def __iter__(self) -> Iterator[str]:
        # A separator that no text holds and no quoting: each line arrives whole, as one column.
        frame = pl.scan_csv(
            self.path,
            separator="\x1f",
            quote_char=None,
            has_header=False,
            infer_schema=False,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
        )
        for batch in frame.collect_batches(chunk_size=100_000, maintain_order=True):
            for line in batch.to_series(0):
                self.current = line or ""
                yield self.current + "\n"

    def undecodable(self) -> bool:
        """Whether the replacement characters of the current line are ours and not the file's own."""
        return self.path.suffix != ".csv" or not _holds(self.path, self.current)


def _holds(path: Path, line: str) -> bool:
    with path.open("rb") as file:
        return any(raw.rstrip(b"\r\n") == line.encode() for raw in file)


def _has_bare_quote(line: str) -> bool:
    """Whether a quote stands inside an unquoted field; such a line means two things to two readers."""
    outside = "".join(line.split('"')[0::2])
    return (
        line.count('"') % 2 == 1
        or any(part and not part.startswith(",") for part in line.split('"')[2::2])
        or (bool(outside) and line.count('"') > 0 and not line.split('"')[0].endswith((",", "")))
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
