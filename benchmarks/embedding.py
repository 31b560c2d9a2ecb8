"""Measure an epoch of a model, the embedding of all nodes, and the memory of both.

python benchmarks/embedding.py graphsage|hgt [kg.csv]   (without a file: a synthetic graph of
PrimeKG's size)

Prints seconds and their ratio to Y, one torch.sparse.mm of the graph's CSR matrix with 256 float32
columns, measured in the same run: machines differ and are noisy, ratios travel. Both models at
their defaults. The peak of training is that of the process from its start, reading included, to the
last epoch; that of inference is what embedding alone adds to a process that holds the graph.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from measure import MODELS, cached_graph, edges_file, embed, in_fresh_process, run, yardstick

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.inference import LayeredModel, embed_all
from clinical_drug_discovery.ops.backend import choose_backend
from clinical_drug_discovery.system.machine import (
    GIB,
    empty_cache,
    peak_memory_bytes,
    return_large_buffers,
)

NUM_EPOCHS = 8
HIDDEN_DIM, EMBEDDING_DIM = 256, 512


def embed_graph(arguments: list[str]) -> dict[str, float]:
    model, path = arguments
    return embed(model, path, NUM_EPOCHS)


def random_model(name: str, graph: KnowledgeGraph) -> LayeredModel[Any]:
    from clinical_drug_discovery.models.hgt import Hgt
    from clinical_drug_discovery.models.sage import GraphSage

    generator = torch.Generator().manual_seed(0)
    if name == "graphsage":
        return GraphSage(graph.num_nodes, HIDDEN_DIM, EMBEDDING_DIM, 3, generator)
    kinds = len(graph.edge_types)
    return Hgt(graph.type_offsets, kinds, HIDDEN_DIM, EMBEDDING_DIM, 2, 8, generator)


def infer(arguments: list[str]) -> dict[str, float]:
    """Embed with random weights: peak of the process beside what it held once it had the graph."""
    import psutil

    from clinical_drug_discovery.training.memory_plan import CHUNK_SIZES

    name, path, directory = arguments
    return_large_buffers()
    graph = cached_graph(path, directory)
    empty_cache(graph.device)
    held = psutil.Process().memory_info().rss
    model = random_model(name, graph)
    before = peak_memory_bytes()
    embed_all(model, graph, CHUNK_SIZES[0], choose_backend(graph.device, graph.num_edges))
    peak = peak_memory_bytes()
    if peak <= before:
        raise RuntimeError("the peak was reached before inference and says nothing of it")
    return {"peak_inference_gib": (peak - held) / GIB, "held_gib": held / GIB}


def main() -> None:
    if sys.argv[1:2] not in ([name] for name in MODELS):
        sys.exit(__doc__)
    model = sys.argv[1]
    with edges_file(sys.argv[2] if sys.argv[2:] else None) as path:
        y = in_fresh_process(__file__, "yardstick", path)["seconds"]
        figures = in_fresh_process(__file__, "embed", model, path)
        with tempfile.TemporaryDirectory() as directory:
            cached_graph(path, directory)
            figures |= in_fresh_process(__file__, "infer", model, path, directory)
    print(f"Y: {y:.2f} s")
    for name in ("seconds_epoch", "seconds_inference", "seconds_collapse", "seconds_write"):
        print(f"{name}: {figures[name]:.2f} s = {figures[name] / y:.1f} Y")
    print(
        f"peak_memory_gib: {figures['peak_memory_gib']:.2f} "
        f"(predicted {figures['predicted_memory_gib']:.2f}), "
        f"until the last epoch {figures['peak_training_gib']:.2f}"
    )
    print(
        f"peak_inference_gib: {figures['peak_inference_gib']:.2f} "
        f"beside the {figures['held_gib']:.2f} of the process with the graph"
    )


if __name__ == "__main__":
    run({"yardstick": yardstick, "embed": embed_graph, "infer": infer}, main)
