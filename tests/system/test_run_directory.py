"""The swap of a finished run into place, its lock, and what is left after a kill at any step."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from clinical_drug_discovery.system import disk
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import WriteError
from clinical_drug_discovery.system.run_directory import (
    Places,
    check_unused,
    locked,
    locked_files,
    locked_output,
    part_of,
    settle,
    swap,
)

OURS = ("weights", "config")
TARGETS = ("e_index.csv", "e.npy")


class KilledError(BaseException):
    """Stands for the end of the process: nothing of the run is executed any more."""


def write_run(home: Path, content: str) -> None:
    """Write a run as `cdd embed` does: results under other names, then the swap."""
    with locked(home / "model") as places:
        places.work.mkdir(exist_ok=True)
        for name in OURS:
            (places.work / name).write_text(content)
        targets = [home / name for name in TARGETS]
        for target in targets:
            part_of(target, places).write_text(content)
        swap(places, targets, OURS)


def contents(home: Path) -> set[str]:
    paths = [*(home / "model" / name for name in OURS), *(home / name for name in TARGETS)]
    return {path.read_text() for path in paths}


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let the call with this number, of all calls that rename or remove, end the process."""
    count = [0]

    def counting(call: Callable[..., None]) -> Callable[..., None]:
        def counted(*paths: Path) -> None:
            count[0] += 1
            if count[0] == number:
                raise KilledError
            call(*paths)

        return counted

    for name in ("rename", "remove"):
        monkeypatch.setattr(disk, name, counting(getattr(disk, name)))
    return count


def test_a_kill_at_any_step_leaves_the_old_run_or_is_completed(tmp_path: Path) -> None:
    steps = 0
    for number in range(1, 100):
        home = tmp_path / str(number)
        home.mkdir()
        write_run(home, "old")
        (home / "model" / "notes.txt").write_text("of the user")
        with pytest.MonkeyPatch.context() as patch:
            count = kill_at(patch, number)
            try:
                write_run(home, "new")
            except KilledError:
                steps += 1
        if count[0] < number:
            break
        seen = contents(home) if (home / "model").exists() and (home / "e.npy").exists() else None
        assert seen in ({"old"}, {"new"}, None), number
        settle(home / "model")
        assert contents(home) in ({"old"}, {"new"}), number
        assert (home / "model" / "notes.txt").read_text() == "of the user"
        if number > 1:  # the first step gives the journal its name
            assert contents(home) == {"new"}
            left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
            expected = ["e.npy", "e_index.csv", "model"]
            assert left == [*expected, *(f"model/{name}" for name in sorted([*OURS, "notes.txt"]))]
    assert steps == number - 1 > 6


def test_an_interrupted_repair_is_repaired(tmp_path: Path) -> None:
    write_run(tmp_path, "old")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(KilledError):
            write_run(tmp_path, "new")
    assert not (tmp_path / "model").exists()
    for _ in range(20):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, 3)  # two steps at a time
            try:
                settle(tmp_path / "model")
                break
            except KilledError:
                pass
    assert contents(tmp_path) == {"new"}


@contextmanager
def holding(lock: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a lock; `lock` is an expression with the path as sys.argv[1]."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from clinical_drug_discovery.system.run_directory import locked, locked_files\n"
        f"with {lock}:\n"
        "    print('locked', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


def test_a_directory_in_use_is_refused_with_the_run_and_its_age(tmp_path: Path) -> None:
    model_dir, output = tmp_path / "model", tmp_path / "e.csv"
    with holding("locked(Path(sys.argv[1]))", model_dir) as process:
        record = json.loads((tmp_path / "model.lock").read_text())
        message = rf"in use by process {process.pid}, whose run {record['run']} began \d+ s ago"
        with pytest.raises(InputError, match=message), locked(model_dir):
            pass
        with pytest.raises(InputError, match=message):
            check_unused(model_dir, output, [output])
        process.kill()
    assert (tmp_path / "model.lock").exists()
    check_unused(model_dir, output, [output])
    with locked(model_dir):  # a lock of a killed process is taken over
        check = pytest.raises(InputError, match=f"in use by process {os.getpid()}")
        with check, locked(model_dir):
            pass
    assert os.listdir(tmp_path) == []


def test_an_output_in_use_is_refused_and_a_killed_process_does_not_block_it(tmp_path: Path) -> None:
    output = tmp_path / "e.npy"
    files = [output, tmp_path / "e_index.csv"]
    with holding("locked_files('output', [Path(sys.argv[1])])", files[1]) as process:
        message = rf"^output \(got {output}\) is in use by process {process.pid}, .*another path$"
        with pytest.raises(InputError, match=message):
            check_unused(tmp_path / "other", output, files)
        with (
            pytest.raises(InputError, match=message),
            locked_files(f"output (got {output})", files),
        ):
            pass
        process.kill()
    assert os.listdir(tmp_path) == [".lock-e_index.csv"]
    with locked_files("output", files):
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def test_an_interrupted_swap_takes_no_file_of_another_run(tmp_path: Path) -> None:
    write_run(tmp_path, "old")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(KilledError):
            write_run(tmp_path, "new")
    other = Places.of(tmp_path / "other")
    for name in TARGETS:  # as a run that writes at this moment, or was killed then
        part_of(tmp_path / name, other).write_text("half")
    settle(tmp_path / "model")
    assert contents(tmp_path) == {"new"}
    assert {part_of(tmp_path / name, other).read_text() for name in TARGETS} == {"half"}


@pytest.mark.parametrize("same_start", [True, False])
def test_without_locks_of_the_system_the_start_time_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_start: bool
) -> None:
    """The number of a process that has ended is given to another process."""

    def unsupported(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(fcntl, "flock", unsupported)
    other = psutil.Process(os.getppid())
    with locked(tmp_path / "model"):
        record = json.loads((tmp_path / "model.lock").read_text())
    record |= {"pid": other.pid, "process_started": other.create_time() - 60 * (not same_start)}
    record["started"] = time.time() - 3 * 3600
    (tmp_path / "model.lock").write_text(json.dumps(record))
    if same_start:
        with pytest.raises(InputError, match=r"began 3\.0 h ago"), locked(tmp_path / "model"):
            pass
    else:
        with locked(tmp_path / "model"):
            pass


def test_a_reader_is_told_of_an_unfinished_run(tmp_path: Path) -> None:
    Places.of(tmp_path / "model").work.mkdir()
    with pytest.raises(InputError, match=r"does not exist yet: an unfinished run lies in .*\.run$"):
        settle(tmp_path / "model")


def test_a_journal_of_a_stranger_renames_no_other_file(tmp_path: Path) -> None:
    work = Places.of(tmp_path / "home" / "model").work
    work.mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    record = {"targets": ["../mine", "other"], "ours": []}
    (work / "swap.json").write_text(json.dumps(record))
    (work / "weights").write_text("new")
    settle(tmp_path / "home" / "model")
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "home" / "model" / "swap.json").write_text("[")
    settle(tmp_path / "home" / "model")  # the directory is complete
    assert (tmp_path / "home" / "model" / "weights").read_text() == "new"


def test_a_lock_that_does_not_fit_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    for hold in (locked, locked_output):
        with pytest.raises(WriteError, match="No space left"), hold(tmp_path / "new" / "results"):
            pass
    assert not list(tmp_path.iterdir())
