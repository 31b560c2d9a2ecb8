"""The console, and tables of results.

rich is imported when something is shown: an answer as JSON does not need it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LABEL = 19  # width of the labels of evidence
_NARROW = 30  # least width of a text behind its label


def make_console() -> Console:
    """Return a console on stdout that prints names such as [phosphorylase] unchanged.

    It wraps lines on a terminal, but not in a pipe or a file.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, highlight=False, width=width)


def program() -> str:
    """Return the command that starts this program, as it can be typed in the current directory."""
    started = Path(sys.argv[0])
    if started.stem not in ("cdd", "clinical-drug-discovery"):  # started from Python
        started = Path(sys.executable).with_name("cdd")
    found = shutil.which(started.stem)
    if not started.is_file() or (found and Path(found).resolve() == started.resolve()):
        return started.stem
    relative = os.path.relpath(started)
    return shlex.quote(str(started.absolute()) if relative.startswith("..") else relative)


def show_record(result: dict[str, Any]) -> None:
    """Print a record as a table of names and values."""
    table = make_table(show_header=False)
    for name, value in result.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {short(item)}" for key, item in value.items())
        table.add_row(name, short(value))
    make_console().print(table)


def make_table(columns: Sequence[str] = (), *, show_header: bool = True) -> Table:
    """Return an empty table whose columns break long words instead of cutting them."""
    from rich.table import Table

    table = Table(box=None, show_header=show_header)
    for column in columns:
        # "fold" breaks a long word where others would end it with an ellipsis.
        table.add_column(column, justify=_justify(column), overflow="fold")
    return table


def fitted_table(
    console: Console,
    rows: Sequence[tuple[Mapping[str, str], str | None]],
    *,
    name: str,
    below: Sequence[str],
    spare: Sequence[str],
) -> tuple[Table, list[str]]:
    """Return a table that keeps to the width of a console, with one line of header.

    Names and long texts wrap at words. If that is not enough, the columns `below` move to lines of
    their own below the name, and then the columns `spare` are left out, one after the other.

    Args:
        console: provides the width.
        rows: the cells of each row by column, and its style.
        name: the column that wraps.
        below: columns with short texts, or "yes" for what the column says.
        spare: columns that the reader misses least, the first one first.

    Returns:
        The table, and the columns that it leaves out.
    """
    columns = list(rows[0][0])
    moved: list[str] = []
    left_out: list[str] = []
    for column in (*below, *spare):
        if _needed(columns, rows, (name, *below)) <= console.width:
            break
        if column in columns:
            columns.remove(column)
            (moved if column in below else left_out).append(column)
    table = make_table()
    for column in columns:
        wraps = column in (name, *below)
        table.add_column(column, justify=_justify(column), overflow="fold", no_wrap=not wraps)
    for cells, style in rows:
        notes = [column if cells[column] == "yes" else cells[column] for column in moved]
        whole = "\n  ".join([cells[name], *filter(None, notes)])
        table.add_row(*(whole if c == name else cells[c] for c in columns), style=style)
    return table, left_out


def _needed(
    columns: Sequence[str], rows: Sequence[tuple[Mapping[str, str], Any]], wrapping: Sequence[str]
) -> int:
    """Return the least width of a table: each column has a blank on both sides."""
    from rich.cells import cell_len

    total = 0
    for column in columns:
        texts = [cells[column] for cells, _ in rows]
        if column in wrapping:
            texts = [word for text in texts for word in text.split()]
        total += max(map(cell_len, (column, *texts))) + 2
    return total


def _justify(column: str) -> Literal["left", "right"]:
    return "right" if column in ("rank", "cosine", "score", "probability") else "left"


def yes(value: bool | None) -> str:
    """Return "yes", or nothing."""
    return "yes" if value else ""


def short(value: Any) -> str:
    """Return a value as a text in which floating-point numbers have four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(short(item) for item in value)
    return str(value)


def print_labelled(console: Console, label: str, text: str, style: str | None = None) -> None:
    """Print a text behind its label; further lines start at the column of the text.

    On a narrow terminal, the label has a line of its own.
    """
    from rich.text import Text

    width = console.width - _LABEL - 2
    indent = _LABEL
    if width < _NARROW:
        if label:
            console.print(f"{label}:", soft_wrap=True)
        label, indent, width = "", 0, console.width - 2
    for line in Text(text).wrap(console, max(width, 1)):
        console.print(f"{label:>{indent}}  {line.plain.rstrip()}", style=style, soft_wrap=True)
        label = ""
