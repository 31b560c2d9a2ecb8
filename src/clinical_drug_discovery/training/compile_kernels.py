"""The compilation of the CPU kernels: once per machine, in a separate process.

The compiler takes 0.1 GiB of memory. In a separate process, this does not raise the peak memory of
the run, so the first run has the same peak as later runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch

from ..graph.build import build_graph
from ..graph.knowledge_graph import KnowledgeGraph, ReadReport
from ..models.kinds.table import MODELS, kind_of
from ..models.layers import DistMult
from ..ops.backend import Backend, has_bfloat16_products
from ..ops.cpu import attention as cpu_attention
from ..ops.cpu import head_maps as cpu_heads
from ..ops.cpu import neighbors as cpu
from ..ops.cpu.kernel import is_cached, take_problems, why_no_cache
from ..system.progress import Run
from .batches import FullBatch
from .edge_sampler import EdgeSampler
from .optimizer import ModelOptimizer
from .train import training_step

_MODULES = (cpu, cpu_attention, cpu_heads)
# Kernels of CPUs with AVX512_BF16 or AMX, and the kernels that other CPUs use instead.
_PAIRS, _SINGLE = {"_map_pairs", "_outer_pairs"}, {"_map", "_outer"}
# Runs in the other process. The folder of this package comes last: it only serves a package that
# was found through the working directory.
_SCRIPT = f"""
import sys
sys.path.append(sys.argv[1])
from {__name__} import take_problems, train_tiny_models
train_tiny_models()
sys.stderr.write('\\n'.join(take_problems()))
"""


def compile_kernels(run: Run, backend: Backend) -> None:
    """Compile all kernels unless numba's cache on disk has them all, and measure the time.

    If nothing was compiled, `run.seconds["seconds_compile"]` is 0.
    """
    run.seconds["seconds_compile"] = 0.0
    if not backend.kernels:
        return
    if why := why_no_cache():
        run.warn(
            f"this run compiles the CPU kernels during the training, and cannot keep them: {why}"
        )
        return
    missing = missing_kernels()
    if problems := take_problems():
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        run.warn(f"{problems[0]}{more}: compiled again")
    if not missing:
        return
    run.progress.milestone(
        "Compiling the CPU kernels: 40 to 80 seconds of one CPU core, once on this machine; "
        "later runs reuse them"
    )
    with run.timed("compile"):
        # -P: a file random.py in the working directory must not replace a module of Python.
        # A session of its own: Ctrl-C reaches only this process, which then ends the other one.
        done = subprocess.run(
            [sys.executable, "-P", "-c", _SCRIPT, str(Path(__file__).parents[2])],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    if missing := missing_kernels():
        why = (done.stderr.strip() or "numba's cache directory may be read-only").splitlines()[-1]
        run.warn(
            f"{len(missing)} CPU kernels are not in numba's cache ({why}), so this run and later "
            "runs compile them during the training, which takes 0.1 GiB of memory"
        )


def missing_kernels() -> list[str]:
    """Return the names of the kernels for this CPU that numba's cache does not hold."""
    return [
        kernel.py_func.__name__
        for module in _MODULES
        for kernel in _kernels(module)
        if not is_cached(kernel)
    ]


def train_tiny_models() -> None:
    """Compile all kernels by training each model for one step on a graph with three nodes."""
    graph, generator = _tiny_graph(), torch.Generator().manual_seed(0)
    sampler = EdgeSampler(graph, graph.edge_type_counts, seed=0)
    batches = FullBatch(graph, Backend(graph.device, kernels=True))
    for kind in map(kind_of, MODELS):
        if kind.tiny is None:
            continue
        settings = SimpleNamespace(**kind.tiny)
        model = kind.make(graph.type_offsets, len(graph.edge_types), settings, generator)
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


def _kernels(module: object) -> list[Any]:
    """Return the numba kernels of a module that run in parallel and that this CPU uses."""
    unused = _SINGLE if has_bfloat16_products() else _PAIRS
    found = (v for name, v in vars(module).items() if name.startswith("_") and name not in unused)
    return [kernel for kernel in found if getattr(kernel, "targetoptions", {}).get("parallel")]
