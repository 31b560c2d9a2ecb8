"""The function after each epoch ends a training; trackers get its figures and cannot harm it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.errors import InputError

SMALL: dict[str, Any] = {
    "embedding_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_epochs": 6, "ranker": False,
}  # fmt: skip


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def rows_of(stats: dict[str, Any]) -> list[dict[str, Any]]:
    return pl.read_csv(Path(stats["model_dir"]) / "history.csv").to_dicts()


@pytest.mark.parametrize("generate", [generate_gnn_embeddings, generate_hgt_embeddings])
def test_the_hook_sees_the_history_and_ends_the_training(
    generate: Any, edges: Path, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def on_epoch(record: dict[str, Any]) -> bool:
        seen.append(dict(record))
        record["loss"] = -1.0  # its own copy
        return bool(record["epoch"] == 3)

    stats = generate(edges, tmp_path / "e.npy", on_epoch=on_epoch, **SMALL)
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    rows = rows_of(stats)
    assert [row["loss"] for row in rows] == [row["loss"] for row in seen]
    assert stats["ended_early"] == "on_epoch asked to stop after epoch 3 of 6"
    assert (stats["finished_epochs"], stats["num_epochs"]) == (3, 6)
    assert stats["final_loss"] == rows[-1]["loss"]
    # The run can go on, and ends in the same bytes as a run that nobody has stopped.
    longer = generate(edges, tmp_path / "e.npy", resume=True, **SMALL)
    assert (longer["finished_epochs"], longer["ended_early"]) == (6, None)
    generate(edges, tmp_path / "whole.npy", **SMALL)
    assert (tmp_path / "e.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_to_stop_after_the_last_epoch_is_not_an_early_end(edges: Path, tmp_path: Path) -> None:
    stats = generate_gnn_embeddings(
        edges, tmp_path / "e.npy", on_epoch=lambda row: "stop" if row["epoch"] == 6 else None,
        **SMALL,
    )  # fmt: skip
    assert (stats["finished_epochs"], stats["ended_early"]) == (6, None)


def test_an_error_of_the_hook_ends_the_run_without_a_file(edges: Path, tmp_path: Path) -> None:
    def prune(record: dict[str, Any]) -> None:
        raise KeyError(record["epoch"])

    with pytest.raises(KeyError):
        generate_gnn_embeddings(edges, tmp_path / "a" / "e.npy", on_epoch=prune, **SMALL)
    with pytest.raises(InputError, match=r"on_epoch \(returned 'halt'\) must return True or 'st"):
        generate_gnn_embeddings(
            edges, tmp_path / "a" / "e.npy", on_epoch=lambda row: "halt", **SMALL
        )
    with pytest.raises(InputError, match=r"on_epoch \(got 3\) must be a function"):
        generate_gnn_embeddings(edges, tmp_path / "a" / "e.npy", on_epoch=3, **SMALL)  # type: ignore[arg-type]  # refused
    assert [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".graph"] == [edges]


class FakeMlFlow(ModuleType):
    """Notes what a program sends, in the form of MLflow's functions."""

    def __init__(self, fails_at: int | None = None, has_run: bool = False) -> None:
        super().__init__("mlflow")
        self.sent: list[Any] = []
        self._fails_at, self._has_run = fails_at, has_run

    def active_run(self) -> Any:
        return SimpleNamespace() if self._has_run else None

    def start_run(self, run_name: str) -> None:
        self.sent.append(("start", run_name))

    def log_params(self, params: dict[str, Any]) -> None:
        json.dumps(params)
        self.sent.append(("params", params["model"], params["num_epochs"]))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step == self._fails_at:
            raise ConnectionError("connection lost\nin detail")
        assert all(isinstance(value, float | int) for value in metrics.values())
        self.sent.append((step, metrics["loss"]))

    def end_run(self, status: str) -> None:
        self.sent.append(("end", status))


def test_mlflow_gets_settings_and_figures(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = FakeMlFlow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    stats = generate_hgt_embeddings(edges, tmp_path / "e.npy", tracker="mlflow", **SMALL)
    figures = [(row["epoch"], row["loss"]) for row in rows_of(stats)]
    first = [("start", "e_model"), ("params", "hgt", 6)]
    assert mlflow.sent == [*first, *figures, ("end", "FINISHED")]


def test_a_run_of_the_caller_stays_open_and_a_lost_connection_is_a_warning(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = FakeMlFlow(fails_at=3, has_run=True)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    stats = generate_gnn_embeddings(edges, tmp_path / "e.npy", tracker="mlflow", **SMALL)
    assert [one[0] for one in mlflow.sent] == ["params", 1, 2]
    assert stats["warnings"] == ["tracker mlflow gets no more figures: connection lost"]
    assert stats["finished_epochs"] == 6


def test_a_failed_run_is_closed_as_failed(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = FakeMlFlow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    with pytest.raises(ZeroDivisionError):
        generate_gnn_embeddings(
            edges, tmp_path / "e.npy", tracker="mlflow", on_epoch=lambda row: 1 / 0, **SMALL
        )
    assert mlflow.sent[-1] == ("end", "FAILED")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_the_training(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in ("torch.utils.tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"tracker \(got '{name}'\) needs .*pip install {name}"):
        generate_gnn_embeddings(edges, tmp_path / "a" / "e.npy", tracker=name, **SMALL)
    assert not (tmp_path / "a").exists()


def test_tensorboard_writes_beside_the_model(edges: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):  # the second run hides the figures of the first
        stats = generate_gnn_embeddings(
            edges, tmp_path / "e.npy", tracker="tensorboard", overwrite=True, **SMALL
        )
    events = accumulator.EventAccumulator(str(tmp_path / "e_model.tensorboard"))
    events.Reload()
    found = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert [(row["epoch"], row["loss"]) for row in rows_of(stats)] == found
