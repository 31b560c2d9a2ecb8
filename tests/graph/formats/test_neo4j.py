"""Neo4j's two kinds of CSV: columns by their marks, labels in lists."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from graphs import to_triples
from layouts import FACTS, apoc, neo4j_admin

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.system.errors import InputError


def test_id_spaces_and_an_id_without_a_name(tmp_path: Path) -> None:
    edges, nodes = neo4j_admin(tmp_path, FACTS)
    assert nodes is not None
    reference = read_graph(Source.of(edges, nodes))
    edges.write_text(edges.read_text().replace("_ID,", "_ID(Things),"))
    nodes.write_text(nodes.read_text().replace("id:ID,name:string", ":ID(Things),name", 1))
    assert to_triples(read_graph(Source.of(edges, nodes))) == to_triples(reference)


def test_a_header_without_a_type_is_refused(tmp_path: Path) -> None:
    edges, nodes = neo4j_admin(tmp_path, FACTS)
    edges.write_text(edges.read_text().replace(":TYPE", "kind", 1))
    with pytest.raises(InputError, match=r"rels\.csv: the header lacks a column :TYPE; it has"):
        read_graph(Source.of(edges, nodes))


def test_apoc_without_own_ids_uses_those_of_the_database(tmp_path: Path) -> None:
    path, _ = apoc(tmp_path, FACTS)
    text = path.read_text()
    path.write_text(text.replace("identifier", "comment", 1))
    graph = read_graph(path)
    assert sorted(map(int, graph.nodes["node_id"])) == list(range(graph.num_nodes))
    assert graph.report.num_facts == len(FACTS)


def test_apoc_nodes_without_their_own_id_are_counted(tmp_path: Path) -> None:
    path, _ = apoc(tmp_path, FACTS)
    table = pl.read_csv(path, infer_schema=False)
    some = pl.int_range(pl.len()) < 2
    table.with_columns(
        pl.when(some).then(pl.lit("")).otherwise("identifier").alias("identifier")
    ).write_csv(path)
    (warning,) = read_graph(path).report.warnings
    assert "2 nodes lack the property identifier or id" in warning


def test_rows_of_an_apoc_file_are_numbered_as_in_an_editor(tmp_path: Path) -> None:
    path, _ = apoc(tmp_path, FACTS)
    rows = path.read_text().splitlines()
    fields = rows[-1].split(",")
    fields[-3] = "99"
    path.write_text("\n".join([*rows[:-1], ",".join(fields), ""]))
    with pytest.raises(InputError, match=rf"row {len(rows)}\b.*does not have a row in all\.csv"):
        read_graph(path)
