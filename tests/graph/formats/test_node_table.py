"""Faults of a table of nodes are named all at once; the user decides how to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from clinical_drug_discovery.graph.formats.head import Head
from clinical_drug_discovery.graph.formats.node_table import most_specific
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings, Source
from clinical_drug_discovery.system.errors import InputError

EDGES = "relation,display_relation,x_index,y_index\n"
NODES = "node_index,node_id,node_type,node_name,node_source\n"
GOOD = ["0,DB1,drug,one,DrugBank", "1,7,disease,seven,MONDO", "2,9,disease,nine,MONDO"]


def read(
    folder: Path, edges: list[str], nodes: list[str], settings: ReadSettings | None = None
) -> KnowledgeGraph:
    (folder / "edges.csv").write_text(EDGES + "".join(f"treats,treats,{row}\n" for row in edges))
    (folder / "nodes.csv").write_text(NODES + "".join(f"{row}\n" for row in nodes))
    return read_graph(Source.of(folder), settings)


def test_an_edge_to_an_unknown_node_stops_the_reading_or_is_left_out(tmp_path: Path) -> None:
    edges = ["0,1", "0,5", "0,2", "6,1"]
    with pytest.raises(
        InputError, match=r"edges\.csv.*row 3: .*not in nodes\.csv \('5'\).*--on-missing"
    ):
        read(tmp_path, edges, GOOD)
    graph = read(tmp_path, edges, GOOD, ReadSettings(on_missing="drop"))
    assert graph.report.num_facts == 2
    assert any("2" in text and "nodes.csv" in text for text in graph.report.warnings)


def test_nodes_without_edges_are_left_out_and_counted(tmp_path: Path) -> None:
    graph = read(tmp_path, ["0,1"], [*GOOD, "8,10,disease,ten,MONDO"])
    assert graph.nodes["node_id"].to_list() == ["7", "DB1"]
    assert graph.nodes["node_index"].to_list() == [1, 0]
    assert graph.report.num_unused_nodes == 2


def test_repeated_rows_of_a_node_are_one_node(tmp_path: Path) -> None:
    graph = read(tmp_path, ["0,1", "0,2"], [*GOOD, *GOOD[1:], ""])
    assert graph.num_nodes == 3
    assert not graph.report.warnings


def test_contradictions_are_named_at_once_and_the_first_row_can_win(tmp_path: Path) -> None:
    nodes = [*GOOD, "1,7,disease,sieben,MONDO", "0,DB1,drug,eins,DrugBank"]
    with pytest.raises(
        InputError, match=r"nodes\.csv: 2 nodes .*row 2 .*'eins'.*row 3 .*'sieben'"
    ) as error:
        read(tmp_path, ["0,1", "0,2"], nodes)
    assert "--on-conflict first" in str(error.value)
    graph = read(tmp_path, ["0,1", "0,2"], nodes, ReadSettings(on_conflict="first"))
    assert set(graph.nodes["node_name"]) == {"one", "seven", "nine"}
    assert any("2 nodes" in text for text in graph.report.warnings)


def test_one_node_under_two_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nodes\.csv: 2 rows .*different keys.*row 3 .*row 5 "):
        read(tmp_path, ["0,1", "0,2"], [*GOOD, "3,7,disease,seven,MONDO"])


def test_a_node_without_a_type_is_refused_or_left_out(tmp_path: Path) -> None:
    nodes = [*GOOD[:2], "2,9,,nine,MONDO"]
    with pytest.raises(InputError, match=r"nodes\.csv: 1 node without .*row 4 .*--on-missing drop"):
        read(tmp_path, ["0,1", "0,2"], nodes)
    graph = read(tmp_path, ["0,1", "0,2"], nodes, ReadSettings(on_missing="drop"))
    assert graph.num_nodes == 2
    assert any("1 node without" in text for text in graph.report.warnings)


def test_names_and_sources_are_optional(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("relation,x_index,y_index\ntreats,0,1\n")
    (tmp_path / "nodes.csv").write_text("node_index,node_id,node_type\n0,DB1,drug\n1,7,disease\n")
    graph = read_graph(tmp_path)
    assert graph.nodes.select("node_name", "node_source").rows() == [("7", ""), ("DB1", "")]


def test_a_table_of_nodes_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("relation,x_index,y_index\ntreats,0,1\n")
    (tmp_path / "nodes.csv").write_text("node_index,id\n0,DB1\n")
    with pytest.raises(InputError, match=r"nodes\.csv: the header lacks node_id, node_type"):
        read_graph(tmp_path)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ("biolink:Gene", "biolink:Gene"),
        ("biolink:NamedThing|biolink:GenomicEntity|biolink:Gene", "biolink:Gene"),
        ("biolink:Gene|biolink:GenomicEntity|biolink:NamedThing", "biolink:Gene"),
        ("biolink:NamedThing|biolink:ChemicalEntity", "biolink:ChemicalEntity"),
        ("NamedThing|DiseaseOrPhenotypicFeature|BiologicalEntity", "DiseaseOrPhenotypicFeature"),
        ("|Entity||Drug", "Drug"),
        ("Other|Words", "Other"),
        ("NamedThing", "NamedThing"),
        ("", ""),
        (None, None),
    ],
)
def test_the_most_specific_label_is_the_type(labels: str | None, chosen: str | None) -> None:
    frame = pl.LazyFrame({"category": [labels]}, schema={"category": pl.String})
    head = Head(Path("nodes.tsv"), Path("nodes.tsv"), False)
    kind, warnings = most_specific(head, frame, "category", "|")
    assert frame.select(kind).collect().to_series().to_list() == [chosen]
    assert [("several labels" in text) for text in warnings] == [True] * (labels == "Other|Words")


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace(",", " ,")])
def test_a_repeated_header_is_left_out_and_another_one_is_refused(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    header = NODES.strip()
    graph = read(tmp_path, ["0,1", "0,2"], [*GOOD[:1], change(header), *GOOD[1:]])
    assert graph.num_nodes == 3
    assert graph.report.num_unused_nodes == 0
    (text,) = graph.report.warnings
    assert "nodes.csv: 1 row repeats the header and is left out (first: row 3)" in text
    other = ",".join(reversed(header.split(",")))
    with pytest.raises(InputError, match=r"nodes.csv, row 3: this row is a header with other col"):
        read(tmp_path, ["0,1", "0,2"], [*GOOD[:1], change(other), *GOOD[1:]])


def test_blank_fields_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nodes.csv: 2 nodes without an id or a type: row 3"):
        read(tmp_path, ["0,1"], [GOOD[0], "1,7, ,seven,MONDO", "2, ,disease,nine,MONDO"])
    graph = read(tmp_path, ["0,1"], [GOOD[0], "1,7,disease, ,MONDO"])
    assert graph.nodes["node_name"].to_list() == ["7", "one"]


@pytest.mark.parametrize("labels", ["['A', 'B']", "A;B", "{A|B}"])
def test_labels_with_another_separator_are_refused(tmp_path: Path, labels: str) -> None:
    (tmp_path / "edges.tsv").write_text("subject\tpredicate\tobject\nX:1\tr\tX:2\n")
    (tmp_path / "nodes.tsv").write_text(f"id\tcategory\nX:1\t{labels}\nX:2\tA|B\n")
    with pytest.raises(InputError, match=r"nodes.tsv: the labels .* must be separated by '\|'"):
        read_graph(Source.of(tmp_path))
