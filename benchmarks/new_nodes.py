"""Rank new drugs and new diseases that a trained model gets by their targets or genes only.

python benchmarks/new_nodes.py kg.csv --model graphsage --num-epochs 40

Without a path, the graph is the sample graph.

Some known drugs and diseases are taken out of the graph completely. A model is trained on the rest.
`add_facts` then brings them back, each with its edges to genes only, and every treatment between
one of them and an old node is asked for: at which rank among all drugs is the drug? For comparison,
a second model is trained on a graph that has the same nodes with the same edges from the start.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import clinical_drug_discovery as cdd

LEAST_GENES = 2
COLUMNS = ("id", "type", "name", "source")


def main() -> None:
    """Print MRR and recall of both models, for drugs and for diseases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", nargs="?")
    parser.add_argument("--model", choices=("graphsage", "hgt"), default="graphsage")
    parser.add_argument("--num-epochs", type=int, default=40)
    parser.add_argument("--number", type=int, default=60, help="of drugs, and of diseases")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    graph = cdd.sample_graph() if given.edges is None else cdd.read_graph(given.edges)
    words = graph.vocabulary
    nodes, facts = cdd.to_frames(graph)
    rows = named(nodes, facts)
    treats = as_pairs(rows.filter(pl.col("relation").is_in(list(words.treats))), words)
    new = choose(rows, treats, words, given.number, given.seed)
    about_new = pl.col("x_index").is_in(new) | pl.col("y_index").is_in(new)
    genes = (pl.col("x_type") == words.gene_type) | (pl.col("y_type") == words.gene_type)
    added = rows.filter(about_new & genes)
    rest = rows.filter(~about_new)
    print(f"{added.height} facts about {len(new)} new drugs and diseases")
    for label, table, later in (
        ("added afterwards", rest, added),
        ("trained with the same facts", pl.concat([rest, added]), None),
    ):
        model = trained(table, given.model, given.num_epochs, given.seed)
        if later is not None:
            model = model.add_facts(later.select(pl.exclude("x_index", "y_index")))
        for kind in ("drug", "disease"):
            other = "disease" if kind == "drug" else "drug"
            asked = treats.filter(pl.col(kind).is_in(new) & ~pl.col(other).is_in(new))
            report(label, kind, model, asked, nodes)


def named(nodes: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """Return the facts with the columns of kg.csv."""
    for end in "xy":
        own = nodes.select(
            pl.col("node_index").alias(f"{end}_index"),
            *(pl.col(f"node_{name}").alias(f"{end}_{name}") for name in COLUMNS),
        )
        facts = facts.join(own, on=f"{end}_index", how="left")
    return facts.with_columns(display_relation=pl.col("relation"))


def as_pairs(rows: pl.DataFrame, words: Any) -> pl.DataFrame:
    """Return the distinct pairs drug, disease of facts between the two, in either direction."""
    forward = rows.filter(pl.col("x_type") == words.drug_type)
    backward = rows.filter(pl.col("y_type") == words.drug_type)
    return pl.concat(
        [
            forward.select(drug="x_index", disease="y_index"),
            backward.select(drug="y_index", disease="x_index"),
        ]
    ).unique(maintain_order=True)


def choose(
    rows: pl.DataFrame, treats: pl.DataFrame, words: Any, number: int, seed: int
) -> list[int]:
    """Draw drugs and diseases with treatments and genes."""
    rng, chosen = np.random.default_rng(seed), []
    for kind in ("drug", "disease"):
        name, gene = getattr(words, f"{kind}_type"), words.gene_type
        with_genes = pl.concat(
            [
                rows.filter(pl.col(f"{a}_type") == name, pl.col(f"{b}_type") == gene).select(
                    node=f"{a}_index", gene=f"{b}_index"
                )
                for a, b in ("xy", "yx")
            ]
        ).unique()
        many = with_genes.group_by("node").len().filter(pl.col("len") >= LEAST_GENES)["node"]
        eligible = np.intersect1d(many.to_numpy(), treats[kind].to_numpy())
        size = min(number, len(eligible) // 4)
        chosen += rng.choice(eligible, size, replace=False).tolist()
    return chosen


def trained(rows: pl.DataFrame, model: str, num_epochs: int, seed: int) -> cdd.Model:
    """Train a model and its ranker on facts."""
    with tempfile.TemporaryDirectory() as place:
        graph = cdd.graph_from_frames(None, rows.select(pl.exclude("x_index", "y_index")))
        output = Path(place) / "e.parquet"
        if model == "graphsage":
            cdd.generate_gnn_embeddings(graph, output, num_epochs=num_epochs, seed=seed)
        else:
            cdd.generate_hgt_embeddings(graph, output, num_epochs=num_epochs, seed=seed)
        return cdd.load_model(Path(place) / "e_model")


def report(
    label: str, kind: str, model: cdd.Model, asked: pl.DataFrame, nodes: pl.DataFrame
) -> None:
    """Print at which ranks the drugs of the asked pairs are, without other drugs of the disease."""
    ids = dict(zip(nodes["node_index"], nodes["node_id"], strict=True))
    words = model.graph.vocabulary
    of_type = model.graph.nodes.filter(node_type=words.disease_type)
    present = set(of_type["node_id"])
    ranks = []
    for disease, drugs in asked.group_by("disease", maintain_order=True).agg("drug").iter_rows():
        if ids[disease] not in present:
            continue
        table = model.rank(ids[disease], top=model.graph.num_nodes)
        at = dict(zip(table["drug_id"], table["rank"], strict=True))
        wanted = sorted(at[ids[drug]] for drug in drugs if ids[drug] in at)
        ranks += [rank - i for i, rank in enumerate(wanted)]
    found = np.array(ranks, float)
    print(
        f"{label}, new {kind}s: {len(found)} pairs, MRR {np.mean(1 / found):.3f}, median rank "
        f"{np.median(found):.0f}, recall@10 {np.mean(found <= 10):.2f}, recall@50 "
        f"{np.mean(found <= 50):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
