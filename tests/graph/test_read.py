"""The same facts give the same graph, however they are written; errors name the file and row."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import Fact, Node, assert_same_graph, node, to_rows, to_triples

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.system.errors import InputError


def expected_triples(facts: list[Fact]) -> set[Any]:
    directed = [*facts, *((y, relation, x) for x, relation, y in facts)]
    return {(x[:3], relation, y[:3]) for x, relation, y in directed}


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_every_fact_is_read_in_both_directions(
    tmp_path: Path, facts: list[Fact], both: bool, numbered: bool
) -> None:
    path = tmp_path / "kg.csv"
    to_rows(facts, both=both, numbered=numbered).write_csv(path)
    graph = read_graph(path)
    assert to_triples(graph) == expected_triples(facts)
    assert graph.num_edges == 2 * len(facts)
    assert graph.report.num_rows == len(facts) * (1 + both)
    assert graph.report.num_facts == len(facts)
    assert graph.report.num_mirrored_facts == len(facts) * both
    assert ("both directions" in graph.report.spelling) == both


@pytest.mark.parametrize("numbered", [True, False])
def test_the_graph_does_not_depend_on_the_order_of_rows(
    tmp_path: Path, facts: list[Fact], rng: np.random.Generator, numbered: bool
) -> None:
    original = to_rows(facts, numbered=numbered)
    original.write_csv(tmp_path / "once.csv")
    reference = read_graph(tmp_path / "once.csv")
    for seed in range(3):
        both = to_rows(facts, both=True, numbered=numbered)
        both.sample(fraction=1, shuffle=True, seed=seed).write_csv(tmp_path / "both.csv")
        assert_same_graph(read_graph(tmp_path / "both.csv"), reference)
    mixed = pl.concat([original, to_rows(facts, both=True, numbered=numbered)[-100:]])
    mixed.write_csv(tmp_path / "mixed.csv")
    graph = read_graph(tmp_path / "mixed.csv")
    assert_same_graph(graph, reference)
    assert graph.report.num_mirrored_facts == 100
    assert graph.report.spelling.startswith("mixed")


def test_formats_hold_the_same_graph(tmp_path: Path, facts: list[Fact]) -> None:
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "kg.csv")
    text = (tmp_path / "kg.csv").read_bytes()
    (tmp_path / "kg.csv.gz").write_bytes(gzip.compress(text))
    rows.write_csv(tmp_path / "kg.csv.zst", compression="zstd")
    rows.write_parquet(tmp_path / "kg.parquet")
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    shuffled = rows.select(reversed(rows.columns)).with_columns(
        pl.int_range(pl.len()).alias(name) for name in ("comment", "row", "x_record", "x_note")
    )
    shuffled.write_csv(tmp_path / "columns.csv")
    reference = read_graph(tmp_path / "kg.csv")
    for name in ("kg.csv.gz", "kg.csv.zst", "kg.parquet", "bom.csv", "columns.csv"):
        assert_same_graph(read_graph(tmp_path / name), reference)


def test_nodes_are_told_apart_by_source_type_and_id(tmp_path: Path) -> None:
    a = Node("NCBI", "gene/protein", "007", 'a gene, called "seven"')
    b = Node("MONDO", "disease", "007", 'a gene, called "seven"')
    c = Node("NCBI", "gene/protein", "7", "another")
    to_rows([(a, "r", b), (c, "r", b)]).write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    assert graph.num_nodes == 3
    assert set(graph.nodes.select("node_source", "node_type", "node_id", "node_name").rows()) == {
        a, b, c
    }  # fmt: skip


def test_node_index_is_the_files_own_numbering(tmp_path: Path, facts: list[Fact]) -> None:
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    for side in "xy":
        joined = rows.join(graph.nodes, left_on=f"{side}_index", right_on="node_index")
        assert len(joined) == len(rows)
        assert (joined[f"{side}_name"] == joined["node_name"]).all()
    to_rows(facts, numbered=False).write_csv(tmp_path / "plain.csv")
    assert read_graph(tmp_path / "plain.csv").nodes["node_index"].to_list() == list(
        range(graph.num_nodes)
    )


def test_duplicates_and_self_loops_are_dropped_and_counted(tmp_path: Path) -> None:
    x, y, z = node("drug", 1), node("disease", 2), node("drug", 3)
    facts = [(x, "r", y), (x, "r", y), (z, "r", z), (y, "r", x), (x, "s", y), (z, "r", y)]
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    report = graph.report
    assert (report.num_rows, report.num_duplicate_rows, report.num_self_loops) == (6, 1, 1)
    assert (report.num_facts, report.num_mirrored_facts) == (3, 1)
    assert graph.num_edges == 6


def test_filters(tmp_path: Path, facts: list[Fact]) -> None:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    whole = read_graph(path)
    part = read_graph(path, ReadSettings(include_node_types=["drug", "disease"]))
    inside = [f for f in facts if {f[0].type, f[2].type} == {"drug", "disease"}]
    assert to_triples(part) == expected_triples(inside)
    assert part.report.num_excluded_facts == len(facts) - len(inside)
    assert set(part.nodes["node_type"]) == {"drug", "disease"}
    half = read_graph(path, ReadSettings(limit_nodes=whole.num_nodes // 2))
    assert half.num_nodes == whole.num_nodes // 2
    before, after = (g.nodes["node_type"].value_counts(sort=True) for g in (whole, half))
    share = before.join(after, on="node_type").select(pl.col("count_right") / pl.col("count"))
    assert share.to_series().is_between(0.45, 0.55).all()
    # The nodes of the highest degree of each type stay.
    degree = whole.nodes.with_columns(degree=pl.Series(whole.degree.numpy()))
    kept = pl.col("node_index").is_in(half.nodes["node_index"].implode())
    for (_,), group in degree.group_by("node_type"):
        lost = group.filter(~kept)["degree"].to_list()
        assert min(group.filter(kept)["degree"].to_list()) >= max(lost)
    with pytest.raises(InputError, match=r"include_node_types .*'drugs'.* did you mean 'drug'"):
        read_graph(path, ReadSettings(include_node_types=["drugs"]))
    with pytest.raises(InputError, match=r"limit_nodes \(got 0\)"):
        read_graph(path, ReadSettings(limit_nodes=0))
    with pytest.raises(InputError, match="leave no facts"):
        read_graph(path, ReadSettings(include_node_types=["drug"]))


GOOD = [(node("drug", i), "indication", node("disease", i % 7)) for i in range(40)]


def corrupt(line: int, old: str, new: str, *, numbered: bool = True) -> bytes:
    """The good file with one line changed; line 1 is the header."""
    lines = to_rows(GOOD, numbered=numbered).write_csv().splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    return "".join(lines).encode()


FAULTS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", r"is empty"),
    "header alone": (corrupt(1, "", "")[: corrupt(1, "", "").index(b"\n") + 1], r"no rows"),
    "wrong header": (corrupt(1, "x_id", "drug_id"), r"header lacks x_id; it has"),
    "a column twice": (corrupt(1, "display_relation", "x_id"), r"header has x_id more than once"),
    "half an index": (corrupt(1, "y_index", "number"), r"x_index; it must have both or neither"),
    "missing fields": (corrupt(20, ",MONDO", ""), r"row 20: y_source is missing"),
    "missing field": (corrupt(20, "drug 18", ""), r"row 20: x_name is missing"),
    "empty field": (corrupt(20, "drug 18", '""'), r"row 20: x_name is missing"),
    "empty relation": (corrupt(20, "indication,", '"",'), r"row 20: relation is missing"),
    "too many fields": (corrupt(20, "drug 18", "drug, 18"), r"row 20: 13 fields, but the header"),
    "open quote": (corrupt(20, "drug 18", '"drug 18'), r"row 20: .*quote"),
    "stray quote": (corrupt(20, "drug 18", 'drug "18'), r"row 20: .*quote"),
    "not UTF-8": (
        corrupt(20, "drug 18", "drug é").replace("é".encode(), b"\xe9"),
        r"row 20: .*UTF",
    ),
    "cut short": (corrupt(1, "", "")[:-30], r"row 41: y_.* missing .*cut short"),
    "no number": (corrupt(20, "indication,indication,", "r,r,1e"), r"row 20: x_index .*'1e\d+'"),
    "two types": (
        corrupt(9, ",disease,", ",drug,"),
        r"row 9: .*index.* has type 'drug', but in row 2 ",
    ),
    "two types of an id": (
        corrupt(9, ",disease,", ",drug,", numbered=False),
        r"row 9: .*source 'MONDO', id '0' has type 'drug', but in row 2 it has type 'disease'",
    ),
    "two names": (
        corrupt(9, "disease 0", "Disease 0"),
        r"row 9: .* name 'Disease 0', but in row 2 ",
    ),
    "self-loops alone": (
        to_rows([(node("drug", 1), "r", node("drug", 1))]).write_csv().encode(),
        r"is not a graph",
    ),
    "no text": (
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        r"format is not known; the first line has",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_is_named_with_its_row(tmp_path: Path, name: str) -> None:
    content, message = FAULTS[name]
    path = tmp_path / "kg.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_graph(path)
    assert "kg.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "damaged", "message"),
    [(r"^(.{40}).*", r"\1", "row 400001: .* missing"), (r"^", ",", "row 400001: 13 fields")],
)
def test_a_bad_row_far_into_the_file(
    tmp_path: Path, pattern: str, damaged: str, message: str
) -> None:
    lines = to_rows(GOOD).write_csv().splitlines(keepends=True)
    many = lines[:1] + lines[1:] * 12_000  # more than two batches
    many[400_000] = re.sub(pattern, damaged, many[400_000], count=1)
    (tmp_path / "kg.csv").write_text("".join(many))
    with pytest.raises(InputError, match=message):
        read_graph(tmp_path / "kg.csv")


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".parquet"])
def test_truncated_and_damaged_compressed_files(
    tmp_path: Path, facts: list[Fact], suffix: str
) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".parquet":
        to_rows(facts).write_parquet(whole)
    else:
        to_rows(facts).write_csv(whole, compression="gzip" if suffix == ".csv.gz" else "zstd")
    path = tmp_path / f"kg{suffix}"
    content = whole.read_bytes()
    for damaged in (content[: len(content) // 2], content[:100] + b"\0\1\2\3" + content[104:-200]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"kg\..*(truncated|damaged|readable|lacks|UTF-8)"):
            read_graph(path)


def test_paths_that_are_not_edges_files(tmp_path: Path) -> None:
    (tmp_path / "dir.csv").mkdir()
    for name, message in (("no.csv", "No such"), ("dir.csv", "is a folder")):
        with pytest.raises(InputError, match=message):
            read_graph(tmp_path / name)


def test_an_empty_relation_below_blank_lines_is_named_by_its_row(tmp_path: Path) -> None:
    lines = to_rows(GOOD).write_csv().splitlines(keepends=True)
    lines[9] = lines[9].replace("indication", '""', 1)
    (tmp_path / "kg.csv").write_text("".join([*lines[:5], "\n\n", *lines[5:]]))
    with pytest.raises(InputError, match=r"row 12: relation is missing"):
        read_graph(tmp_path / "kg.csv")


def test_a_path_is_not_a_pattern(tmp_path: Path, facts: list[Fact]) -> None:
    to_rows(facts).write_csv(tmp_path / "kg[1].csv")
    to_rows(facts[:5]).write_csv(tmp_path / "kg1.csv")
    assert read_graph(tmp_path / "kg[1].csv").report.num_facts == len(facts)


@pytest.mark.parametrize("column", ["x_index", "y_index"])
def test_leading_zeros_are_refused_with_the_row_and_the_column(tmp_path: Path, column: str) -> None:
    wrong = pl.when(pl.int_range(pl.len()) == 18).then(pl.lit("07")).otherwise(pl.col(column))
    to_rows(GOOD).with_columns(wrong.alias(column)).write_csv(tmp_path / "kg.csv")
    with pytest.raises(InputError, match=rf", row 20: {column} \(got '07'\) .*leading zeros$"):
        read_graph(tmp_path / "kg.csv")


def test_of_many_wrong_numbers_the_first_three_are_named(tmp_path: Path) -> None:
    zero = pl.lit("0") + pl.col("x_index").cast(pl.String)
    rows = to_rows(GOOD).with_columns(x_index=zero)
    lacking = pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(pl.col("relation"))
    rows.with_columns(lacking.alias("relation")).write_csv(tmp_path / "kg.csv")
    with pytest.raises(InputError, match=r"row 3: x_index .*; row \d+: x_.*; and [\d,]+ more$"):
        read_graph(tmp_path / "kg.csv", ReadSettings(on_missing="drop"))


def test_a_missing_number_in_a_column_of_floats_is_missing(
    tmp_path: Path, facts: list[Fact]
) -> None:
    rows = to_rows(facts, numbered=False)
    ids = pl.int_range(pl.len()).cast(pl.Float64)
    for column in ("x_id", "y_id"):
        gap = pl.when(ids == 2).then(float("nan")).otherwise(ids)
        rows.with_columns(gap.alias(column)).write_parquet(tmp_path / "kg.parquet")
        with pytest.raises(InputError, match=rf"row 3: {column} is missing"):
            read_graph(tmp_path / "kg.parquet")


def test_nested_columns_are_refused(tmp_path: Path, facts: list[Fact]) -> None:
    rows = to_rows(facts)
    for nested in (pl.struct("x_id"), pl.concat_list("x_id")):
        rows.with_columns(nested.alias("x_name")).write_parquet(tmp_path / "kg.parquet")
        with pytest.raises(InputError, match=r"the column x_name must hold text or numbers"):
            read_graph(tmp_path / "kg.parquet")


def test_a_copy_of_a_part_gives_a_warning(tmp_path: Path, facts: list[Fact]) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    for path in paths:
        to_rows(facts).write_csv(path)
    graph = read_graph(paths)
    assert "b.csv has the same content as" in graph.report.warnings[0]
    assert graph.report.num_duplicate_rows == len(facts)


def test_a_header_that_is_not_where_it_must_be_is_refused(
    tmp_path: Path, facts: list[Fact]
) -> None:
    path = tmp_path / "kg.csv"
    header, *rows = to_rows(facts).write_csv().splitlines(keepends=True)
    path.write_text("".join(["\n", header, *rows]))
    with pytest.raises(InputError, match=r"kg.csv: the first line is blank"):
        read_graph(path)
    path.write_text("".join([header.replace("\n", ", X_ID\n"), *rows]))
    with pytest.raises(InputError, match=r"the header has x_id more than once"):
        read_graph(path)


@pytest.mark.parametrize("field", ["name", "source"])
def test_parts_with_and_without_a_field_are_refused(
    tmp_path: Path, facts: list[Fact], field: str
) -> None:
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "a.csv")
    rows.drop(f"x_{field}", f"y_{field}").write_csv(tmp_path / "b.csv", separator="\t")
    with pytest.raises(InputError, match=rf"only one of them has {field} of nodes"):
        read_graph([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_lines_that_end_with_two_carriage_returns_are_refused(
    tmp_path: Path, facts: list[Fact]
) -> None:
    text = to_rows(facts, numbered=False).write_csv().replace("\n", "\r\r\n")
    (tmp_path / "kg.csv").write_bytes(text.encode())
    with pytest.raises(InputError, match=r"kg.csv is not a readable CSV file"):
        read_graph(tmp_path / "kg.csv")
