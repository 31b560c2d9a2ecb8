"""A report as a spreadsheet (.xlsx) or as one table (.csv)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import polars as pl

from ...api.optional import optional_package
from ...models.embeddings_file import without_formulas
from .tables import Cell, Table

_WIDTHS = (8, 60)  # least and most characters of a column
_SHEET_NAME, _CELL = 31, 32_767  # characters of a name and of a cell that a spreadsheet allows
_HARMFUL = "contraindicated"  #: rows that are true in this column are red


def to_csv(table: Table) -> bytes:
    """Return a table as CSV whose texts a spreadsheet does not compute."""
    return _frame(table).write_csv().encode()


def to_xlsx(tables: Sequence[Table], date: str) -> bytes:
    """Return tables as a spreadsheet, one sheet each.

    Texts that start like a formula get an apostrophe, as in CSV: the sheet may be saved as CSV.

    Args:
        tables: each with another name.
        date: the date of the report, in ISO 8601; the same tables and date give the same bytes.

    Raises:
        ImportError: the package XlsxWriter is not installed.
    """
    xlsxwriter = optional_package("xlsxwriter", install="XlsxWriter")
    file = BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    workbook = xlsxwriter.Workbook(file, options)
    workbook.set_properties({"created": datetime.fromisoformat(date)})
    bold, red = (
        workbook.add_format(f)
        for f in ({"bold": True, "bottom": 1, "text_wrap": True}, {"font_color": "#B3261E"})
    )
    for table in tables:
        _write_sheet(workbook, table, bold, red)
    workbook.close()
    return file.getvalue()


def _write_sheet(workbook: Any, table: Table, bold: Any, red: Any) -> None:
    frame = _frame(table)
    sheet = workbook.add_worksheet(table.name[:_SHEET_NAME])
    sheet.freeze_panes(1, 0)
    for i, column in enumerate(frame.columns):
        values = frame[column].to_list()
        longest = max((len(str(value)) for value in (column, *values)), default=0)
        sheet.set_column(i, i, min(max(longest, _WIDTHS[0]), _WIDTHS[1]))
        sheet.write_string(0, i, column, bold)
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        style = red if row.get(_HARMFUL) is True else None
        for i, value in enumerate(row.values()):
            _write_cell(sheet, number, i, value, style)
    if frame.height:
        sheet.autofilter(0, 0, frame.height, frame.width - 1)


def _write_cell(sheet: Any, row: int, column: int, value: Cell, style: Any) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value, style)
    elif isinstance(value, int | float):
        sheet.write_number(row, column, value, style)
    elif value is not None:
        text = str(value)
        cut = text if len(text) <= _CELL else f"{text[: _CELL - 3]}..."
        sheet.write_string(row, column, cut, style)


def _frame(table: Table) -> pl.DataFrame:
    flat = table.flat()
    columns = {
        name: pl.Series([row[i] for row in flat.rows], strict=False)
        for i, name in enumerate(flat.columns)
    }
    return without_formulas(pl.DataFrame(columns))
