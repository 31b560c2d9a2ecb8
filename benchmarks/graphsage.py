"""What does an epoch of GraphSAGE cost, the embedding of all nodes, and how much memory?

python benchmarks/graphsage.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

Prints seconds and their ratio to Y, one torch.sparse.mm of the graph's CSR matrix with 256 float32
columns, measured in the same run: machines differ and are noisy, ratios travel.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

from measure import edges_file, in_fresh_process, run

NUM_EPOCHS = 8


def yardstick(arguments: list[str]) -> dict[str, float]:
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


def embed(arguments: list[str]) -> dict[str, float]:
    import polars as pl

    from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings

    with tempfile.TemporaryDirectory() as directory:
        stats = generate_gnn_embeddings(
            arguments[0], Path(directory) / "e.parquet", num_epochs=NUM_EPOCHS
        )
        epochs = pl.read_csv(Path(stats["model_dir"]) / "history.csv")["seconds"][1:]
    names = ("seconds_inference", "seconds_write", "predicted_memory_gib", "peak_memory_gib")
    return {"seconds_epoch": statistics.median(epochs), **{name: stats[name] for name in names}}


def main() -> None:
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        y = in_fresh_process(__file__, "yardstick", path)["seconds"]
        figures = in_fresh_process(__file__, "embed", path)
    print(f"Y: {y:.2f} s")
    for name in ("seconds_epoch", "seconds_inference", "seconds_write"):
        print(f"{name}: {figures[name]:.2f} s = {figures[name] / y:.1f} Y")
    print(
        f"peak_memory_gib: {figures['peak_memory_gib']:.2f} "
        f"(predicted {figures['predicted_memory_gib']:.2f})"
    )


if __name__ == "__main__":
    run({"yardstick": yardstick, "embed": embed}, main)
