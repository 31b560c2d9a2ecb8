"""Demonstrate all models on the sample graph, which comes with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ..graph.node_lookup import find_node
from ..models.kinds.table import MODELS
from ..models.read_embeddings import read_embeddings
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.files import atomic_path, check_writable
from ..system.processes import alone
from .embed_model import embed_model
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
#: File by which a demo recognizes a directory that a demo has made, so that it may replace it.
MARK = "made_by_cdd_demo.txt"


@plain_arguments
@alone()
def run_demo(
    output_dir: str | Path = "demo", *, num_epochs: int = 30, seed: int = 0, top: int = 5
) -> dict[str, Any]:
    """Embed the sample graph with each model, list similar nodes and rank drugs for a disease.

    Args:
        output_dir: directory for the embeddings and the models; new, empty or of an earlier demo.
        num_epochs: number of epochs of each model.
        seed: seed of the initial weights and of all sampling.
        top: number of similar nodes to list for each of three drugs and three diseases.

    Returns:
        One record per model. "stats" is the result of the function that trains the model.
        "neighbors" maps node names to the results of `similar.nearest`. "ranking" is the result of
        `rank.rank_drugs`: three drugs for one disease, with explanations.

    Raises:
        InputError: a parameter is invalid, or output_dir cannot be written or has other files.

    Example:
        >>> from clinical_drug_discovery.lib.demo import run_demo
        >>> answers = run_demo("demo", num_epochs=50)
        >>> [row["node_name"] for row in answers["hgt"]["neighbors"]["Atorvastatin"]]
    """
    directory = Path(output_dir)
    check_writable("output_dir", directory)
    _mark(directory)
    answers: dict[str, Any] = {}
    for model in MODELS:
        output = directory / f"{model}.parquet"
        with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as edges:
            # The sample graph is read in milliseconds, so a cached copy would only take space.
            stats = embed_model(
                model, edges, output, model_settings={"num_epochs": num_epochs}, seed=seed,
                cache=False, overwrite=True,
            )  # fmt: skip
        nodes, values = read_embeddings(output)
        neighbors = {
            name: nearest(nodes, values, find_node(nodes, name), top=top) for name in NODES
        }
        ranking = rank_drugs(stats["model_dir"], disease=RANKED, top=3, explain=True)
        answers[model] = {"stats": stats, "neighbors": neighbors, "ranking": ranking}
    return answers


def _mark(directory: Path) -> None:
    """Mark a new or empty directory as made by a demo, before a stopped demo can leave files.

    Raises:
        InputError: the directory has files and no mark: the demo would replace files of others.
    """
    mark = directory / MARK
    if mark.is_file():
        return
    if directory.is_dir() and any(directory.iterdir()):
        raise InputError(
            f"output_dir (got {directory}) must be new, empty or made by cdd demo (with the file "
            f"{MARK}): the demo would replace files in it"
        )
    with atomic_path(mark) as path:
        path.write_text(
            "cdd demo made this directory and replaces its files when it runs again.\n"
            "Remove this file to prevent that.\n",
            encoding="utf-8",
        )
