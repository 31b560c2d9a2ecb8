"""Triples: with and without a header, in any order of columns; types from the prefix of the id."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import to_triples
from layouts import FACTS, lines

from clinical_drug_discovery.graph.read import read_graph

ROWS = [(f"{x.type}::{x.id}", r, f"{y.type}::{y.id}") for x, r, y in FACTS]


@pytest.mark.parametrize(
    ("header", "order", "separator"),
    [
        (("head", "relation", "tail"), (0, 1, 2), "\t"),
        (("head", "tail", "relation"), (0, 2, 1), ","),
        (("subject", "predicate", "object"), (0, 1, 2), "\t"),
        (("source", "target", "relation"), (0, 2, 1), ";"),
        (("h", "r", "t"), (0, 1, 2), "|"),
        (None, (0, 1, 2), ","),
    ],
)
def test_headers_orders_and_separators(
    tmp_path: Path, header: tuple[str, ...] | None, order: tuple[int, ...], separator: str
) -> None:
    reference = read_graph(lines(tmp_path / "drkg.tsv", ROWS, "\t"))
    rows = [tuple(row[i] for i in order) for row in ROWS]
    path = lines(tmp_path / "kg.txt", rows if header is None else [header, *rows], separator)
    assert to_triples(read_graph(path)) == to_triples(reference)


def test_types_sources_and_ids_come_from_the_text(tmp_path: Path) -> None:
    rows = [
        ("Compound::DB00100", "GNBR::T::Compound:Disease", "Disease::MESH:D000544"),
        ("Gene::2261;5156", "r", "Side Effect::C0023448"),
        ("plain name", "r", "Gene::drugbank:BE0000048"),
    ]
    graph = read_graph(lines(tmp_path / "kg.tsv", rows, "\t"))
    assert set(graph.nodes.select("node_type", "node_id", "node_source").rows()) == {
        ("Compound", "DB00100", ""),
        ("Disease", "MESH:D000544", "MESH"),
        ("Gene", "2261;5156", ""),
        ("Side Effect", "C0023448", ""),
        ("entity", "plain name", ""),
        ("Gene", "drugbank:BE0000048", "drugbank"),
    }
    assert graph.relations == ("GNBR::T::Compound:Disease", "r")


def test_ids_without_types_are_warned_of(tmp_path: Path) -> None:
    rows = [("subject", "predicate", "object"), ("MONDO:1", "r", "HP:2"), ("HP:2", "r", "HP:3")]
    graph = read_graph(lines(tmp_path / "edges.tsv", rows, "\t"))
    assert graph.node_type_names == ("entity",)
    (warning,) = graph.report.warnings
    assert "all nodes have the type 'entity'" in warning
    assert "--nodes" in warning
    some = read_graph(lines(tmp_path / "some.tsv", [*rows, ("HP:2", "r", "Gene::7")], "\t"))
    (warning,) = some.report.warnings
    assert "3 of 4 ids do not name a type with ::" in warning
    every = read_graph(lines(tmp_path / "every.tsv", [("Gene::7", "r", "Gene::8")], "\t"))
    assert not every.report.warnings


def test_one_id_of_two_types_is_two_nodes(tmp_path: Path) -> None:
    rows = [("Gene::7", "r", "Disease::7"), ("Gene::7", "r", "Gene::8")]
    assert read_graph(lines(tmp_path / "kg.tsv", rows, "\t")).num_nodes == 3
