"""Explain why a file could not be parsed: find the first invalid row and the rule that it breaks.

This runs only after reading has failed. It reads the file again, line by line, with a parser that
counts rows, which takes about 15 s for 8 million rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from ..system.errors import counted
from .formats.head import Head, text_lines

_REPLACED = "\N{REPLACEMENT CHARACTER}"


def explain_unreadable(
    path: Path, heads: Sequence[Head], num_rows: int, error: BaseException
) -> str:
    """Return one line that explains why `error` stopped the reading after `num_rows` rows.

    The line states the file, the rule and, if the row can be found, the row. Any of the files of
    `heads` may be at fault; `path` is the file that was read, or whose nodes were read.
    """
    heads = sorted(heads, key=lambda head: head.path != path)
    plain = heads[0].plain
    if plain.stat().st_size == 0:
        return f"{path} is empty"
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    if is_parquet(plain):
        return f"{path} is not a readable Parquet file: {reason}"
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: permission denied"
    if isinstance(error, pl.exceptions.NoDataError):
        return f"{path} is empty"
    if isinstance(error, OSError):
        where = f"somewhere after row {num_rows}"
        return f"{path} is truncated or damaged {where}: {reason}; download it again"
    for head in heads:
        if not head.is_parquet and (fault := find_fault(head.plain, head.separator)):
            return f"{head.path}{fault}"
    return f"{path} is not a readable CSV file: {reason}"


def is_parquet(plain: Path) -> bool:
    """Return True if a file starts as Parquet does."""
    with plain.open("rb") as file:
        return file.read(4) == b"PAR1"


def find_fault(
    path: Path, separator: str, *, strict: bool = True, several: list[int] | None = None
) -> str | None:
    """Return text about the first invalid CSV row, to follow the path; None if none is found.

    Without `strict`, text must be valid, and quotes in a field without quotes around it are fine.
    The numbers of rows of several lines are added to `several`.
    """
    latest, num_fields, row, num_lines = "", 0, 0, 0

    def remembered() -> Iterator[str]:
        nonlocal latest
        for latest in text_lines(path):
            yield latest + "\n"

    reader = csv.reader(remembered(), strict=True, delimiter=separator)
    well_formed = _well_formed(separator, strict)
    several = [] if several is None else several
    try:
        for row, fields in enumerate(reader, start=1):
            num_fields = num_fields or len(fields)
            fault = None
            one_line, num_lines = reader.line_num == num_lines + 1, reader.line_num
            several += [] if one_line else [row]
            if strict and _REPLACED in latest:
                fault = "not valid UTF-8"
            elif fields and len(fields) != num_fields:
                fault = f"{counted(len(fields), 'field')}, but the header has {num_fields}"
            elif one_line and not well_formed.fullmatch(latest):
                fault = "a quote inside a field must be doubled, and the field quoted"
            if fault:
                return f", row {row}: {fault}: {latest[:80]!r}"
    except csv.Error as error:
        return f", row {row + 1}: {error} ({_hint(latest)}): {latest[:80]!r}"
    except (pl.exceptions.PolarsError, OSError):
        return None  # the lines cannot be read either
    return None


def _well_formed(separator: str, strict: bool) -> re.Pattern[str]:
    """Return a pattern of lines whose quotes are well-formed; see `find_fault`."""
    mark = re.escape(separator)
    bare = rf'[^"{mark}]*' if strict else rf'([^"{mark}][^{mark}]*)?'
    field = rf'({bare}|"([^"]|"")*")'
    return re.compile(f"{field}({mark}{field})*")


def _hint(line: str) -> str:
    if '\\"' in line:
        return "a quote must be escaped by another quote, not by a backslash"
    return "is a quote left open?"
