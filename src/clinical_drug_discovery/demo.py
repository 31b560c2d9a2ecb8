"""The demonstration: embed the sample graph of the package and ask it a few questions."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.outputs import read_embeddings
from clinical_drug_discovery.repurpose import find_node, nearest

NODES = (
    "Atorvastatin",
    "Propranolol",
    "Sertraline",
    "type 2 diabetes mellitus",
    "asthma",
    "major depressive disorder",
)


def run_demo(
    output_dir: str | Path = "demo", *, num_epochs: int = 100, seed: int = 0, top: int = 5
) -> dict[str, Any]:
    """Embed the sample graph and list the neighbours of three drugs and three diseases.

    Args:
        output_dir: where to write the embeddings and the model.
        num_epochs: training steps.
        seed: of the initial weights and of all sampling.
        top: neighbours to list of each node.

    Returns:
        stats, as `lib.gnn_embeddings` returns them, and neighbors, as `repurpose.nearest` lists
        them, by node name.
    """
    output = Path(output_dir) / "graphsage.parquet"
    with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as edges:
        stats = generate_gnn_embeddings(edges, output, num_epochs=num_epochs, seed=seed)
    nodes, values = read_embeddings(output)
    neighbors = {name: nearest(nodes, values, find_node(nodes, name), top=top) for name in NODES}
    return {"stats": stats, "neighbors": neighbors}
