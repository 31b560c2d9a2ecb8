"""What every benchmark needs: a fresh process per figure, medians, and the yardstick Y."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
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


def yardstick(arguments: list[str]) -> dict[str, float]:
    """Y: one torch.sparse.mm of the graph's CSR matrix with 256 float32 columns."""
    import torch

    from clinical_drug_discovery.tables import read_graph

    warnings.simplefilter("ignore", UserWarning)  # the CSR layout announces that it is in beta
    graph = read_graph(arguments[0])
    matrix = torch.sparse_csr_tensor(
        graph.indptr.int(), graph.src, torch.ones(graph.num_edges), size=(graph.num_nodes,) * 2
    )
    x = torch.randn(graph.num_nodes, 256)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        torch.sparse.mm(matrix, x, "sum")
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:])}


def embed(generate: Callable[..., dict[str, Any]], path: str, num_epochs: int) -> dict[str, float]:
    """Embed a graph at the model's defaults; median seconds of the epochs after the first."""
    import polars as pl

    with tempfile.TemporaryDirectory() as directory:
        stats = generate(path, Path(directory) / "e.parquet", num_epochs=num_epochs)
        epochs = pl.read_csv(Path(stats["model_dir"]) / "history.csv")["seconds"][1:]
    names = ("seconds_inference", "seconds_write", "predicted_memory_gib", "peak_memory_gib")
    return {"seconds_epoch": statistics.median(epochs), **{name: stats[name] for name in names}}


def report_embedding(script: str) -> None:
    """Run the tasks "yardstick" and "embed" of a benchmark and print their figures."""
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        y = in_fresh_process(script, "yardstick", path)["seconds"]
        figures = in_fresh_process(script, "embed", path)
    print(f"Y: {y:.2f} s")
    for name in ("seconds_epoch", "seconds_inference", "seconds_write"):
        print(f"{name}: {figures[name]:.2f} s = {figures[name] / y:.1f} Y")
    print(
        f"peak_memory_gib: {figures['peak_memory_gib']:.2f} "
        f"(predicted {figures['predicted_memory_gib']:.2f})"
    )


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
