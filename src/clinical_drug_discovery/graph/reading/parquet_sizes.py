"""Check the sizes that a Parquet file declares, before polars takes memory for them.

polars trusts the sizes: a damaged one asked for 2 * 10^18 bytes and ended the process. The footer
and the header of each page are small records in Thrift's compact protocol (parquet.thrift and
thrift-compact-protocol.md of the Apache projects). Only they are read, so this takes a millisecond
per thousand pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ...system.errors import InputError
from .unpacking import Limit

_MAGIC = b"PAR1"
_MAX_FOOTER = 2**27
_PAGE_HEADER = 2**16  # bytes read for the header of a page; statistics may make it long
_MAX_DEPTH = 16
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS, _SIZES = (4, 5, 6), {_BYTE: 1, _DOUBLE: 8}
#: Fields of the records by their numbers.
_SCHEMA, _ROWS, _GROUPS, _TYPE_LENGTH, _META_DATA, _FILE_PATH = 2, 3, 4, 2, 3, 1
_COLUMNS, _GROUP_ROWS = 1, 3
_VALUES, _UNPACKED, _PACKED, _OFFSETS = 5, 6, 7, (9, 11)
_PAGE_UNPACKED, _PAGE_PACKED, _DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_2 = 2, 3, 5, 7, 8
_LEVELS = (5, 6)
Record = Mapping[int, Any]


class _DamagedError(ValueError):
    """The file is not a Parquet file whose sizes agree."""


def check_parquet(path: Path, plain: Path, gib: float | None = None) -> int:
    """Check the sizes in a Parquet file, and return its number of rows.

    Args:
        path: the file that the user gave, for messages.
        plain: the file to read.
        gib: the largest size after decompression; see `Limit`.

    Raises:
        InputError: a size does not fit the file, or exceeds the limit.
    """
    size = plain.stat().st_size
    limit = Limit(path, size, gib)
    try:
        with plain.open("rb") as file:
            footer, end = _footer(file, size)
            return _check_footer(file, footer, end, limit)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, _DamagedError) else "its footer is damaged"
        raise InputError(f"{path} is not a readable Parquet file: {reason}") from error


def declared_rows(path: Path) -> int:
    """Return the number of rows that a Parquet file declares; 0 if its footer is damaged."""
    try:
        with path.open("rb") as file:
            footer, _ = _footer(file, path.stat().st_size)
        return max(int(footer[_ROWS]), 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0  # `check_parquet` will explain it


def check_all_read(path: Path, num_rows: int, declared: int) -> None:
    """Check that all rows of a Parquet file were read.

    A damaged page can end a thread of polars without an exception; the other rows are then missing.

    Args:
        path: the file that the user gave.
        num_rows: number of rows that were read.
        declared: number of rows of the file; see `check_parquet`.

    Raises:
        InputError: rows are missing.
    """
    if num_rows != declared:
        raise InputError(
            f"{path} is not a readable Parquet file: only {num_rows:,} of its {declared:,} rows "
            "can be read"
        )


def _footer(file: IO[bytes], size: int) -> tuple[Record, int]:
    """Return the record at the end of the file, and its position."""
    file.seek(max(size - 8, 0))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC:
        raise _DamagedError("it does not end as Parquet does; is it cut short?")
    _require(0 < length <= min(size - 12, _MAX_FOOTER), "the length of the footer")
    file.seek(size - 8 - length)
    return _Thrift(file.read(length)).record(), size - 8 - length


def _check_footer(file: IO[bytes], footer: Record, end: int, limit: Limit) -> int:
    for element in footer[_SCHEMA]:
        _require(0 <= element.get(_TYPE_LENGTH, 0) <= 2**16, "a length of the schema")
    total = num_rows = 0
    for group in footer.get(_GROUPS, []):
        _require(group[_GROUP_ROWS] >= 0, "a number of rows")
        num_rows += group[_GROUP_ROWS]
        for chunk in group[_COLUMNS]:
            _require(_FILE_PATH not in chunk, "a column in another file")
            column = chunk[_META_DATA]
            limit.check(column[_VALUES])
            total += _check_column(file, column, end, limit, total)
    _require(footer[_ROWS] == num_rows, "the number of rows")
    limit.check(num_rows)
    return num_rows


def _check_column(file: IO[bytes], column: Record, end: int, limit: Limit, total: int) -> int:
    """Check the pages of a column; return their size after decompression."""
    at = min(column[name] for name in _OFFSETS if column.get(name, 0) > 0)
    stop = at + column[_PACKED]
    _require(4 <= at <= stop <= end and column[_VALUES] >= 0, "the place of a column")
    _require(column[_UNPACKED] >= 0, "the size of a column")
    unpacked = num_values = 0
    while at < stop:
        file.seek(at)
        thrift = _Thrift(file.read(min(_PAGE_HEADER, stop - at)))
        page = thrift.record()
        at += thrift.at + page[_PAGE_PACKED]
        _require(page[_PAGE_PACKED] >= 0 <= page[_PAGE_UNPACKED] and at <= stop, "a page")
        unpacked += page[_PAGE_UNPACKED]
        limit.check(total + unpacked)
        dictionary = page.get(_DICTIONARY_PAGE, {1: 0})
        _require(0 <= dictionary[1] <= max(page[_PAGE_UNPACKED], 1), "a dictionary")
        data = page.get(_DATA_PAGE) or page.get(_DATA_PAGE_2) or {1: 0}
        _require(data[1] >= 0, "a number of values")
        if _DATA_PAGE_2 in page:
            levels = [data.get(name, 0) for name in _LEVELS]
            _require(min(levels) >= 0 and sum(levels) <= page[_PAGE_PACKED], "the levels")
            _require(0 <= data.get(2, 0) <= data[1] and data.get(3, 0) >= 0, "a number of rows")
        num_values += data[1]
    _require(num_values == column[_VALUES], "the number of values")
    return unpacked


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise _DamagedError(f"{what} does not fit the file")


class _Thrift:
    """Bytes in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def record(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a record by their numbers."""
        _require(depth < _MAX_DEPTH, "the nesting")
        found: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._integer()
            found[number] = self._value(kind & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._integer()
        if kind in (_LIST, _SET):
            head = self._byte()
            length = head >> 4 if head >> 4 < 15 else self._number()
            _require(length <= len(self._data) - self.at, "the length of a list")
            # In a list a truth value takes a byte; in a record its kind is the value.
            element = _BYTE if head & 15 in (_TRUE, _FALSE) else head & 15
            return [self._value(element, depth + 1) for _ in range(length)]
        if kind == _STRUCT:
            return self.record(depth + 1)
        if kind in _SIZES:
            length = _SIZES[kind]
        else:
            _require(kind == _BINARY, "a type")  # maps do not occur in Parquet
            length = self._number()
        _require(length <= len(self._data) - self.at, "the length of a text")
        self.at += length
        return None  # the contents of texts do not matter here

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            _require(shift <= 70, "a number")
            if byte < 128:
                return value

    def _integer(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)
