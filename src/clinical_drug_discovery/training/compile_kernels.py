"""The compilation of a model's CPU kernels: once per machine, in two other processes.

The compiler takes 0.1 GiB of memory. In other processes, this does not raise the peak memory of the
run, so the first run has the same peak as later runs. The compiler of a process uses one core, so
each of two processes compiles about half of the kernels, if this one may use several cores.
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
from ..ops import reference
from ..ops.backend import Backend, has_bfloat16_products
from ..ops.cpu import attention, neighbors
from ..ops.cpu.kernel import is_cached, take_problems, why_no_cache
from ..system.group.interface import first_here
from ..system.progress import Run
from .batches import FullBatch
from .edge_sampler import EdgeSampler
from .optimizer import ModelOptimizer
from .train import training_step

# Kernels of CPUs with AVX512_BF16 or AMX, and the kernels that other CPUs use instead.
_PAIRS, _SINGLE = {"_map_pairs", "_outer_pairs"}, {"_map", "_outer"}
# Operations whose kernels one process compiles, by module; the other process compiles the rest. On
# HGT, each takes about half of the time.
_FIRST = [
    (attention, "attend"),
    (attention, "map_heads"),
    (attention, "map_heads_backward"),
    (neighbors, "add_neighbors"),
]
_REST = [(attention, "attend_backward"), (neighbors, "add_neighbors_backward")]
# Runs in another process. The folder of this package comes last: it only serves a package that was
# found through the working directory.
_SCRIPT = f"""
import sys
folder, model, share = sys.argv[1:]
sys.path.append(folder)
from {__name__} import take_problems, train_tiny_models
train_tiny_models(model, share)
sys.stderr.write('\\n'.join(take_problems()))
"""
ALL, FIRST, REST = "all", "first", "rest"  #: shares of the kernels that a process compiles


def compile_kernels(run: Run, backend: Backend, model: str) -> None:
    """Compile a model's kernels unless numba's cache on disk has them, and measure the time.

    If nothing was compiled, `run.seconds["seconds_compile"]` is 0.
    """
    run.seconds["seconds_compile"] = 0.0
    if backend.kernels:
        with first_here(run.group):
            _compile_missing(run, model)


def _compile_missing(run: Run, model: str) -> None:
    if why := why_no_cache():
        run.warn(
            f"this run compiles the CPU kernels during the training, and cannot keep them: {why}"
        )
        return
    missing = missing_kernels(model)
    if problems := take_problems():
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        run.warn(f"{problems[0]}{more}: compiled again")
    if not missing:
        return
    run.progress.milestone(
        f"Compiling {len(missing)} CPU kernels, once on this machine; later runs reuse them"
    )
    with run.timed("compile"):
        said = _compile(model, (FIRST, REST) if torch.get_num_threads() > 1 else (ALL,))
    if missing := missing_kernels(model):
        why = (said or "numba's cache directory may be read-only").splitlines()[-1]
        run.warn(
            f"{len(missing)} CPU kernels are not in numba's cache ({why}), so this run and later "
            "runs compile them during the training, which takes 0.1 GiB of memory"
        )


def missing_kernels(model: str) -> list[str]:
    """Return the names of a model's kernels for this CPU that numba's cache does not hold."""
    return [
        kernel.py_func.__name__
        for name in _trained(model)
        for module in kind_of(name).kernels
        for kernel in _kernels(module)
        if not is_cached(kernel)
    ]


def train_tiny_models(model: str, share: str = ALL) -> None:
    """Compile a model's kernels by training it for one step on a graph with three nodes.

    Args:
        model: name of the model. A model without kernels of its own compiles those of all others.
        share: `ALL`, or the kernels of one of two processes: `FIRST` or `REST`. torch, which
            compiles nothing, then computes the operations of the other process.
    """
    for module, name in {FIRST: _REST, REST: _FIRST}.get(share, []):
        setattr(module, name, getattr(reference, name))
    graph, generator = _tiny_graph(), torch.Generator().manual_seed(0)
    sampler = EdgeSampler(graph, graph.edge_type_counts, seed=0)
    batches = FullBatch(graph, Backend(graph.device, kernels=True))
    for kind in map(kind_of, _trained(model)):
        settings = SimpleNamespace(**(kind.tiny or {}))
        tiny = kind.make(graph.type_offsets, len(graph.edge_types), settings, generator)
        decoder = DistMult(1, 32, generator)
        optimizer = ModelOptimizer(tiny, decoder, 0.01, 1, lazy=False)
        training_step(tiny, decoder, optimizer, batches.next(sampler.sample()))


def _trained(model: str) -> list[str]:
    """Return the models whose training compiles the kernels of a model."""
    if model in MODELS and kind_of(model).tiny is not None:
        return [model]
    return [name for name in MODELS if kind_of(name).tiny is not None]


def _compile(model: str, shares: tuple[str, ...]) -> str:
    """Compile each share of a model's kernels in a process; return their last words."""
    # -P: a file random.py in the working directory must not replace a module of Python.
    # A session of its own: Ctrl-C reaches only this process, which then ends the others.
    command = [sys.executable, "-P", "-c", _SCRIPT, str(Path(__file__).parents[2]), model]
    processes = [
        subprocess.Popen(
            [*command, share], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )
        for share in shares
    ]  # fmt: skip
    try:
        return "\n".join(said for one in processes if (said := one.communicate()[1].strip()))
    finally:
        for one in processes:
            one.kill()
            one.wait()


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
