"""The demonstration: embed the package's sample graph with both models and ask a few questions."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from clinical_drug_discovery.graph.node_lookup import find_node
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import nearest
from clinical_drug_discovery.models.embeddings_file import read_embeddings
from clinical_drug_discovery.system.errors import check_at_least

NODES = (
    "Atorvastatin",
    "Propranolol",
    "Sertraline",
    "type 2 diabetes mellitus",
    "asthma",
    "major depressive disorder",
)
RANKED = "generalized anxiety disorder"


def run_demo(
    output_dir: str | Path = "demo", *, num_epochs: int = 100, seed: int = 0, top: int = 5
) -> dict[str, Any]:
    """Embed the sample graph with both models, list what is near three drugs and diseases, rank.

    Args:
        output_dir: where to write the embeddings and the models.
        num_epochs: training steps of each model.
        seed: of the initial weights and of all sampling.
        top: neighbours to list of each node.

    Returns:
        For each model stats, as the functions of `lib` return them, and neighbors, as
        `repurpose.nearest` lists them, by node name; and ranking, the best few drugs for a disease
        with explanations, as `rank.rank_drugs` gives them.
    """
    check_at_least("top", top, 1)
    answers: dict[str, Any] = {}
    for model, generate in (
        ("graphsage", generate_gnn_embeddings),
        ("hgt", generate_hgt_embeddings),
    ):
        output = Path(output_dir) / f"{model}.parquet"
        with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as edges:
            # Not cached: its place is the installed package.
            stats = generate(edges, output, num_epochs=num_epochs, seed=seed, cache=False)
        nodes, values = read_embeddings(output)
        neighbors = {
            name: nearest(nodes, values, find_node(nodes, name), top=top) for name in NODES
        }
        ranking = rank_drugs(stats["model_dir"], disease=RANKED, top=3, explain=True)
        answers[model] = {"stats": stats, "neighbors": neighbors, "ranking": ranking}
    return answers
