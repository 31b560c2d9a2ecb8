"""Several files are parts of one graph; relations can be left out; settings are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graphs import Fact, node, to_rows, to_triples

from clinical_drug_discovery.graph.cache import read_cached
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings, Source
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize("numbered", [True, False])
def test_parts_are_read_as_one_graph(tmp_path: Path, facts: list[Fact], numbered: bool) -> None:
    rows = to_rows(facts, numbered=numbered)
    rows.write_csv(tmp_path / "whole.csv")
    rows[:100].write_csv(tmp_path / "a.csv")
    rows[100:200].select(reversed(rows.columns)).write_csv(tmp_path / "b.tsv", separator="\t")
    rows[190:].write_parquet(tmp_path / "c.parquet")
    whole = read_graph(tmp_path / "whole.csv")
    parts = [tmp_path / name for name in ("a.csv", "b.tsv", "c.parquet")]
    for order in (parts, parts[::-1]):
        graph = read_graph(order)
        assert to_triples(graph) == to_triples(whole)
        assert graph.nodes.equals(whole.nodes)
        assert graph.report.num_rows == len(facts) + 10
        assert graph.report.num_duplicate_rows == 10


def test_messages_name_the_file_and_its_row(tmp_path: Path) -> None:
    good = [(node("drug", i), "r", node("disease", i)) for i in range(5)]
    to_rows(good).write_csv(tmp_path / "a.csv")
    text = to_rows(good).write_csv().replace("disease 3", "other")
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(InputError, match=r"b.csv, row 5: .* in \S*a.csv, row 5 it has name"):
        read_graph([tmp_path / "a.csv", tmp_path / "b.csv"])
    (tmp_path / "b.csv").write_text(text.replace("other", ""))
    with pytest.raises(InputError, match=r"b.csv, row 5: y_name is missing"):
        read_graph([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_parts_with_and_without_numbers_are_refused(tmp_path: Path, facts: list[Fact]) -> None:
    to_rows(facts).write_csv(tmp_path / "a.csv")
    to_rows(facts, numbered=False).write_csv(tmp_path / "b.csv")
    with pytest.raises(InputError, match=r"b.csv lacks node numbers, but \S*a.csv has"):
        read_graph([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_sources_that_are_refused(tmp_path: Path, facts: list[Fact]) -> None:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    for edges, message in (
        ([path, path], "is given twice"),
        ([path, tmp_path / "sub" / ".." / "kg.csv"], "given twice|No such"),
        ([], "must be a path or a list"),
        ([path, tmp_path / "none.csv"], "none.csv.*No such"),
    ):
        with pytest.raises(InputError, match=message):
            Source.of(edges)
    other = tmp_path / "nodes.csv"
    other.write_text("id,name\n1,a\n")
    with pytest.raises(InputError, match=r"nodes \(got .*\) must be left out"):
        read_graph(Source.of(path, other))


def test_relations_are_left_out(tmp_path: Path, facts: list[Fact]) -> None:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    left = {"indication", "drug_protein"}
    kept = [fact for fact in facts if fact[1] not in left]
    graph = read_graph(path, ReadSettings(exclude_relations=sorted(left)))
    (tmp_path / "kept.csv").write_text(to_rows(kept).write_csv())
    assert to_triples(graph) == to_triples(read_graph(tmp_path / "kept.csv"))
    assert graph.num_nodes == read_graph(path).num_nodes
    assert graph.report.num_excluded_facts == len(facts) - len(kept)
    without = int((graph.degree == 0).sum())
    assert graph.report.num_nodes_without_facts == without > 0
    with pytest.raises(InputError, match=r"exclude_relations \(got 'indicaton'\) .*'indication'"):
        read_graph(path, ReadSettings(exclude_relations=["indicaton"]))
    with pytest.raises(InputError, match="leave no facts"):
        read_graph(path, ReadSettings(exclude_relations=graph.relations + tuple(left)))


def test_too_many_types_are_refused(tmp_path: Path) -> None:
    rows = to_rows([(node("drug", i), "r", node("disease", 1)) for i in range(1_200)])
    rows.with_columns(x_type="x_id").write_csv(tmp_path / "kg.csv")
    with pytest.raises(InputError, match=r"1,201 different node types.* column type hold"):
        read_graph(tmp_path / "kg.csv")


@pytest.mark.parametrize(
    "options",
    [
        {"limit_nodes": 0},
        {"include_node_types": "drug"},
        {"exclude_relations": []},
        {"on_conflict": "drop"},
        {"on_missing": "first"},
    ],
)
def test_invalid_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(options))} \(got"):
        ReadSettings(**options).check()


def test_the_cache_depends_on_every_file_and_setting(tmp_path: Path, facts: list[Fact]) -> None:
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    to_rows(facts)[:200].write_csv(a)
    to_rows(facts)[200:].write_csv(b)
    choices: list[tuple[Any, ReadSettings]] = [
        (a, ReadSettings()),
        ([a, b], ReadSettings()),
        ([b, a], ReadSettings()),
        (a, ReadSettings(exclude_relations=["indication"])),
        (a, ReadSettings(on_conflict="first")),
        (a, ReadSettings(on_missing="drop")),
    ]
    for hit in (False, True):
        for edges, settings in choices:
            graph, outcome = read_cached(Source.of(edges), settings)
            assert outcome.hit == hit
            assert to_triples(graph) == to_triples(read_graph(edges, settings))
    b.write_text(a.read_text().replace("drug 1,", "drug X,"))
    a.write_text(a.read_text().replace("drug 1,", "drug X,"))
    graph, outcome = read_cached(Source.of([a, b]))
    assert not outcome.hit
    assert "drug X" in graph.nodes["node_name"]
