"""Measure the path of Macs and GPUs, also against the memory of a Mac of 8 GB.

python benchmarks/device_path.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

Runs on the CPU what GPUs would be asked for (the torch backend), both models at their
defaults, with what Metal recommends on a Mac of 8 GB as the budget. Prints the predicted and the
measured peak of the whole process, seconds as ratios to Y (see embedding.py) and, of one epoch, how
many operations the device would be asked for: kernel launches, but for those that an operation
splits into. against_pyg.py compares the same path with PyTorch Geometric's layers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import MODELS, edges_file, embed, in_fresh_process, run, yardstick

BUDGET = "5.33GB"
NUM_EPOCHS = 2


def embed_graph(arguments: list[str]) -> dict[str, float]:
    from clinical_drug_discovery.ops import backend

    model, path = arguments
    backend.MIN_KERNEL_EDGES = sys.maxsize
    return embed(model, path, NUM_EPOCHS, memory_budget=BUDGET)


def launches(arguments: list[str]) -> dict[str, float]:
    """Operations of one epoch, forward, backward and optimizer, that are more than views."""
    import numpy as np
    import torch

    from clinical_drug_discovery.graph.read import read_graph
    from clinical_drug_discovery.models.hgt import Hgt
    from clinical_drug_discovery.models.layers import DistMult
    from clinical_drug_discovery.models.sage import GraphSage
    from clinical_drug_discovery.ops.backend import Backend
    from clinical_drug_discovery.ops.blocks import full_block, row_block
    from clinical_drug_discovery.training.edge_sampler import EdgeSampler, divide_equally
    from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
    from clinical_drug_discovery.training.optimizer import Adam

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from mps.witnesses import Operations

    name, path = arguments
    graph, generator = read_graph(path), torch.Generator().manual_seed(0)
    counts = graph.edge_type_counts
    model: GraphSage | Hgt
    if name == "graphsage":
        model = GraphSage(graph.num_nodes, 256, 512, 3, generator)
        sizes = divide_equally(counts, 10_000)
    else:
        model = Hgt(graph.type_offsets, len(graph.edge_types), 256, 512, 2, 8, generator)
        sizes = np.minimum(counts, 1_000).tolist()
    decoder = DistMult(len(graph.relations), 512, torch.Generator().manual_seed(0))
    torch_backend = Backend(graph.device, kernels=False)
    optimizer = Adam([*model.parameters(), *decoder.parameters()], 0.001)
    batch = EdgeSampler(graph, sizes, 0).sample()
    hidden = full_block(graph, torch_backend)
    target = row_block(graph, batch.rows, torch_backend)
    with Operations() as seen:
        link_prediction_loss(decoder, model(hidden, target), batch).backward()
        optimizer.step()
    shapes = max(len(found) for found in seen.shapes.values())
    return {"launches": seen.num_launches, "shapes": shapes, "largest": seen.largest}


def main() -> None:
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        y = in_fresh_process(__file__, "yardstick", path)["seconds"]
        print(f"Y: {y:.2f} s, memory_budget {BUDGET}")
        for model in MODELS:
            figures = in_fresh_process(__file__, "embed", model, path)
            asked = in_fresh_process(__file__, "launches", model, path)
            print(
                f"{model}: peak {figures['peak_memory_gib']:.2f} GiB, predicted "
                f"{figures['predicted_memory_gib']:.2f}; epoch {figures['seconds_epoch']:.1f} s = "
                f"{figures['seconds_epoch'] / y:.0f} Y, inference "
                f"{figures['seconds_inference']:.1f} s = {figures['seconds_inference'] / y:.0f} Y; "
                f"{asked['launches']:,} launches an epoch, at most {asked['shapes']} shapes of an "
                f"operation, largest tensor {asked['largest'] / 1e6:.0f} million numbers",
                flush=True,
            )


if __name__ == "__main__":
    run({"yardstick": yardstick, "embed": embed_graph, "launches": launches}, main)
