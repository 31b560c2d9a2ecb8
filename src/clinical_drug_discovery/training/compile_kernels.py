"""The compilation of the CPU kernels: once per machine, in a separate process.

The compiler takes 0.1 GiB of memory. In a separate process, this does not raise the peak memory of
the run, so the first run has the same peak as later runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ..graph.build import build_graph
from ..graph.knowledge_graph import KnowledgeGraph, ReadReport
from ..models.hgt import Hgt
from ..models.layers import DistMult
from ..models.sage import GraphSage
from ..ops.backend import Backend
from ..ops.cpu import attention as cpu_attention
from ..ops.cpu import head_maps as cpu_heads
from ..ops.cpu import neighbors as cpu
from ..system.progress import Run
from .batches import FullBatch
from .edge_sampler import EdgeSampler
from .optimizer import ModelOptimizer
from .train import training_step

_MODULES = (cpu, cpu_attention, cpu_heads)


def compile_kernels(run: Run, backend: Backend) -> None:
    """Compile all kernels unless numba's cache on disk has them all, and measure the time.

    If nothing was compiled, `run.seconds["seconds_compile"]` is 0.
    """
    run.seconds["seconds_compile"] = 0.0
    if not backend.kernels:
        return
    if all(_is_cached(kernel) for module in _MODULES for kernel in _kernels(module)):
        return
    run.progress.milestone(
        "Compiling the CPU kernels (about half a minute, once per machine; later runs reuse them)"
    )
    with run.timed("compile"):
        # If this process fails, each kernel is compiled in the run itself at its first call.
        subprocess.run([sys.executable, "-m", __name__], check=False, stdin=subprocess.DEVNULL)


def train_tiny_models() -> None:
    """Compile all kernels by training each model for one step on a graph with three nodes."""
    graph, generator = _tiny_graph(), torch.Generator().manual_seed(0)
    sampler = EdgeSampler(graph, graph.edge_type_counts, seed=0)
    batches = FullBatch(graph, Backend(graph.device, kernels=True))
    for model in (
        GraphSage(graph.num_nodes, 32, 32, 2, generator),
        Hgt(graph.type_offsets, len(graph.edge_types), 32, 32, 2, 4, generator),
    ):
        decoder = DistMult(1, 32, generator)
        optimizer = ModelOptimizer(model, decoder, 0.01, 1, lazy=False)
        training_step(model, decoder, optimizer, batches.next(sampler.sample()))


def _tiny_graph() -> KnowledgeGraph:
    names = ["a", "b", "c"]
    nodes = pl.DataFrame(
        {"node_index": [0, 1, 2], "node_id": names, "node_type": ["x", "x", "y"],
         "node_name": names, "node_source": names}
    )  # fmt: skip
    report = ReadReport(2, 0, 0, 2, 0, 0, 0)
    src, relation, dst = np.array([0, 1]), np.array([0, 0]), np.array([2, 2])
    return build_graph(nodes, src, relation, dst, ("r",), report)


def _kernels(module: object) -> list[object]:
    """Return the numba kernels of a module that run in parallel."""
    found = (value for name, value in vars(module).items() if name.startswith("_"))
    return [kernel for kernel in found if getattr(kernel, "targetoptions", {}).get("parallel")]


def _is_cached(kernel: object) -> bool:
    function = kernel.py_func  # type: ignore[attr-defined]  # numba has no types
    directory = Path(kernel.stats.cache_path)  # type: ignore[attr-defined]  # as above
    file = Path(function.__code__.co_filename).stem
    return any(directory.glob(f"{file}.{function.__name__}-*.nbi"))


if __name__ == "__main__":
    train_tiny_models()
