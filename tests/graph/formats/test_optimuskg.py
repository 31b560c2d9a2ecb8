"""OptimusKG: properties as JSON text, as a struct, or left out."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from layouts import FACTS, optimuskg

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source


def test_properties_may_be_a_struct_or_missing(tmp_path: Path) -> None:
    edges, nodes = optimuskg(tmp_path, FACTS)
    assert nodes is not None
    reference = read_graph(Source.of(edges, nodes))
    table = pl.read_parquet(nodes)
    symbols = pl.Struct({"symbol": pl.String, "name": pl.String})
    table.with_columns(pl.col("properties").str.json_decode(symbols)).write_parquet(nodes)
    assert read_graph(Source.of(edges, nodes)).nodes.equals(reference.nodes)
    table.drop("properties").write_parquet(nodes)
    graph = read_graph(Source.of(edges, nodes))
    assert graph.nodes["node_name"].equals(graph.nodes["node_id"].alias("node_name"))


def test_sources_are_the_prefixes_of_ids(tmp_path: Path) -> None:
    ids = {"MONDO_0005148": "DIS", "HP_0001250": "PHE", "ENSG00000141510": "GEN", "CHEMBL25": "DRG"}
    pl.DataFrame(
        {"id": list(ids), "label": list(ids.values()), "properties": ['{"name": null}'] * 4}
    ).write_parquet(tmp_path / "nodes.parquet")
    pl.DataFrame(
        {
            "from": ["CHEMBL25", "MONDO_0005148", "MONDO_0005148"],
            "to": ["MONDO_0005148", "ENSG00000141510", "HP_0001250"],
            "label": ["DRG-DIS", "DIS-GEN", "DIS-PHE"],
            "relation": ["INDICATION", "ASSOCIATED_WITH", "PHENOTYPE_PRESENT"],
            "undirected": [False, True, False],
            "properties": [None, None, "{}"],
        }
    ).write_parquet(tmp_path / "edges.parquet")
    graph = read_graph(tmp_path)
    assert dict(graph.nodes.select("node_id", "node_source").iter_rows()) == {
        "MONDO_0005148": "MONDO", "HP_0001250": "HP", "ENSG00000141510": "", "CHEMBL25": "",
    }  # fmt: skip
