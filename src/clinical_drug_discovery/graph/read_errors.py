"""Explain why a file could not be parsed: the row at fault and the rule that it breaks.

This runs only after reading has failed, so it may be slow: about 15 s for 8 million rows. It
streams the file again, line by line, through a parser that counts rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

_REPLACED = "\N{REPLACEMENT CHARACTER}"
_WELL_FORMED = re.compile(r'([^",]*|"([^"]|"")*")(,([^",]*|"([^"]|"")*"))*')


def explain_unreadable(path: Path, num_rows: int, error: Exception) -> str:
    """Explain in one line why `error` stopped the reading of `path` after `num_rows` rows.

    The message names the file, the rule and, if it can be found, the row.
    """
    if path.stat().st_size == 0:
        return f"{path} is empty"
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    if path.name.lower().endswith(".parquet"):
        return f"{path} is not a readable Parquet file: {reason}"
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: permission denied"
    if isinstance(error, pl.exceptions.NoDataError):
        return f"{path} is empty"
    if isinstance(error, OSError):
        where = f"somewhere after row {num_rows}"
        return f"{path} is truncated or damaged {where}: {reason}; download it again"
    return f"{path}{_find_fault(path) or f' is not a readable CSV file: {reason}'}"


def _find_fault(path: Path) -> str | None:
    """Describe the first row that breaks a rule of CSV, as the end of a sentence."""
    latest, num_fields, row = "", 0, 0

    def remembered() -> Iterator[str]:
        nonlocal latest
        for latest in _lines(path):
            yield latest + "\n"

    reader = csv.reader(remembered(), strict=True)
    try:
        for row, fields in enumerate(reader, start=1):
            num_fields = num_fields or len(fields)
            fault = None
            if _REPLACED in latest:
                fault = "not valid UTF-8"
            elif fields and len(fields) != num_fields:
                fault = f"{len(fields)} fields, but the header has {num_fields}"
            elif reader.line_num == row and not _WELL_FORMED.fullmatch(latest):
                fault = "a quote inside an unquoted field"
            if fault:
                return f", row {row}: {fault}: {latest[:80]!r}"
    except csv.Error as error:
        return f", row {row + 1}: {error} (is a quote left open?)"
    except (pl.exceptions.PolarsError, OSError):
        return None  # not even its lines can be read
    return None


def _lines(path: Path) -> Iterator[str]:
    """Stream the lines of a file, decompressed, with undecodable bytes replaced."""
    # With a separator that no text contains and without quoting, a line is one column.
    frame = pl.scan_csv(
        path,
        separator="\x1f",
        quote_char=None,
        has_header=False,
        infer_schema=False,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        glob=False,
    )
    for batch in frame.collect_batches(chunk_size=100_000, maintain_order=True):
        for line in batch.to_series(0):
            yield line or ""
