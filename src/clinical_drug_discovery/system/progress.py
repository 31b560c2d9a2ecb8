"""Progress of a run: milestones and bars on stderr, timings and warnings.

When stderr is not a terminal, only warnings are shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rich.progress
import torch
from rich.console import Console
from rich.text import Text

from .machine import PeakMemory


class Progress:
    """Writes milestone lines, and shows one bar at a time."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._visible = sys.stderr.isatty()

    def milestone(self, text: str) -> None:
        """Write one line that stays on the screen."""
        if self._visible:
            self._console.print(Text.assemble(("✓ ", "green"), text), soft_wrap=True)

    def detail(self, text: str) -> None:
        """Write one indented line below a milestone."""
        if self._visible:
            self._console.print(f"  {text}", soft_wrap=True)

    def warning(self, text: str) -> None:
        """Write a warning, even if stderr is not a terminal."""
        self._console.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Callable[[str], None]]:
        """Show a bar in the `with` block; yield a function that advances it and shows a note."""
        columns = (
            rich.progress.TextColumn("  {task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
        )
        with rich.progress.Progress(
            *columns, console=self._console, transient=True, disable=not self._visible
        ) as display:
            task = display.add_task(description, total=total, note="")
            yield lambda note: display.update(task, advance=1, note=note)


@dataclass(frozen=True)
class Run:
    """The files and the device of one run, and the timings and warnings so far."""

    edges: Path
    output: Path
    model_dir: Path
    device: torch.device
    learning_rate: float
    peak: PeakMemory
    progress: Progress = field(default_factory=Progress)
    seconds: dict[str, float] = field(default_factory=dict)  #: time by name `seconds_<part>`
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measure the time that the `with` block takes, as a part of the run."""
        start = time.perf_counter()
        yield
        self.seconds[f"seconds_{part}"] = time.perf_counter() - start

    def warn(self, text: str) -> None:
        """Show a warning now, and store it for the stats."""
        self.warnings.append(text)
        self.progress.warning(text)
