"""A graph whose rows lie in files has the bytes, warnings and errors of a graph in memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from faults import FailingDisk
from graphs import random_facts, to_rows

from clinical_drug_discovery.graph import read
from clinical_drug_discovery.graph.building import facts, keys
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.reading import room, rows
from clinical_drug_discovery.graph.reading.room import ReadingMemory, ReadingPlan
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.graph.stored.graph_file import save_graph
from clinical_drug_discovery.system import disk, log
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import WriteError
from clinical_drug_discovery.system.limits.memory import Room

SETTINGS = (
    ReadSettings(on_missing="drop"),
    ReadSettings(on_missing="drop", limit_nodes=30),
    ReadSettings(on_missing="drop", include_node_types=["drug", "disease"]),
)
GIB = 2**30
Stored = Callable[[Path | None, ReadSettings | None], bytes]


@pytest.fixture
def table(rng: np.random.Generator) -> pl.DataFrame:
    """Rows in both directions, in any order, with duplicates, self-loops, and bad rows."""
    clean = to_rows(random_facts(rng), both=True)
    loops = clean[:5].with_columns(
        pl.col(f"x_{one}").alias(f"y_{one}") for one in ("index", "id", "type", "name", "source")
    )
    bad = clean[:3].with_columns(relation=pl.lit(""))
    header = pl.DataFrame([dict(zip(clean.columns, clean.columns, strict=True))])
    text = pl.concat([clean, clean[::3], clean[::7], loops, bad]).cast(pl.String)
    mixed = text[rng.permutation(len(text))]
    return pl.concat([mixed[:160], header, mixed[160:]])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small graphs have several pieces of each kind."""
    for module, name, value in (
        (rows, "_BATCH_ROWS", 50), (keys, "_RUN_KEYS", 64), (keys, "_SAMPLES", 4),
        (keys, "_PIECE_KEYS", 20), (facts, "_PIECE_FACTS", 11),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def stored(tmp_path: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Return the function that gives the stored bytes of the graph of `table`."""
    table.write_csv(tmp_path / "kg.csv")

    def bytes_of(directory: Path | None, settings: ReadSettings | None) -> bytes:
        monkeypatch.setattr(read, "plan_reading", lambda *_: ReadingPlan(directory))
        save_graph(tmp_path / "graph", read_graph(tmp_path / "kg.csv", settings), {})
        return (tmp_path / "graph").read_bytes()

    return bytes_of


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("run_keys", [19, 10_000])
def test_files_of_any_piece_size_give_the_bytes_of_memory(
    stored: Stored,
    small: None,
    settings: ReadSettings,
    run_keys: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_memory = stored(None, settings)
    monkeypatch.setattr(keys, "_RUN_KEYS", run_keys)
    assert stored(tmp_path / "scratch", settings) == in_memory
    assert list((tmp_path / "scratch").iterdir()) == []


def test_files_take_the_bytes_for_each_row_that_the_plan_announces(
    tmp_path: Path, rng: np.random.Generator, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One relation without duplicates, and a bad row in each piece that is rewritten."""
    x, y = np.triu_indices(60, 1)
    ends = {f"{side}_id": at.astype(str) for side, at in (("x", x), ("y", y))}
    relation = np.where(np.arange(len(x)) % 40, "r", "")
    table = pl.DataFrame({**ends, "relation": relation}).with_columns(
        pl.lit(text).alias(f"{side}_{name}")
        for side in "xy" for name, text in (("type", "t"), ("name", "n"), ("source", "s"))
    )  # fmt: skip
    table[rng.permutation(len(x))].write_csv(tmp_path / "kg.csv")
    scratch, most = tmp_path / "scratch", 0
    handles: dict[int, int] = {}

    def write_at(directory: Path, handle: int, data: memoryview, start: int) -> None:
        nonlocal most
        disk_write(directory, handle, data, start)
        handles[handle] = os.fstat(handle).st_ino
        sizes = [os.fstat(one).st_size for one, node in handles.items() if is_open(one, node)]
        most = max(most, sum(sizes))

    disk_write = disk.write_at
    monkeypatch.setattr(disk, "write_at", write_at)
    monkeypatch.setattr(read, "plan_reading", lambda *_: ReadingPlan(scratch))
    graph = read_graph(tmp_path / "kg.csv", ReadSettings(on_missing="drop"))
    assert most > 0
    assert most <= room.ROW_ON_DISK * len(x) + graph.arrays.indptr.nbytes


def is_open(handle: int, node: int) -> bool:
    """Return whether a handle still belongs to the file with this inode."""
    try:
        return os.fstat(handle).st_ino == node
    except OSError:
        return False


def test_more_relations_than_a_key_holds_are_refused(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in (None, tmp_path / "scratch"):
        monkeypatch.setattr(rows, "node_bits", lambda num_nodes: 31)
        with pytest.raises(InputError, match=r"kg\.csv: the graph has \d relations; .* at most 1 "):
            stored(directory, SETTINGS[0])


def test_an_error_in_a_later_piece_names_the_same_row(
    stored: Stored, small: None, table: pl.DataFrame, tmp_path: Path
) -> None:
    texts = []
    for directory in (None, tmp_path / "scratch"):
        with pytest.raises(InputError, match=r"row \d{3}: relation is missing") as no:
            stored(directory, None)
        texts.append(str(no.value))
    odd = table.with_row_index().with_columns(
        x_name=pl.when(pl.col("index") == 130).then(pl.lit("another")).otherwise("x_name")
    )
    odd.drop("index").write_csv(tmp_path / "kg.csv")
    for directory in (None, tmp_path / "scratch"):
        with pytest.raises(InputError, match=r"row 13\d: .* has name 'another'|in row 13\d") as no:
            stored(directory, ReadSettings(on_missing="drop"))
        texts.append(str(no.value))
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_killed_run_leaves_nothing_for_the_next(
    stored: Stored, small: None, tmp_path: Path
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from clinical_drug_discovery.graph import read\n"
        "from clinical_drug_discovery.graph.building import keys\n"
        "from clinical_drug_discovery.graph.reading.room import ReadingPlan\n"
        "keys._RUN_KEYS = 64\n"
        "directory = Path(sys.argv[2])\n"
        "read.plan_reading = lambda *_: ReadingPlan(directory)\n"
        "keys.SortedKeys._merged = lambda *_: os.kill(os.getpid(), 9)\n"
        "read.read_graph(sys.argv[1], read.ReadSettings(on_missing='drop'))\n"
    )
    scratch = tmp_path / "scratch"
    command = [sys.executable, "-c", code, str(tmp_path / "kg.csv"), str(scratch)]
    assert subprocess.run(command, check=False).returncode == -9
    assert list(scratch.iterdir()) == []
    assert stored(scratch, SETTINGS[0]) == stored(None, SETTINGS[0])


@pytest.mark.parametrize("fail_at", [1, 2, 3, 9, 20])
def test_a_full_disk_is_an_error_that_names_the_directory(
    stored: Stored, small: None, tmp_path: Path, fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    FailingDisk(scratch, fail_at=fail_at, forever=True).install(monkeypatch)
    with pytest.raises(WriteError, match=rf"{scratch} cannot be written: No space left"):
        stored(scratch, SETTINGS[0])
    assert not scratch.exists() or list(scratch.iterdir()) == []


@pytest.mark.parametrize("call", ["os.preadv", "mmap.mmap"])
def test_a_file_that_cannot_be_read_again_is_an_error_that_names_the_directory(
    stored: Stored, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(call, fail)
    with pytest.raises(
        InputError, match=rf"in {tmp_path / 'scratch'} cannot be read: Input/output"
    ):
        stored(tmp_path / "scratch", SETTINGS[0])


def test_the_plan_chooses_files_says_so_and_refuses_nodes_without_room(
    table: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, scratch = tmp_path / "kg.parquet", tmp_path / "scratch"
    table.filter(~pl.col("relation").is_in(["", "relation"])).write_parquet(path)
    monkeypatch.setattr(room, "_LEAST", 8 * GIB)
    monkeypatch.setattr(room, "_BUFFERS", 8 * GIB)
    said: list[str] = []
    monkeypatch.setattr(log, "milestone", said.append)

    def with_room(size: int, scratch_dir: Path | None) -> None:
        left = Room(size, "the rest of a group")
        monkeypatch.setattr(room, "available_memory", lambda: left)
        read_graph(path, None, ReadingMemory("64GiB", scratch_dir))

    with_room(9 * GIB, scratch)
    assert said == []
    assert not scratch.exists()
    with pytest.raises(InputError, match=r"needs about 8\.00 GiB, but .* 1\.00 GiB.*--scratch-dir"):
        with_room(GIB, None)
    with_room(GIB, scratch)
    assert len(said) == 1
    assert f"the rows lie in files in {scratch}" in said[0]
    with pytest.raises(InputError, match=r"kg\.parquet: reading 0 and more nodes needs more than"):
        with_room(room.FILES_BUFFERS - 1, scratch)
    with pytest.raises(InputError, match=r"reading \d+ and more nodes needs .* also with the rows"):
        with_room(room.FILES_BUFFERS, scratch)
    short = room.FILES_BUFFERS + room.NODE * 200
    with_room(short, scratch)
    long_names = pl.read_parquet(path).with_columns(
        pl.format("{}" + "x" * 90, f"{side}_name").alias(f"{side}_name") for side in "xy"
    )
    long_names.write_parquet(path)
    with pytest.raises(InputError, match=r"reading \d+ and more nodes needs .* also with the rows"):
        with_room(short, scratch)
