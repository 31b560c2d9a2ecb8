"""The first lines of a file, by which a format recognizes it."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

_SEPARATORS = (",", "\t", ";", "|")
_NAMES = {",": "", "\t": ", separated by tabs", ";": ", separated by ;", "|": ", separated by |"}
_LINES, _BYTES = 20, 2**16
PARQUET_MAGIC, GZIP_MAGIC, ZSTD_MAGIC = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = "\ufeff"


@dataclass(frozen=True)
class Head:
    """The first lines of a file.

    Attributes:
        path: the file that the user gave; messages name it.
        plain: the file to read: the same file, or its decompressed and decoded copy.
        is_parquet: True for Parquet. `lines` is then empty.
        lines: the first 20 lines, without line ends; a file may have fewer lines.
        quoted: the separators with which `scan` has read quoted fields; the engine then checks the
            quotes of the file.
        table: the rows, if they are in memory instead of a file. `path` is then a name for
            messages, and `is_parquet` is True, because the columns have types and row 1 is a row.
    """

    path: Path
    plain: Path
    is_parquet: bool
    lines: tuple[str, ...] = ()
    quoted: set[str] = field(default_factory=set, compare=False)
    table: pl.DataFrame | None = field(default=None, compare=False)

    @cached_property
    def separator(self) -> str:
        """The separator that divides the first line into most fields; "," if several do."""
        return max(_SEPARATORS, key=lambda mark: len(self.rows(mark)[0]) if self.lines else 0)

    @cached_property
    def is_compressed(self) -> bool:
        """True if polars decompresses the file while it reads."""
        with self.plain.open("rb") as file:
            return file.read(4).startswith((GZIP_MAGIC, ZSTD_MAGIC))

    @property
    def is_json(self) -> bool:
        """True if the first line starts with a brace, as JSON does."""
        return bool(self.lines) and self.lines[0].lstrip()[:1] == "{"

    @property
    def separator_note(self) -> str:
        """Text for the log, such as ", separated by tabs"; empty for commas and Parquet."""
        return "" if self.is_parquet else _NAMES[self.separator]

    def rows(self, separator: str | None = None) -> list[list[str]]:
        """Return the fields of each line, for `separator` or the recognized separator."""
        mark = self.separator if separator is None else separator
        return [_fields(line, mark) for line in self.lines]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The column names: the fields of the first line, or the columns of a Parquet file."""
        if self.is_parquet:
            return tuple(self._typed_rows().collect_schema().names())
        return tuple(self.rows()[0]) if self.lines else ()

    @property
    def is_blank(self) -> pl.Expr:
        """True for a blank line; to be selected from `scan`.

        The expression uses all columns, so polars parses them all. Only then does polars check the
        number of fields in each row; an unquoted comma is then an error and does not shift fields.
        """
        return pl.lit(False) if self.is_parquet else pl.all_horizontal(pl.all().is_null())

    def scan(
        self, *, has_header: bool = True, separator: str | None = None, quoted: bool = True
    ) -> pl.LazyFrame:
        """Return all rows as a lazy frame, in the order of the file; columns of text are strings.

        All columns are read as text: an id is a name even if it looks like a number. Without a
        header, the columns are column_1, column_2 and so on, as many as in the first line. If
        `quoted` is False, a quotation mark is a character like any other.
        """
        if self.is_parquet:
            frame = self._typed_rows()
            floats = [n for n, kind in frame.collect_schema().items() if kind.is_float()]
            # pandas makes floats of a column of whole numbers with missing values, which are NaN.
            return frame.with_columns(pl.col(floats).fill_nan(None)) if floats else frame
        mark = self.separator if separator is None else separator
        if quoted:
            self.quoted.add(mark)
        names = [f"column_{i}" for i in range(1, len(self.columns) + 1)]
        return pl.scan_csv(
            self.plain,
            separator=mark,
            has_header=has_header,
            quote_char='"' if quoted else None,
            # Without a header, polars would take the number of columns from any of the first rows.
            schema=None if has_header else dict.fromkeys(names, pl.String),
            infer_schema=False,
            glob=False,
        )

    def _typed_rows(self) -> pl.LazyFrame:
        if self.table is not None:
            return self.table.lazy()
        return pl.scan_parquet(self.plain, glob=False)


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # no text, or too long a field
        return line.split(separator)


def read_head(path: Path, plain: Path) -> Head:
    """Read the first lines of a file.

    Args:
        path: the file that the user gave.
        plain: the file to read; see `plain_file`.

    Raises:
        OSError, EOFError, PolarsError: the file cannot be read.
    """
    with plain.open("rb") as file:
        first = file.read(_BYTES)
    if first.startswith(PARQUET_MAGIC):
        return Head(path, plain, True, ())
    if first.startswith(ZSTD_MAGIC):  # Python cannot decompress it, polars can
        lines = [line.removeprefix(_BOM) for line in text_lines(plain, _LINES)]
        return Head(path, plain, False, tuple(lines))
    if first.startswith(GZIP_MAGIC):
        with gzip.open(plain) as file:
            first = file.read(_BYTES)
    text = first.decode("utf-8", errors="replace").removeprefix(_BOM)
    lines = text.split("\n")
    if len(first) == _BYTES:
        lines = lines[:-1] or lines  # the last line may be cut
    elif lines and not lines[-1]:
        lines = lines[:-1]
    return Head(path, plain, False, tuple(line.removesuffix("\r") for line in lines[:_LINES]))


def text_lines(path: Path, most: int | None = None) -> Iterator[str]:
    """Yield the lines of a file, or the first `most`; bytes that are not UTF-8 are replaced.

    The file may be compressed with gzip or zstd.
    """
    # No text contains the separator, and quoting is off, so each line is read as one column.
    frame = pl.scan_csv(
        path,
        separator="\x1f",
        quote_char=None,
        has_header=False,
        infer_schema=False,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        n_rows=most,
        glob=False,
    )
    for batch in frame.collect_batches(chunk_size=100_000, maintain_order=True):
        for line in batch.to_series(0):
            yield line or ""
