"""Measure the time and the memory of writing the embeddings of PrimeKG's nodes.

python benchmarks/writing.py [num_nodes embedding_dim]

Yardstick: np.save of the same array, which needs no sorting.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import in_fresh_process, run

SIZES = ("129375", "512")
TASKS = ("save", "parquet", "csv", "npy")


def write(arguments: list[str]) -> dict[str, float]:
    """Write nodes in random order, as in graphs whose numbers start again with each node type."""
    import polars as pl
    import psutil
    import torch

    from clinical_drug_discovery.models.embeddings_file import write_embeddings
    from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes

    suffix, num_nodes, dim = arguments[0], int(arguments[1]), int(arguments[2])
    values = torch.randn(num_nodes, dim, generator=torch.Generator().manual_seed(0))
    index = np.random.default_rng(0).permutation(num_nodes)
    text = [f"name, {i}" for i in index]
    names = ("node_id", "node_name", "node_type", "node_source")
    nodes = pl.DataFrame({"node_index": index, **dict.fromkeys(names, text)})
    with tempfile.TemporaryDirectory() as directory:
        held = psutil.Process().memory_info().rss
        start = time.perf_counter()
        if suffix == "save":
            np.save(Path(directory) / "e.npy", values.numpy())
        else:
            write_embeddings(Path(directory) / f"e.{suffix}", nodes, values)
        seconds = time.perf_counter() - start
    left = psutil.Process().memory_info().rss
    return {
        "seconds": seconds,
        "peak_extra_gib": (peak_memory_bytes() - held) / GIB,
        "left_gib": (left - held) / GIB,
    }


def main() -> None:
    sizes = sys.argv[1:3] or SIZES
    results = {task: in_fresh_process(__file__, "write", task, *sizes, repeat=3) for task in TASKS}
    yardstick = results.pop("save")["seconds"]
    print(f"np.save of {int(sizes[0]):,} x {sizes[1]} float32: {yardstick:.2f} s")
    for name, result in results.items():
        print(
            f"{name}: {result['seconds']:.2f} s = {result['seconds'] / yardstick:.1f} np.save, "
            f"peak extra {result['peak_extra_gib']:.2f} GiB, left {result['left_gib']:.2f} GiB"
        )


if __name__ == "__main__":
    run({"write": write}, main)
