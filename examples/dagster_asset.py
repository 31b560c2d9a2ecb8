"""Two Dagster assets: the embeddings of a graph, and a ranking of drugs that needs them.

    pip install dagster
    python examples/dagster_asset.py

In a Dagster project, `defs` is all that the project loads.
"""

import dagster as dg
import polars as pl

import clinical_drug_discovery as cdd


@dg.asset
def embeddings(context: dg.AssetExecutionContext) -> str:
    """Train GraphSAGE, and return the model directory."""
    stats = cdd.generate_gnn_embeddings(
        cdd.sample_graph(), "graphsage.parquet", num_epochs=10, overwrite=True
    )
    context.add_output_metadata({"nodes": stats["num_nodes"], "gib": stats["peak_memory_gib"]})
    return str(stats["model_dir"])


@dg.asset
def ranking(embeddings: str) -> pl.DataFrame:
    """Rank the drugs for two diseases."""
    return cdd.load_model(embeddings).rank_many(["asthma", "psoriasis"], top=5)


defs = dg.Definitions([embeddings, ranking])

if __name__ == "__main__":
    result = dg.materialize([embeddings, ranking])
    print(result.output_for_node("ranking").select("disease_name", "rank", "drug_name"))
