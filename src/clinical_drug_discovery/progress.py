"""The progress display: milestones and bars on stderr, only warnings when it is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text


class Bar(Protocol):
    """Advances a bar by one step."""

    def __call__(self, note: str) -> None:
        """Advance, with a short note beside the bar."""


class Progress:
    """Milestone lines and one bar at a time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._visible = sys.stderr.isatty()

    def milestone(self, text: str) -> None:
        """Write one line that stays."""
        if self._visible:
            self._console.print(Text.assemble(("✓ ", "green"), text), soft_wrap=True)

    def detail(self, text: str) -> None:
        """Write one indented line below a milestone."""
        if self._visible:
            self._console.print(f"  {text}", soft_wrap=True)

    def warning(self, text: str) -> None:
        """Write a line that the user must not miss, terminal or not."""
        self._console.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs; it disappears at the end."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(
            *columns, console=self._console, transient=True, disable=not self._visible
        ) as display:
            task = display.add_task(description, total=total, note="")
            yield lambda note: display.update(task, advance=1, note=note)
