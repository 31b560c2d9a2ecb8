"""Nodes and names in two spellings are refused or warned of, with a count and examples."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from graphs import Fact, Node, node, to_rows

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.system.errors import InputError

GOOD: list[Fact] = [
    (node("drug", 10 + i), "treats", node("disease", 5000 + i % 4)) for i in range(12)
]


def read(directory: Path, rows: pl.DataFrame) -> KnowledgeGraph:
    path = directory / "kg.csv"
    rows.write_csv(path)
    return read_graph(path)


def with_ids(side: str, old: str, new: str) -> pl.DataFrame:
    """The good rows, without numbers, with one id of a side in another spelling in some rows."""
    ids = pl.col(f"{side}_id")
    later = pl.int_range(pl.len()) > 3
    changed = pl.when((ids == old) & later).then(pl.lit(new)).otherwise(ids)
    return to_rows(GOOD, numbered=False).with_columns(changed.alias(f"{side}_id"))


@pytest.mark.parametrize(
    "new",
    [
        "5000.0",
        "5000.00",
        "5e3",
        "5.0E+03",
        "5000,0",
        "5,0e3",
        "5,000",
        "MONDO:5000.0",
        "MONDO_5000.",
    ],
)
def test_ids_that_a_column_of_floats_changed_are_refused(tmp_path: Path, new: str) -> None:
    with pytest.raises(InputError, match=rf"1 node has an id in two forms.* '{new[:3]}.*'5000'"):
        read(tmp_path, with_ids("y", "5000", new))


def test_a_side_of_floats_is_refused_with_the_number_of_nodes(tmp_path: Path) -> None:
    mirrored = to_rows(GOOD, both=True, numbered=False)
    with pytest.raises(InputError, match=r"16 nodes have an id in two forms"):
        read(tmp_path, mirrored.with_columns(pl.col("x_id") + ".0"))


@pytest.mark.parametrize("form", ["{}.0", "{},0", "{}e6", "{},000"])
def test_ids_that_are_all_floats_give_a_warning(tmp_path: Path, form: str) -> None:
    rows = to_rows(GOOD, numbered=False)
    graph = read(tmp_path, rows.with_columns(pl.format(form, pl.col("y_id").str.slice(1))))
    (text,) = graph.report.warnings
    assert "4 ids look like whole numbers from a column of floats" in text
    assert f"{form.format('000')!r} (disease" in text


@pytest.mark.parametrize(
    "new",
    [
        "05000",
        "MONDO:5000",
        "MONDO:0005000",
        "mondo_5000",
        "MONDO-5000",
        "MONDO/5000",
        " 5000",
        "5000 ",
        "5000\u200b",
        "'5000",
        "#5000",
        "5000;",
        "http://purl.obolibrary.org/obo/MONDO_0005000",
    ],
)
def test_one_node_with_two_ids_gives_a_warning(tmp_path: Path, new: str) -> None:
    graph = read(tmp_path, with_ids("y", "5000", new))
    (text,) = graph.report.warnings
    assert "1 node has an id that differs from that of another node only in case" in text
    assert f"'5000' (row 2) and {new!r} (row 6)" in text


def test_ids_that_differ_in_case_give_a_warning_whatever_the_names(tmp_path: Path) -> None:
    x = Node("DrugBank", "drug", "DB01", "one")
    y = Node("DrugBank", "drug", "db01", "another")
    graph = read(tmp_path, to_rows([(x, "r", node("disease", 1)), (y, "r", node("disease", 2))]))
    assert "'DB01' (row 2) and 'db01' (row 3)" in graph.report.warnings[0]


def test_two_versions_of_an_accession_give_a_warning(tmp_path: Path) -> None:
    x, y = (Node("", "gene", f"ENSG00000141510{end}", f"TP53{end}") for end in ("", ".16"))
    rows = to_rows([(x, "r", node("disease", 1)), (y, "r", node("disease", 2))])
    rows = rows.drop("x_source", "y_source", "x_index", "y_index")
    assert "'ENSG00000141510' (row 2) and 'ENSG00000141510.16' (row 3)" in str(
        read(tmp_path, rows).report.warnings
    )


def test_one_node_of_two_sources_gives_a_warning(tmp_path: Path) -> None:
    other = pl.when(pl.int_range(pl.len()) > 7).then(pl.lit("Orphanet")).otherwise("y_source")
    rows = to_rows(GOOD, numbered=False).with_columns(other.alias("y_source"))
    (text,) = read(tmp_path, rows).report.warnings
    assert "4 nodes have the id and the name of another node, but another source" in text
    assert "disease '5000' of 'MONDO' (row 2) and of 'Orphanet' (row 10)" in text


def test_one_name_and_a_shared_number_give_a_warning(tmp_path: Path) -> None:
    (text,) = read(tmp_path, with_ids("y", "5000", "5113_5000")).report.warnings
    assert "1 node has the name of another node, and an id with the same number" in text
    assert "'5000' (row 2) and '5113_5000' (row 6)" in text


def test_a_number_beside_an_id_with_a_prefix_gives_a_warning(tmp_path: Path) -> None:
    rows = with_ids("y", "5000", "MONDO:0005000")
    rows = rows.select("relation", "x_id", "x_type", "y_id", "y_type")
    every = read(tmp_path, rows).report.warnings
    assert "1 id is the number of another id with a prefix" in every[-1]
    assert "'5000' (row 2) and 'MONDO:0005000' (row 6)" in every[-1]


def test_different_nodes_give_no_warning(tmp_path: Path) -> None:
    x = Node("NCBI", "gene/protein", "007", "seven")
    y = Node("NCBI", "gene/protein", "7", "another seven")
    z = Node("HGNC", "gene/protein", "7", "seven")
    facts = [(one, "r", node("disease", 7)) for one in (x, y, z)]
    assert read(tmp_path, to_rows([*facts, *GOOD])).report.warnings == ()


@pytest.mark.parametrize(
    ("column", "old", "new", "text"),
    [
        ("relation", "treats", "Treats", "relations .*'Treats' (1 rows) and 'treats' (11 rows)"),
        ("relation", "treats", " treats", "relations .*' treats' (1 rows)"),
        ("relation", "treats", "tre-ats", "relations .*'tre-ats' (1 rows)"),
        ("relation", "treats", "tr\u212fats", "relations .*(1 rows)"),
        ("x_type", "drug", "Drug", "node types .*'Drug' (1 nodes) and 'drug' (11 nodes)"),
        ("x_type", "drug", "drug\u00a0", "node types .*(1 nodes)"),
        ("x_source", "DrugBank", "DRUGBANK", "sources .*'DRUGBANK' (1 nodes)"),
    ],
)
def test_names_that_are_spelled_alike_give_a_warning(
    tmp_path: Path, column: str, old: str, new: str, text: str
) -> None:
    rows = to_rows(GOOD, numbered=False)
    assert rows[column][0] == old
    first = pl.int_range(pl.len()) == 0
    rows = rows.with_columns(pl.when(first).then(pl.lit(new)).otherwise(column).alias(column))
    (warning,) = read(tmp_path, rows).report.warnings
    assert re.search(re.escape(text).replace(r"\.\*", ".*"), warning)


def test_control_characters_and_lost_characters(tmp_path: Path) -> None:
    for bad in ("a\tb", "a\rb", "caf\ufffd", "a\x9cb"):
        facts = [(Node("S", "drug", "1", bad), "r", node("disease", 1)), *GOOD]
        (text,) = read(tmp_path, to_rows(facts)).report.warnings
        assert "1 name or id has control characters or characters that were lost" in text
        assert f"{bad!r} (row 2)" in text
    facts = [(Node("S", "drug", "1", "a\0b"), "r", node("disease", 1)), *GOOD]
    with pytest.raises(InputError, match=r"must not have NUL characters.*row 2"):
        read(tmp_path, to_rows(facts))
