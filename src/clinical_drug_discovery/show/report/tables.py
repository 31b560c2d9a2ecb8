"""Tables of a report, for the page and for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Interval(NamedTuple):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


class Share(float):
    """A fraction that a page shows as a percentage."""


Cell = str | int | float | bool | Interval | None


@dataclass(frozen=True)
class Table:
    """A table with a title."""

    name: str  #: short, for the sheet of a spreadsheet
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""  #: text below the title
    marked: int | None = None  #: number of a row that the reader should see first

    def flat(self) -> Table:
        """Return the table with three columns for each column of intervals."""
        wide = [
            any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))
        ]
        columns = [
            name
            for column, is_wide in zip(self.columns, wide, strict=True)
            for name in ((column, f"{column}_low", f"{column}_high") if is_wide else (column,))
        ]
        rows = [tuple(_flat(row, wide)) for row in self.rows]
        return Table(self.name, self.title, tuple(columns), tuple(rows), self.note)


def _flat(row: Sequence[Cell], wide: Sequence[bool]) -> Iterator[Cell]:
    for cell, is_wide in zip(row, wide, strict=True):
        if isinstance(cell, Interval):
            yield from cell
        elif is_wide:
            yield from (cell, None, None)
        else:
            yield cell
