"""Demonstrate both models on the sample graph, which comes with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ..graph.node_lookup import find_node
from ..models.embeddings_file import read_embeddings
from ..system.errors import check_at_least
from .gnn_embeddings import generate_gnn_embeddings
from .gnn_hgt import generate_hgt_embeddings
from .rank import rank_drugs
from .similar import nearest

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
    """Embed the sample graph with both models, list similar nodes and rank drugs for a disease.

    Args:
        output_dir: directory for the embeddings and the models.
        num_epochs: number of epochs of each model.
        seed: seed of the initial weights and of all sampling.
        top: number of similar nodes to list for each of three drugs and three diseases.

    Returns:
        One record per model. "stats" is the result of the function that trains the model.
        "neighbors" maps node names to the results of `similar.nearest`. "ranking" is the result of
        `rank.rank_drugs`: three drugs for one disease, with explanations.

    Raises:
        InputError: a parameter is invalid, or output_dir cannot be written.

    Example:
        >>> from clinical_drug_discovery.lib.demo import run_demo
        >>> answers = run_demo("demo", num_epochs=50)
        >>> [row["node_name"] for row in answers["hgt"]["neighbors"]["Atorvastatin"]]
    """
    check_at_least("top", top, 1)
    answers: dict[str, Any] = {}
    for model, generate in (
        ("graphsage", generate_gnn_embeddings),
        ("hgt", generate_hgt_embeddings),
    ):
        output = Path(output_dir) / f"{model}.parquet"
        with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as edges:
            # With cache=True, the cached graph would be written into the installed package.
            stats = generate(edges, output, num_epochs=num_epochs, seed=seed, cache=False)
        nodes, values = read_embeddings(output)
        neighbors = {
            name: nearest(nodes, values, find_node(nodes, name), top=top) for name in NODES
        }
        ranking = rank_drugs(stats["model_dir"], disease=RANKED, top=3, explain=True)
        answers[model] = {"stats": stats, "neighbors": neighbors, "ranking": ranking}
    return answers
