"""Files that try to stop, exhaust or deceive `cdd rank` and `cdd similar`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.evaluation.gold import read_gold
from clinical_drug_discovery.graph.synonyms import read_synonyms
from clinical_drug_discovery.lib.rank import _read_lines
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.models.embeddings_file import write_embeddings
from clinical_drug_discovery.models.read_embeddings import read_embeddings
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.untrusted.inputs import MAX_LINE

NODES = pl.DataFrame(
    {
        "node_index": range(6),
        "node_id": [f"i{n}" for n in range(6)],
        "node_type": ["drug"] * 6,
        "node_name": [f"name {n}" for n in range(6)],
        "node_source": ["s"] * 6,
    }
)
VALUES = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
READERS: dict[str, Callable[[Path], object]] = {
    "diseases": lambda path: _read_lines("diseases", path),
    "synonyms": lambda path: read_synonyms(path, NODES),
    "gold": read_gold,
    "embeddings": read_embeddings,
}


@pytest.mark.parametrize("what", READERS)
def test_only_regular_files_are_opened(tmp_path: Path, what: str) -> None:
    """A pipe would wait for ever, and a device would never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "zero.csv", "folder.csv"):
        with pytest.raises(InputError, match=rf"{what} .*{name}.* must be a file"):
            READERS[what](tmp_path / name)


@pytest.mark.parametrize("what", ["diseases", "synonyms", "gold"])
def test_an_endless_line_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text("name,id,drug_id,disease_id\n" + "x" * (MAX_LINE + 2))
    with pytest.raises(InputError, match="line 2: a line must have at most"):
        list(READERS[what](path) or [])  # type: ignore[call-overload]  # the readers have different results


def test_blank_lines_of_a_list_keep_the_numbers_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n" * 10_000 + "a\n \t\r\nb")
    assert _read_lines("diseases", path) == [(10_001, "a"), (10_003, "b")]


def test_every_damaged_byte_of_an_array_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    write_embeddings(path, NODES, torch.from_numpy(VALUES))
    whole = path.read_bytes()
    refused = []
    for at in range(128):
        for new in (0, ord("("), ord("9"), 255):
            path.write_bytes(whole[:at] + bytes([new]) * (1 + at % 8) + whole[at + 1 + at % 8 :])
            try:
                assert read_embeddings(path)[1].shape[0] == 6
            except InputError as error:
                refused.append(str(error))
    assert len(refused) > 200
    assert all(str(path) in text for text in refused)
    for damaged in (whole[:-1], whole + b"\0", whole[:90], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"e\.npy"):
            read_embeddings(path)


def test_arrays_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    write_embeddings(path, NODES, torch.from_numpy(VALUES))
    huge = np.full((6, 2), 1e300)
    for array in (VALUES[0], VALUES[None], VALUES.astype("S4"), VALUES > 0, VALUES + 1j, huge):
        np.save(path, array)
        with pytest.raises(InputError, match=r"e\.npy"):
            read_embeddings(path)
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(InputError, match="not a file of embeddings"):
        read_embeddings(path)
    np.savez(tmp_path / "other.npz", VALUES)
    path.write_bytes((tmp_path / "other.npz").read_bytes())
    assert zipfile.is_zipfile(path)
    with pytest.raises(InputError, match=r"archive of arrays \(.npz\)"):
        read_embeddings(path)


def test_columns_of_other_types_are_converted_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_embeddings(path, NODES, torch.from_numpy(VALUES))
    table = pl.read_parquet(path)
    one = pl.lit(1)
    kept = [
        table.with_columns(row=one, record=one, score=one, extra=pl.struct("node_id")),
        table.with_columns(pl.col("embedding").arr.to_list().cast(pl.List(pl.Float64))),
        table.with_columns(pl.col("node_type").cast(pl.Categorical)),
        table.with_columns(pl.col("node_index").cast(pl.UInt8)),
    ]
    for changed in kept:
        changed.write_parquet(path)
        nodes, values = read_embeddings(path)
        assert np.array_equal(values, VALUES)
        assert similar_nodes(path, "name 3")[0]["rank"] == 1
        assert nodes["node_index"].to_list() == list(range(6))
    null = pl.lit(None)
    refused = [
        *(table.with_columns(pl.struct("node_id").alias(name)) for name in table.columns),
        *(table.with_columns(pl.lit([1]).alias(name)) for name in table.columns[:3]),
        *(table.with_columns(null.alias(name)) for name in table.columns if name != "node_source"),
        *(table.with_columns(pl.lit(b"\xff").alias(name)) for name in table.columns),
        table.with_columns(embedding=one),
        table.with_columns(embedding=pl.lit([[1.0]])),
        table.with_columns(pl.col("embedding").arr.to_list().list.head(0)),
        table.drop("node_id"),
        table.head(0),
    ]
    for changed in refused:
        changed.write_parquet(path)
        with pytest.raises(InputError, match=r"e\.parquet"):
            read_embeddings(path)


def test_billions_of_equal_rows_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    row = {name: pl.lit("x") for name in ("node_id", "node_name", "node_type", "node_source")}
    many = pl.select(node_index=pl.int_range(4_000_000)).lazy()
    table = many.with_columns(embedding=pl.lit([1.0]), node_index=pl.lit(1), **row)
    table.sink_parquet(path, compression="zstd")
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"larger than 0\.25 GiB"):
        read_embeddings(path)


@pytest.mark.parametrize("scale", [3e38, 1e-40, 1.0])
def test_cosines_of_huge_tiny_and_zero_vectors(tmp_path: Path, scale: float) -> None:
    values = np.sign(VALUES) * np.float32(scale)
    values[5] = 0
    path = tmp_path / "e.parquet"
    write_embeddings(path, NODES, torch.from_numpy(values))
    signs = np.sign(VALUES[:5])
    wanted = sorted((float(signs[0] @ signs[n]) / 5 for n in range(1, 5)), reverse=True)
    found = [row["cosine"] for row in similar_nodes(path, "name 0")]
    assert found == pytest.approx(sorted([*wanted, 0.0], reverse=True), abs=1e-5)
    assert {row["cosine"] for row in similar_nodes(path, "name 5")} == {0.0}


def test_names_do_not_control_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\u202egnp"
    names = pl.Series(["asked", evil, *NODES["node_name"][2:]])
    path = tmp_path / "e.parquet"
    write_embeddings(path, NODES.with_columns(node_name=names), torch.from_numpy(VALUES))
    runner = CliRunner()
    for node in ("asked", evil + "?"):
        result = runner.invoke(make_app(), ["similar", "--embeddings", str(path), "--node", node])
        shown = result.output + result.stderr
        assert r"\x1b]0;title\x07\x1b[2J\u202egnp" in shown
        assert not set(shown) & {"\x1b", "\x07", "\u202e"}
