"""Shared parts of the benchmarks: a fresh process per figure, medians, and the yardstick Y."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_drug_discovery.graph.cache import read_cached
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes

if TYPE_CHECKING:
    from torch import Tensor

_LIB = "clinical_drug_discovery.lib"
#: For each model the module and the name of its public function; only tasks import the module.
MODELS = {
    "graphsage": (f"{_LIB}.gnn_embeddings", "generate_gnn_embeddings"),
    "hgt": (f"{_LIB}.gnn_hgt", "generate_hgt_embeddings"),
}


def in_fresh_process(
    script: str,
    task: str,
    *arguments: object,
    repeat: int = 1,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `script task arguments...` `repeat` times and return the medians of the printed figures.

    Each run is a fresh process, so that its peak memory belongs to the task alone. A task prints
    its figures as JSON. `variables` are added to the environment.
    """
    environment = {**os.environ, **(variables or {})}
    runs: list[dict[str, float]] = []
    for _ in range(repeat):
        command = [sys.executable, script, "--task", task, *map(str, arguments)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def cached_graph(path: str, directory: str) -> KnowledgeGraph:
    """Read the graph from a cache in `directory`, which adds little to the peak of the process."""
    return read_cached(path, cache_dir=directory)[0]


def yardstick(arguments: list[str]) -> dict[str, float]:
    """Measure Y: one torch.sparse.mm of the graph's CSR matrix with 256 float32 columns.

    The matrix has one entry per directed edge, also for parallel edges; rows are targets.
    """
    import torch

    graph = read_graph(arguments[0])
    matrix, x = csr_matrix(graph), torch.randn(graph.num_nodes, 256)
    return {"seconds": seconds_of(lambda: torch.sparse.mm(matrix, x, "sum"), repeat=6)}


def csr_matrix(graph: KnowledgeGraph) -> Tensor:
    """Return the graph's adjacency matrix by target, shape (N, N), all of weight 1."""
    import torch

    warnings.simplefilter("ignore", UserWarning)  # the CSR layout announces that it is in beta
    indptr = torch.zeros(graph.num_nodes + 1, dtype=torch.int32)
    indptr[1:] = graph.degree.cumsum(0)
    src = graph.src[graph.dst.argsort(stable=True)]
    return torch.sparse_csr_tensor(
        indptr, src, torch.ones(graph.num_edges), size=(graph.num_nodes,) * 2
    )


def seconds_of(
    work: Callable[[], object], repeat: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the median seconds of some work by a clock, without the first time."""
    seconds = []
    for _ in range(repeat + 1):
        start = clock()
        work()
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])


class _Terminal(io.StringIO):
    """Acts as a terminal, so that progress is shown; notes the peak when the training has ended."""

    peak_training: int | None = None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "Layer-wise inference" in text and self.peak_training is None:
            self.peak_training = peak_memory_bytes()
        sys.__stderr__.write(text if "warning" in text else "")  # type: ignore[union-attr]  # there is one in a script
        return len(text)


def embed(model: str, path: str, num_epochs: int, **options: Any) -> dict[str, float]:
    """Embed a graph with a model's defaults, except for `options`, without the graph's cache.

    Returns:
        Median seconds of the epochs after the first, other times, and peaks of memory.
    """
    import polars as pl

    module, function = MODELS[model]
    generate = getattr(importlib.import_module(module), function)
    terminal = _Terminal()
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(terminal):
        output = Path(directory) / "e.parquet"
        options = {"cache": False, "ranker": False, **options}
        stats = generate(path, output, num_epochs=num_epochs, **options)
        epochs = pl.read_csv(Path(stats["model_dir"]) / "history.csv")["seconds"][1:]
    if terminal.peak_training is None:
        raise RuntimeError("the progress no longer says that inference begins")
    names = (
        "num_edges", "seconds_inference", "seconds_collapse", "seconds_write",
        "predicted_memory_gib", "peak_memory_gib",
    )  # fmt: skip
    return {
        "seconds_epoch": statistics.median(epochs),
        "peak_training_gib": terminal.peak_training / GIB,
        **{name: stats[name] for name in names},
    }


@contextlib.contextmanager
def edges_file(argument: str | None, scale: float = 1.0) -> Iterator[str]:
    """Yield the path of the given graph, or of a synthetic one of PrimeKG's size."""
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
    """Run a single task if called with --task, else the whole benchmark."""
    if sys.argv[1:2] == ["--task"]:
        sys.stdout.write(json.dumps(tasks[sys.argv[2]](sys.argv[3:])) + "\n")
    else:
        main()
