"""A folder is the shards of one table, or one table of nodes and one of edges."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_drug_discovery.graph.folder import find_files
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize(
    ("names", "edges", "nodes"),
    [
        (["edges.csv", "kg.csv", "nodes.csv"], ["edges.csv"], "nodes.csv"),
        (["x_nodes.tsv.gz", "x_edges.tsv.gz"], ["x_edges.tsv.gz"], "x_nodes.tsv.gz"),
        (["h-1.0-nodes.tsv", "h-1.0-edges.sif.gz"], ["h-1.0-edges.sif.gz"], "h-1.0-nodes.tsv"),
        (["Node.tab", "RELATIONSHIPS.csv"], ["RELATIONSHIPS.csv"], "Node.tab"),
        (
            ["edges.parquet", "nodes.parquet", "part_edges.parquet", "part_nodes.parquet"],
            ["edges.parquet"],
            "nodes.parquet",
        ),
        (
            ["part-1.parquet", "part-0.parquet", "_SUCCESS"],
            ["part-0.parquet", "part-1.parquet"],
            None,
        ),
    ],
)
def test_files_are_found_by_name(
    tmp_path: Path, names: list[str], edges: list[str], nodes: str | None
) -> None:
    for name in [*names, ".hidden_nodes.csv"]:
        (tmp_path / name).touch()
    (tmp_path / "edges").mkdir()
    found, table = find_files(tmp_path)
    assert [path.name for path in found] == edges
    assert (None if table is None else table.name) == nodes


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["kg.csv"],
        ["edges.csv"],
        ["nodes.csv", "part-0.parquet"],
        ["a_edges.csv", "b_edges.csv", "nodes.csv"],
        ["edges.csv", "edges_part2.csv", "nodes.csv"],
        ["edges.csv", "nodes.csv", "nodes-2.tsv.gz"],
    ],
)
def test_a_choice_that_would_be_a_guess_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"edges file \(got .*\) is a folder") as error:
        find_files(tmp_path)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("name", ["c.csv", "c.pq", "c.parquet.gz", "part-00001", "sub/d.parquet"])
def test_data_beside_shards_is_not_left_out_silently(tmp_path: Path, name: str) -> None:
    for one in ("a.parquet", "b.parquet", "README.md", "_SUCCESS", "a.parquet.1f2e.graph", name):
        path = tmp_path / one
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(InputError, match=r"nothing but \.parquet files") as error:
        find_files(tmp_path)
    assert name.split("/")[0] in str(error.value)
    (tmp_path / name).unlink()
    assert len(find_files(tmp_path)[0]) == 2


def test_data_beside_two_tables_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("edges.csv", "nodes.csv", "kg.csv"):
        (tmp_path / name).touch()
    find_files(tmp_path)
    assert "kg.csv are not read" in caplog.text
