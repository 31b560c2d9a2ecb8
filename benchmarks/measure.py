"""What every benchmark needs: a fresh process per figure, medians, and the yardstick Y."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinical_drug_discovery.synthetic import synthesize_graph


def in_fresh_process(script: str, task: str, *arguments: object, repeat: int = 1) -> dict[str, Any]:
    """Run `script task arguments...` `repeat` times; medians of all figures that it prints as JSON.

    A fresh process each time, so that a peak of memory belongs to what is measured.
    """
    runs: list[dict[str, float]] = []
    for _ in range(repeat):
        command = [sys.executable, script, "--task", task, *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


@contextmanager
def edges_file(argument: str | None, scale: float = 1.0) -> Iterator[str]:
    """The graph to measure on: the file that is named, or a synthetic one of PrimeKG's size."""
    if argument is not None:
        yield argument
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kg.csv"
        synthesize_graph(path, scale=scale)
        yield str(path)


def run(
    tasks: dict[str, Callable[[list[str]], dict[str, float]]], main: Callable[[], None]
) -> None:
    """Entry point of a benchmark: a task when called with --task, else the whole benchmark."""
    if sys.argv[1:2] == ["--task"]:
        sys.stdout.write(json.dumps(tasks[sys.argv[2]](sys.argv[3:])) + "\n")
    else:
        main()
