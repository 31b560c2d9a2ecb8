"""The console, and tables of results."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

_LABEL = 19  # width of the labels of evidence
_NARROW = 20  # least width of a wrapped text


def make_console() -> Console:
    """Return a console on stdout that prints names such as [phosphorylase] unchanged.

    It wraps lines on a terminal, but not in a pipe or a file.
    """
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
    table = Table(show_header=False, box=None)
    for name, value in result.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {short(item)}" for key, item in value.items())
        table.add_row(name, short(value))
    make_console().print(table)


def make_table(columns: Sequence[str]) -> Table:
    """Return an empty table that breaks long words instead of cutting them."""
    table, numeric = Table(box=None), ("rank", "cosine", "score", "probability")
    for column in columns:
        # "fold" breaks a long word where others would end it with an ellipsis.
        justify: Literal["left", "right"] = "right" if column in numeric else "left"
        table.add_column(column, justify=justify, overflow="fold")
    return table


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
    """Print a text behind its label; further lines start at the column of the text."""
    width = max(console.width - _LABEL - 2, _NARROW)
    for line in Text(text).wrap(console, width):
        console.print(f"{label:>{_LABEL}}  {line.plain.rstrip()}", style=style, soft_wrap=True)
        label = ""
