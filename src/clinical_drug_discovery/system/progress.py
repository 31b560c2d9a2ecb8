"""The progress of a run: its milestones, parts, times and warnings, and its growing history."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import disk, log
from .group.interface import ALONE, Group

if TYPE_CHECKING:
    import torch  # not imported at run time: the first line comes before torch is loaded

    from .machine import PeakMemory

#: Part of a run, as in `Run.timed`: its text in the log.
PARTS = {
    "read": "Reading the graph",
    "split": "Holding out pairs and facts",
    "compile": "Compiling the CPU kernels",
    "train": "Preparing the training",
    "inference": "Embedding all nodes",
    "collapse": "Checking the embeddings for collapse",
    "relations": "Measuring link prediction",
    "rank_fit": "Fitting the drug ranker",
    "probe": "Probing the embeddings",
    "write": "Writing the results",
}


class Progress:
    """Shows the milestones and warnings of a run, and its current part; see `log`."""

    def milestone(self, text: str) -> None:
        """Write one line about what the run has reached."""
        log.milestone(text)

    def detail(self, text: str) -> None:
        """Write one indented line below a milestone."""
        log.detail(text)

    def warning(self, text: str) -> None:
        """Write a warning."""
        log.warning(text)

    @contextmanager
    def bar(
        self, description: str, total: int, unit: str = "step", before: int = 0
    ) -> Iterator[Callable[..., None]]:
        """Show a part with some steps; yield a function that counts one step, with a note.

        Args:
            description: name of the part.
            total: number of steps.
            unit: name of a step.
            before: number of steps that an earlier run has done.
        """
        with log.part(description, total, unit, before=before) as advance:
            yield advance


class HistoryFile:
    """The file history.csv of a run while the model is trained: a row per epoch."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._columns: list[str] = []
        self._is_complete = False

    @contextmanager
    def growing(self, directory: Path) -> Iterator[None]:
        """Let the file grow in the directory of a run within the `with` block.

        If the block fails and the directory holds nothing else, such as a checkpoint, the file is
        removed, and so are the directories that were made for it.
        """
        path = self._path = directory / "history.csv"
        self._columns = []
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            yield
        except BaseException:
            with suppress(OSError):
                if not self._is_complete and os.listdir(directory) == [path.name]:
                    path.unlink()
                for made in missing:  # stops at the first that is missing or holds other files
                    made.rmdir()
            raise
        finally:
            self._path = None

    def complete(self) -> None:
        """Keep the file even if the `with` block fails: it belongs to a complete run."""
        self._is_complete = True

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one row; the first record sets the columns. Does nothing outside of `growing`.

        The row is written in one piece, so a reader never sees a part of it. If the disk is full or
        the directory was deleted, a warning says so, and the training goes on: the whole history is
        written again at the end.
        """
        if self._path is None:
            return
        try:
            if not self._columns:
                disk.make_directory(self._path.parent)
                disk.remove(self._path)
                self._columns = list(record)
                self._write(self._columns)
            self._write([record.get(name) for name in self._columns])
        except OSError as error:
            log.warning(f"{self._path} does not grow any more: {error.strerror or error}")
            self._path = None

    def _write(self, values: list[Any]) -> None:
        assert self._path is not None
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        disk.append(self._path, text.getvalue().encode())


@dataclass(frozen=True)
class Run:
    """The files and the device of one run, and the timings and warnings so far."""

    edges: tuple[Path, ...]  #: the files of the graph
    output: Path
    model_dir: Path
    device: torch.device
    learning_rate: float
    peak: PeakMemory
    progress: Progress = field(default_factory=Progress)
    seconds: dict[str, float] = field(default_factory=dict)  #: time by name `seconds_<part>`
    warnings: list[str] = field(default_factory=list)
    #: SHA-256 of the files of the graph, once they are read; empty for the standard input
    edges_sha256: list[str | None] = field(default_factory=list)
    history: HistoryFile = field(default_factory=HistoryFile)
    group: Group = ALONE  #: the processes that train together

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure and show the time that the `with` block takes, as a part of the run."""
        start = time.perf_counter()
        with log.part(PARTS.get(name, name)):
            yield
        self.seconds[f"seconds_{name}"] = time.perf_counter() - start

    def warn(self, text: str) -> None:
        """Show a warning now, and store it for the stats."""
        self.warnings.append(text)
        self.progress.warning(text)
