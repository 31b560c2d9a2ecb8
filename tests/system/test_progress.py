"""The growing history of a run, and its timed parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from faults import FailingDisk

from clinical_drug_discovery.system.machine import PeakMemory
from clinical_drug_discovery.system.progress import HistoryFile, Run

RECORDS: list[dict[str, Any]] = [
    {"epoch": 1, "loss": 0.1 + 0.2, "mean_cosine.drug": 0.5, "mean_cosine.a,b": None},
    {"epoch": 2, "loss": 1e-30},
]


def test_the_history_grows_by_whole_rows(tmp_path: Path) -> None:
    directory, history = tmp_path / "new" / "model", HistoryFile()
    history.append(RECORDS[0])  # outside of `growing`: nothing to write to
    with history.growing(directory):
        assert list(tmp_path.iterdir()) == []
        for number, record in enumerate(RECORDS, start=1):
            history.append(record)
            text = (directory / "history.csv").read_text()
            assert text.count("\n") == number + 1
            assert text.endswith("\n")
    table = pl.read_csv(directory / "history.csv")
    assert table.to_dicts() == [RECORDS[0], {**dict.fromkeys(RECORDS[0]), **RECORDS[1]}]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_failed_run_removes_its_history_and_directories(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(directory: Path) -> None:
        history = HistoryFile()
        with history.growing(directory):
            history.append(RECORDS[0])
            raise error

    with pytest.raises(error):
        fail(tmp_path / "new" / "model")
    assert list(tmp_path.iterdir()) == []
    checkpoint = tmp_path / "model.run" / "checkpoint-1.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    with pytest.raises(error):
        fail(checkpoint.parent)
    assert sorted(os.listdir(checkpoint.parent)) == [checkpoint.name, "history.csv"]


def test_a_full_disk_stops_the_history_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FailingDisk(tmp_path, most_bytes=60).install(monkeypatch)
    history = HistoryFile()
    with history.growing(tmp_path / "run"):
        for record in RECORDS * 3:
            history.append(record)
    (text,) = caplog.messages
    assert "history.csv does not grow any more: No space left on device" in text


def test_a_timed_part_is_measured_and_warnings_are_kept(tmp_path: Path) -> None:
    device = torch.device("cpu")
    run = Run((tmp_path,), tmp_path, tmp_path, device, 0.1, PeakMemory(device))
    with run.timed("read"):
        run.warn("careful")
    assert list(run.seconds) == ["seconds_read"]
    assert run.warnings == ["careful"]
