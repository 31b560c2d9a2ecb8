"""Graphs of data frames: the same graph as of a file, and the same checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.graph.cache import content_sha256
from clinical_drug_discovery.graph.frames.tables import frames_of, graph_of_frames, to_polars
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.system.errors import InputError


class Pandas:
    """A table with the interface of pandas that is used, and its missing values."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns, self._data = list(columns), columns

    def to_dict(self, orient: str) -> dict[str, list[Any]]:
        assert orient == "list"
        return self._data


class NAType:
    """Named as pandas' own missing value."""


def test_frames_give_the_graph_of_the_file(tmp_path: Path, facts: list[Fact]) -> None:
    rows = to_rows(facts, both=True)
    rows.write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    assert content_sha256(graph_of_frames(rows)) == content_sha256(graph)
    nodes, edges = frames_of(graph)
    assert edges.columns == ["relation", "x_index", "y_index"]
    assert edges.height == graph.report.num_facts
    again = graph_of_frames(edges.sample(fraction=1, shuffle=True, seed=1), nodes.reverse())
    assert content_sha256(again) == content_sha256(graph)
    assert again.vocabulary == graph.vocabulary


def test_mistakes_name_the_frame_and_the_row(graph: KnowledgeGraph) -> None:
    nodes, edges = frames_of(graph)
    with pytest.raises(InputError, match=r"^edges, row 2: the node is not in nodes \('99999'\)"):
        graph_of_frames(edges[:3].with_columns(x_index=pl.Series([0, 99999, 0])), nodes)
    with pytest.raises(InputError, match=r"^edges: the format is not known; .* has 'a'"):
        graph_of_frames(pl.DataFrame({"a": [1]}))
    with pytest.raises(InputError, match=r"^edges has a header but no rows"):
        graph_of_frames(edges.clear(), nodes)


def test_tables_of_other_packages() -> None:
    table = Pandas({"id": ["a", 7, float("nan")], "number": [1.0, float("nan"), NAType()]})
    found = to_polars("edges", table)
    assert found["id"].to_list() == ["a", "7", None]
    assert found["number"].is_nan().to_list() == [False, True, None]
    assert to_polars("edges", {"a": [1, 2]}).height == 2
    with pytest.raises(InputError, match=r"^edges \(got 7\) must be a polars or pandas DataFrame"):
        to_polars("edges", 7)
    with pytest.raises(InputError, match=r"^edges cannot be read as a table"):
        to_polars("edges", {"a": [1, 2], "b": [1]})
