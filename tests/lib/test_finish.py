"""A run is one thing on disk: whatever fails while it is written, one complete run stays."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from faults import FailingDisk
from graphs import planted_facts, to_rows

from clinical_drug_discovery.lib import embed_model
from clinical_drug_discovery.lib._run import model_dir as model_files
from clinical_drug_discovery.lib._run import results
from clinical_drug_discovery.lib._run.evaluation import write_report
from clinical_drug_discovery.lib._run.finish import finish_run, working
from clinical_drug_discovery.lib._run.model_dir import run_of_model
from clinical_drug_discovery.lib._run.saved_model import SavedModel
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.embeddings_file import write_tables
from clinical_drug_discovery.ranking.stored import ranker_file
from clinical_drug_discovery.ranking.stored.ranker_file import RANKER_VERSION
from clinical_drug_discovery.system import disk
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import save_checksummed
from clinical_drug_discovery.system.progress import HistoryFile
from clinical_drug_discovery.system.run_directory import locked, locked_files

SMALL: dict[str, Any] = {
    "hidden_dim": 4, "num_layers": 1, "num_epochs": 1, "device": "cpu", "cache": False,
    "ranker": False,
}  # fmt: skip
OLD, NEW = 4, 6  # embedding_dim of the run before and of the run that fails
Write = Callable[[Path, bool], Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of a run."""
    home = tmp_path_factory.mktemp("home")
    to_rows(planted_facts(num_drugs=12, num_diseases=8, num_genes=4)).write_csv(home / "kg.csv")
    generate_gnn_embeddings(home / "kg.csv", home / "e.npy", OLD, **SMALL)
    return home


@pytest.fixture(scope="module")
def write(home: Path) -> Iterator[Write]:
    """A function that writes a trained run to a directory, with or without a ranker."""
    patch, seen = pytest.MonkeyPatch(), []

    def keep(*arguments: Any, **more: Any) -> dict[str, Any]:
        seen.append((arguments, more))
        return {}

    with patch.context() as first:
        first.setattr(embed_model, "write_results", keep)
        generate_gnn_embeddings(home / "kg.csv", home / "e.npy", NEW, overwrite=True, **SMALL)
    shutil.rmtree(home / "e_model.run", ignore_errors=True)
    (((run, _, *parts), more),) = seen

    def write_again(place: Path, ranker: bool) -> Any:
        output, model_dir = place / "e.npy", place / "e_model"
        again = replace(run, output=output, model_dir=model_dir, seconds=dict(run.seconds))
        again = replace(again, history=HistoryFile())
        with working(again) as places:
            record = results.write_results(again, places, *parts, **more)
            if ranker:
                results.fit_ranker(again, places, parts[0], parts[3], record)
            return record

    def save_ranker(path: Path, ranker: object, sha256: str, run: str | None) -> None:
        save_checksummed(path, RANKER_VERSION, {"run": run, "graph_sha256": sha256}, {})

    # The fit of a ranker takes seconds, and the probe a tenth.
    patch.setattr(results, "probe_embeddings", lambda *_, **__: None)
    patch.setattr(results, "fit_drug_ranker", lambda *_, **__: None)
    patch.setattr(ranker_file, "save_ranker", save_ranker)
    yield write_again
    patch.undo()


def dimension(place: Path) -> int:
    """Read everything of the run in a directory, and return its embedding_dim."""
    saved = SavedModel.read(place / "e_model", None, with_ranker=False)
    assert saved.embeddings is not None
    config = json.loads((place / "e_model" / "config.json").read_text())
    assert saved.embeddings.shape[1] == config["embedding_dim"]
    return int(config["embedding_dim"])


def fail(
    home: Path, place: Path, write: Write, ranker: bool, failing: FailingDisk
) -> InputError | None:
    """Write the new run over the old one on a failing disk, and return the error."""
    shutil.copytree(home, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(home.parent))  # the place of the rescue
        failing.install(patch)
        try:
            write(place, ranker)
        except InputError as error:
            return error
    return None


def check_outcome(place: Path, error: InputError | None) -> str:
    """Check the message and the state of the disk; return which of the outcomes it was."""
    text = str(error)
    assert "\n" not in text
    left = {path.name for path in place.iterdir()} - {"kg.csv"}
    if error is None:
        outcome = "written"
    elif "results are safe in" in text:
        assert "cannot be written" in text or "No space" in text
        folder = Path(text.split("results are safe in ")[1].split(":")[0])
        assert dimension(folder) == NEW
        shutil.rmtree(folder)
        assert left == {"e.npy", "e_index.csv", "e_model"}
        assert dimension(place) == OLD
        return "rescued"
    elif "brings it into place" in text:
        outcome = "interrupted"
    elif "are complete" in text:
        assert "cdd fit-ranker --model-dir" in text
        outcome = "without ranker"
    else:  # before anything was written
        assert text.endswith("No space left on device") or " bytes are free)" in text
        assert dimension(place) == OLD
        return "not begun"
    assert dimension(place) == NEW
    left = {path.name for path in place.rglob("*")} - {"kg.csv", "ranker.safetensors"}
    names = set(model_files.MODEL_FILES) - {"ranker.safetensors", "checkpoint.safetensors"}
    assert left == {"e.npy", "e_index.csv", "e_model", *names}
    return outcome


