"""The compilation of a model's CPU kernels: once per machine, in two other processes.

The compiler takes 0.1 GiB of memory. In other processes, this does not raise the peak memory of the
run, so the first run has the same peak as later runs. The compiler of a process uses one core, so
each of two processes compiles about half of the kernels, if this one may use several cores. A run
begins the compilation before it reads a large file, and waits for it before the training.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch

from ..graph.building.edges import NodeTypes, build_graph, count_facts
from ..graph.building.facts import Facts
from ..graph.knowledge_graph import KnowledgeGraph, ReadReport
from ..graph.source import Source
from ..models.kinds.table import MODELS, kind_of
from ..models.layers import DistMult
from ..ops import reference
from ..ops.backend import Backend, has_bfloat16_products
from ..ops.cpu import attention, gates, neighbors, norms
from ..ops.cpu.kernel import is_cached, take_problems, why_no_cache
from ..system.group.interface import first_here
from ..system.progress import Run
from .batches import FullBatch
from .edge_sampler import EdgeSampler
from .optimizer import ModelOptimizer
from .train import training_step

# Kernels of CPUs with AVX512_BF16 or AMX, and the kernels that other CPUs use instead.
_PAIRS, _SINGLE = {"_map_pairs", "_outer_pairs"}, {"_map", "_outer"}
# Operations whose kernels one process compiles, by module; the other process compiles the rest.
# Each takes about half of the time.
_FIRST = [
    (attention, "attend"),
    (attention, "map_heads"),
    (attention, "map_heads_backward"),
    (attention, "head_dots"),
    (neighbors, "add_neighbors"),
    (neighbors, "add_neighbors_backward"),
]
_REST = [
    (attention, "attend_backward"),
    (gates, "mix_and_normalize"),
    (gates, "mix_and_normalize_backward"),
    (norms, "normalize"),
    (norms, "normalize_backward"),
]
# Runs in another process. The folder of this package comes last: it only serves a package that was
# found through the working directory.
_SCRIPT = f"""
import sys
folder, model, share = sys.argv[1:]
sys.path.append(folder)
from {__name__} import end_with_the_run, take_problems, train_tiny_models
end_with_the_run()
train_tiny_models(model, share)
sys.stderr.write('\\n'.join(take_problems()))
"""
ALL, FIRST, REST = "all", "first", "rest"  #: shares of the kernels that a process compiles
# A file of fewer bytes may have so few edges that its graph needs no kernels.
_LEAST_BYTES = 2**20


class Compilation:
    """The processes that compile a model's kernels while this one goes on.

    They end when `wait` returns, when `end` is called, and when this process ends.
    """

    def __init__(self, model: str) -> None:
        """Start a process for each share of the kernels."""
        # -P: a file random.py in the working directory must not replace a module of Python.
        # A session of its own: Ctrl-C reaches only this process, which then ends the others.
        command = [sys.executable, "-P", "-c", _SCRIPT, str(Path(__file__).parents[2]), model]
        shares = (FIRST, REST) if torch.get_num_threads() > 1 else (ALL,)
        self._processes = [
            subprocess.Popen(
                [*command, share], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            )
            for share in shares
        ]  # fmt: skip
        self._ending = weakref.finalize(self, _end, self._processes)

    def wait(self) -> str:
        """Wait for the end of the processes; return their last words."""
        try:
            # `communicate` would close the standard input, and with it end the process.
            texts = [one.stderr.read().strip() for one in self._processes if one.stderr]
            for one in self._processes:
                one.wait()
            return "\n".join(filter(None, texts))
        finally:
            self.end()

    def end(self) -> None:
        """End the processes that still run."""
        self._ending()


def begin_compilation(run: Run, model: str, source: Source) -> Compilation | None:
    """Begin to compile a model's kernels before a large graph is read, if numba's cache lacks some.

    Returns:
        The compilation, for `compile_kernels`; None if there may be nothing to compile.
    """
    if run.device.type != "cpu" or run.group.size > 1 or source.num_bytes < _LEAST_BYTES:
        return None
    if why_no_cache() or not (missing := missing_kernels(model)) or take_problems():
        return None
    return _compile(run, model, missing)


def compile_kernels(
    run: Run, backend: Backend, model: str, begun: Compilation | None = None
) -> None:
    """Compile a model's kernels unless numba's cache on disk has them, and measure the time.

    If nothing was compiled, `run.seconds["seconds_compile"]` is 0. Otherwise it is the time that
    the run waits for the compilation.

    Args:
        run: receives the time and warnings.
        backend: of the run; it may compute without kernels.
        model: name of the model.
        begun: the result of `begin_compilation`.
    """
    run.seconds["seconds_compile"] = 0.0
    if backend.kernels:
        with first_here(run.group):
            _compile_missing(run, model, begun)
    elif begun is not None:
        begun.end()


def _compile_missing(run: Run, model: str, begun: Compilation | None) -> None:
    if begun is None:
        begun = _begin_missing(run, model)
    if begun is None:
        return
    with run.timed("compile"):
        said = begun.wait()
    if missing := missing_kernels(model):
        why = (said or "numba's cache directory may be read-only").splitlines()[-1]
        run.warn(
            f"{len(missing)} CPU kernels are not in numba's cache ({why}), so this run and later "
            "runs compile them during the training, which takes 0.1 GiB of memory"
        )


def _begin_missing(run: Run, model: str) -> Compilation | None:
    """Begin to compile what numba's cache lacks, and say why if it cannot keep kernels."""
    if why := why_no_cache():
        run.warn(
            f"this run compiles the CPU kernels during the training, and cannot keep them: {why}"
        )
        return None
    missing = missing_kernels(model)
    if problems := take_problems():
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        run.warn(f"{problems[0]}{more}: compiled again")
    if not missing:
        return None
    return _compile(run, model, missing)


def _compile(run: Run, model: str, missing: list[str]) -> Compilation:
    """Start the compilation, and say so."""
    run.progress.milestone(
        f"Compiling {len(missing)} CPU kernels, once on this machine; later runs reuse them"
    )
    return Compilation(model)


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


def end_with_the_run() -> None:
    """End this process when the run that has started it ends, even if it was killed.

    The run never writes to the standard input of this process, and the system closes it.
    """

    def wait_for_the_run() -> None:
        os.read(0, 1)  # sys.stdin has a lock, which the end of this process would wait for
        os._exit(1)

    threading.Thread(target=wait_for_the_run, daemon=True).start()


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for one in processes:
        one.kill()
        one.wait()
        for stream in (one.stdin, one.stderr):
            if stream is not None:
                stream.close()


def _tiny_graph() -> KnowledgeGraph:
    names = ["a", "b", "c"]
    nodes = pl.DataFrame(
        {"node_index": [0, 1, 2], "node_id": names, "node_type": ["x", "x", "y"],
         "node_name": names, "node_source": names}
    )  # fmt: skip
    report = ReadReport(2, 0, 0, 2, 0, 0, 0)
    src, relation, dst = np.array([0, 1]), np.array([0, 0]), np.array([2, 2])
    types, facts = NodeTypes.of(nodes), Facts.of(src, relation, dst, len(nodes))
    return build_graph(nodes, types, facts, count_facts(facts, types), ("r",), report)


def _kernels(module: object) -> list[Any]:
    """Return the numba kernels of a module that run in parallel and that this CPU uses."""
    unused = _SINGLE if has_bfloat16_products() else _PAIRS
    found = (v for name, v in vars(module).items() if name.startswith("_") and name not in unused)
    return [kernel for kernel in found if getattr(kernel, "targetoptions", {}).get("parallel")]
