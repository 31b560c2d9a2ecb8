"""Two Kedro nodes in a pipeline: train a model, then rank drugs with it.

    pip install kedro
    python examples/kedro_node.py

In a Kedro project, the functions are the same, and the inputs come from catalog.yml.
"""

from __future__ import annotations

import polars as pl
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner

import clinical_drug_discovery as cdd


def embed(graph: cdd.KnowledgeGraph, num_epochs: int) -> str:
    """Train GraphSAGE, and return the model directory."""
    stats = cdd.generate_gnn_embeddings(
        graph, "graphsage.parquet", num_epochs=num_epochs, overwrite=True
    )
    return str(stats["model_dir"])


def rank(model_dir: str, diseases: list[str]) -> pl.DataFrame:
    """Rank the drugs for some diseases."""
    return cdd.load_model(model_dir).rank_many(diseases, top=5)


train = node(embed, ["graph", "num_epochs"], "model_dir")
ask = node(rank, ["model_dir", "diseases"], "ranking")
inputs = {"graph": cdd.sample_graph(), "num_epochs": 10, "diseases": ["asthma", "psoriasis"]}
catalog = DataCatalog({k: MemoryDataset(v, copy_mode="assign") for k, v in inputs.items()})
outputs = SequentialRunner().run(pipeline([train, ask]), catalog)
print(outputs["ranking"].load().select("disease_name", "rank", "drug_name"))