@pytest.mark.parametrize("forever", [False, True], ids=["one call fails", "all later calls fail"])
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_each_call_that_changes_the_disk_may_fail(
    home: Path, tmp_path: Path, write: Write, forever: bool, every: int
) -> None:
    outcomes: list[str] = []
    for number in range(1, 200, every):
        place = tmp_path / str(number)
        failing = FailingDisk(place, fail_at=number, forever=forever)
        error = fail(home, place, write, True, failing)
        outcomes.append(check_outcome(place, error))
        if len(failing.calls) < number:
            break
        shutil.rmtree(place)
    assert outcomes[-1] == "written"
    expected = {"not begun", "rescued", "interrupted", "without ranker", "written"}
    assert set(outcomes) == expected
    assert outcomes.count("rescued") > 10


def test_the_disk_may_be_full_after_any_number_of_bytes(
    home: Path, tmp_path: Path, write: Write
) -> None:
    whole = FailingDisk(tmp_path / "whole")
    assert fail(home, tmp_path / "whole", write, True, whole) is None
    outcomes = []
    # Times in the records have more or fewer digits, so the last bytes may not be missed.
    for most in range(0, whole.num_bytes - 200, whole.num_bytes // 12):
        place = tmp_path / str(most)
        error = fail(home, place, write, True, FailingDisk(place, most_bytes=most))
        outcomes.append(check_outcome(place, error))
    assert set(outcomes) == {"rescued", "without ranker"}


def test_without_a_place_for_the_rescue_the_message_says_so(
    home: Path, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(disk, "flush", full)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home, tmp_path / "place")
    with pytest.raises(InputError, match=r"cannot be written: .*; nor can .*results are lost"):
        write(tmp_path / "place", False)
    monkeypatch.undo()
    assert dimension(tmp_path / "place") == OLD
    assert os.listdir(tmp_path) == ["place"]


def test_a_directory_that_was_deleted_is_made_again(
    home: Path, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = finish_run

    def delete_first(*arguments: Any) -> None:
        shutil.rmtree(tmp_path / "place")
        real(*arguments)

    shutil.copytree(home, tmp_path / "place")
    monkeypatch.setattr(results, "finish_run", delete_first)
    write(tmp_path / "place", False)
    assert dimension(tmp_path / "place") == NEW
    assert sorted(os.listdir(tmp_path / "place")) == ["e.npy", "e_index.csv", "e_model"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_more_is_named_with_its_reason(
    home: Path, tmp_path: Path, write: Write, number: int
) -> None:
    failing = FailingDisk(tmp_path / "place", fail_at=9, forever=True, number=number)
    error = fail(home, tmp_path / "place", write, False, failing)
    assert f"cannot be written: {os.strerror(number)}" in str(error)
    assert check_outcome(tmp_path / "place", error) == "rescued"


def test_a_model_directory_of_a_later_version_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "place")
    path = tmp_path / "place" / "e_model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(InputError, match=r"format version 99, and this version .* reads up to 2"):
        dimension(tmp_path / "place")
    del config["run"]  # as before version 2
    path.write_text(json.dumps({**config, "format_version": 1}))
    with pytest.raises(InputError, match=r"mixes two runs: .* and config\.json is of an unnamed"):
        dimension(tmp_path / "place")


def test_embeddings_inside_of_the_model_directory(home: Path, tmp_path: Path) -> None:
    options = {**SMALL, "model_dir": tmp_path / "m", "overwrite": True}
    for dim in (OLD, NEW):
        generate_gnn_embeddings(home / "kg.csv", tmp_path / "m" / "e.csv", dim, **options)
        assert os.listdir(tmp_path) == ["m"]
        assert (tmp_path / "m" / "e.csv").is_file()


TABLE = pl.DataFrame({"disease_id": ["a", "b"], "score": [1.0, 2.0]})
PRODUCERS: dict[str, Callable[[Path], Any]] = {
    "rank": lambda place: write_tables(place / "ranks.csv", iter([TABLE, TABLE])),
    "rank to Parquet": lambda place: write_tables(place / "ranks.parquet", iter([TABLE, TABLE])),
    "synthesize": lambda place: synthesize_graph(
        place / "kg.csv.zst", scale=0.0005, overwrite=True
    ),
    "evaluate": lambda place: write_report(place / "out", {"mrr": 1.0}, {"ranks.parquet": TABLE}),
}


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def error_of(produce: Callable[[Path], Any], place: Path, failing: FailingDisk) -> str | None:
    with pytest.MonkeyPatch.context() as patch:
        failing.install(patch)
        try:
            produce(place)
        except InputError as error:
            return str(error)
    return None


@pytest.mark.parametrize("command", PRODUCERS)
def test_other_outputs_are_the_old_or_the_new_file(tmp_path: Path, command: str) -> None:
    produce = PRODUCERS[command]
    produce(tmp_path / "new")
    new = contents(tmp_path / "new")
    for number in range(1, 50):
        place = tmp_path / str(number)
        shutil.copytree(tmp_path / "new", place)
        for path in place.rglob("*.*"):
            path.write_bytes(b"old")
        failing = FailingDisk(place, fail_at=number)
        text = error_of(produce, place, failing)
        found = contents(place)
        if text is None:
            break
        assert "cannot be written: No space left on device" in text
        if found.keys() != new.keys():  # a table without its report
            assert found.keys() == {"ranks.parquet"}
        else:
            assert set(found.values()) == {b"old"} or found == new
    assert found == new
    assert number == len(failing.calls) + 1 > 4


#: Trains a run, and kills itself in no way; the test does. Each call that changes the disk is slow.
SLOWED = """
import sys, time
from clinical_drug_discovery.lib import embed_model, gnn_embeddings
from clinical_drug_discovery.system import disk
real = embed_model.write_results
def slowed(call):
    def wait(*arguments):
        time.sleep(0.02)
        return call(*arguments)
    return wait
def write(*arguments, **more):
    for name in ("create", "create_temporary", "flush", "rename", "remove"):
        setattr(disk, name, slowed(getattr(disk, name)))
    print("writing", flush=True)
    return real(*arguments, **more)
embed_model.write_results = write
gnn_embeddings.generate_gnn_embeddings(
    sys.argv[1], sys.argv[2], 6, hidden_dim=4, num_layers=1, num_epochs=1, device="cpu",
    cache=False, ranker=False, overwrite=True,
)
print("done", flush=True)
"""


def kill_while_writing(home: Path, place: Path, seconds: float) -> str:
    """Kill a run some time after it began to write; return "old" or "new" for what is left."""
    shutil.copytree(home, place)
    command = [sys.executable, "-c", SLOWED, str(place / "kg.csv"), str(place / "e.npy")]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    left = "new" if dimension(place) == NEW else "old"
    with locked(place / "e_model"):  # a later run takes over the lock, and tidies up
        pass
    assert not list((place / "e_model").glob(".*"))
    return left


def test_a_kill_while_a_run_is_written(home: Path, tmp_path: Path) -> None:
    assert kill_while_writing(home, tmp_path / "early", 0.1) == "old"


@pytest.mark.slow
def test_many_kills_while_a_run_is_written(home: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    times = [2.5 * (n + rng.random()) / 10 for n in range(10)]
    left = [kill_while_writing(home, tmp_path / str(n), t) for n, t in enumerate(times)]
    assert set(left) == {"old", "new"}


def test_files_of_two_runs_are_refused(home: Path, tmp_path: Path, write: Write) -> None:
    for name in ("old", "new"):
        shutil.copytree(home, tmp_path / name)
    write(tmp_path / "new", False)
    ids = {run_of_model(tmp_path / name / "e_model") for name in ("old", "new")}
    assert len(ids) == 2
    for name in ("graph.safetensors", "stats.json", "config.json"):
        mixed = tmp_path / f"mixed {name}"
        shutil.copytree(tmp_path / "old", mixed)
        shutil.copy(tmp_path / "new" / "e_model" / name, mixed / "e_model" / name)
        with pytest.raises(InputError, match="mixes two runs"):
            dimension(mixed)
    mixed = tmp_path / "mixed embeddings"
    shutil.copytree(tmp_path / "old", mixed)
    shutil.copy(tmp_path / "new" / "e.npy", mixed / "e.npy")
    with pytest.raises(InputError, match=r"e\.npy is not the file that was written with the model"):
        dimension(mixed)


def test_a_second_run_with_the_output_of_a_running_one_is_refused(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    again: dict[str, Any] = {**SMALL, "model_dir": tmp_path / "other", "overwrite": True}
    edges, output = tmp_path / "kg.csv", tmp_path / "e.npy"
    with locked_files("output", [tmp_path / "e_index.csv"]):
        with pytest.raises(InputError, match=r"output \(got .*e\.npy\) is in use by process"):
            generate_gnn_embeddings(edges, output, NEW, **again)
        assert not (tmp_path / "other").exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert dimension(tmp_path) == OLD
    generate_gnn_embeddings(edges, output, NEW, **again)
    assert (tmp_path / "other").is_dir()
    assert not list(tmp_path.glob(".*"))
