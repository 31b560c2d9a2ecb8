"""CPU kernels compiled before they are needed, once a machine, by a process of its own.

The compiler's memory (0.1 GiB) then belongs to that process, not to the run, whose peak is the same
the first time as later.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from clinical_drug_discovery.graph import edge_kernels
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, ReadReport, build_graph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.blocks import full_block, row_block
from clinical_drug_discovery.ops.cpu import attention as cpu_attention
from clinical_drug_discovery.ops.cpu import head_maps as cpu_heads
from clinical_drug_discovery.ops.cpu import neighbors as cpu
from clinical_drug_discovery.training.batches import induced_subgraph
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.losses import link_prediction_loss

_MODULES = (cpu, cpu_attention, cpu_heads, edge_kernels)


def prepare_kernels(say: Callable[[str], None]) -> None:
    """Compile what is not in numba's cache on disk; nothing happens when all is there.

    Args:
        say: called with a text before half a minute passes.
    """
    if all(_is_cached(kernel) for module in _MODULES for kernel in _kernels(module)):
        return
    say("Compiling the CPU kernels for this machine, once (about half a minute)")
    # Whatever fails there is compiled here when it is needed.
    subprocess.run([sys.executable, "-m", __name__], check=False, stdin=subprocess.DEVNULL)


def train_on_nothing() -> None:
    """One step of each model on three nodes, as a float32 model on a CPU takes it."""
    graph, generator = _tiny_graph(), torch.Generator().manual_seed(0)
    induced_subgraph(graph, np.arange(graph.num_nodes), np.zeros(0, np.int64))
    sampler = EdgeSampler(graph, graph.edge_type_counts, seed=0)
    for model in (
        GraphSage(graph.num_nodes, 32, 32, 2, generator),
        Hgt(graph.type_offsets, len(graph.edge_types), 32, 32, 2, 4, generator),
    ):
        batch = sampler.sample()
        z = model(full_block(graph), row_block(graph, batch.rows))
        link_prediction_loss(DistMult(1, 32, torch.Generator().manual_seed(0)), z, batch).backward()


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
    """The compiled functions that other functions of the module call in parallel."""
    found = (value for name, value in vars(module).items() if name.startswith("_"))
    return [kernel for kernel in found if getattr(kernel, "targetoptions", {}).get("parallel")]


def _is_cached(kernel: object) -> bool:
    function = kernel.py_func  # type: ignore[attr-defined]  # numba has no types
    directory = Path(kernel.stats.cache_path)  # type: ignore[attr-defined]  # as above
    file = Path(function.__code__.co_filename).stem
    return any(directory.glob(f"{file}.{function.__name__}-*.nbi"))


if __name__ == "__main__":
    train_on_nothing()
