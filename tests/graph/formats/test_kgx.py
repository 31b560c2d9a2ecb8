"""KGX: fields are not quoted, and a negated edge is not a fact."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from layouts import FACTS, kgx

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source


def test_quotation_marks_are_characters_unless_the_header_is_quoted(tmp_path: Path) -> None:
    edges, nodes = kgx(tmp_path, FACTS)
    assert nodes is not None
    text = nodes.read_text().replace("\tdisease 1\t", '\t5"-deoxy "x\t')
    nodes.write_text(text)
    assert '5"-deoxy "x' in read_graph(Source.of(edges, nodes)).nodes["node_name"].to_list()
    table = pl.read_csv(nodes, separator="\t", quote_char=None, infer_schema=False)
    table.write_csv(nodes, separator="\t", quote_style="always")
    assert '5"-deoxy "x' in read_graph(Source.of(edges, nodes)).nodes["node_name"].to_list()


def test_rows_may_lack_their_last_fields(tmp_path: Path) -> None:
    edges, nodes = kgx(tmp_path, FACTS)
    assert nodes is not None
    reference = read_graph(Source.of(edges, nodes))
    for path in (edges, nodes):
        path.write_text(path.read_text().replace("\tinfores:x", ""))
    assert read_graph(Source.of(edges, nodes)).nodes.equals(reference.nodes)


def test_a_negated_edge_has_a_relation_of_its_own(tmp_path: Path) -> None:
    edges, nodes = kgx(tmp_path, FACTS)
    rows = edges.read_text().splitlines()
    for name, yes in (("negated", "True"), ("NEGATED ", " true "), ("negated", "1.0")):
        marks = [name, yes, "False", *("" for _ in rows[3:])]
        pairs = list(zip(rows, marks, strict=True))
        lines = [f"{row}\t{mark}\n" for row, mark in [*pairs, pairs[0]]]  # the header, repeated
        edges.write_text("".join(lines))
        graph = read_graph(Source.of(edges, nodes))
        assert "not treats" in graph.relations
        counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        assert sum(n for kind, n in counts.items() if kind.relation == "not treats") == 2
        assert graph.report.num_facts == len(FACTS)


def test_names_are_optional(tmp_path: Path) -> None:
    edges, nodes = kgx(tmp_path, FACTS)
    assert nodes is not None
    rows = [row.split("\t") for row in nodes.read_text().splitlines()]
    nodes.write_text("".join("\t".join(row[:2]) + "\n" for row in rows))
    graph = read_graph(Source.of(edges, nodes))
    assert graph.nodes["node_name"].equals(graph.nodes["node_id"].alias("node_name"))
