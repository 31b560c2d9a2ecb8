"""A training that was stopped and continued ends in the bytes of one that was not stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.training.checkpoint import Checkpoints

Generate = Callable[..., dict[str, Any]]
MODELS: dict[str, Generate] = {"graphsage": generate_gnn_embeddings, "hgt": generate_hgt_embeddings}
TRAINING: dict[str, dict[str, Any]] = {
    "full": {},
    "sampled": {"training": "sampled", "subgraph_size": 60},  # two steps an epoch
}
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_epochs": 4}
SMALL |= {"ranker": False, "cache": False, "device": "cpu"}


class Killed(BaseException):
    """Ends a run at a moment that the test chooses."""


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def kill_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process die after it has saved so many checkpoints."""
    save, saved = Checkpoints.save, []

    def saving(*given: Any) -> None:
        save(*given)
        saved.append(1)
        if len(saved) == number:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", saving)


def stop(generate: Generate, edges: Path, output: Path, number: int, **settings: Any) -> None:
    """Run until so many checkpoints are saved."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, number)
        with pytest.raises(Killed):
            generate(edges, output, checkpoint_minutes=0, **{**SMALL, **settings})


def results(output: Path) -> list[bytes]:
    """Return the bytes that must not depend on a stop, and the history without its times."""
    model_dir = output.with_name(f"{output.stem}_model")
    history = pl.read_csv(model_dir / "history.csv").drop("seconds").write_csv().encode()
    names = ("weights.safetensors", "config.json")
    return [output.read_bytes(), *((model_dir / name).read_bytes() for name in names), history]


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("model", MODELS)
def test_a_continued_run_ends_in_the_bytes_of_an_uninterrupted_one(
    model: str, training: str, edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("edge_sampler", "memory_plan"):  # else a batch has all nodes of so small a graph
        monkeypatch.setattr(f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", 4)
    generate, settings = MODELS[model], {**SMALL, **TRAINING[training]}
    settings |= {"edge_batch_size" if model == "graphsage" else "edge_sample_size": 4}
    generate(edges, tmp_path / "whole" / "e.npy", **settings)
    wanted = results(tmp_path / "whole" / "e.npy")
    output = tmp_path / "new" / "e.npy"
    run_dir = tmp_path / "new" / "e_model.run"
    # The second kill comes after the continued run has saved its first checkpoint, the third after
    # the last step. With sampled training, the first two are in the middle of an epoch.
    steps = 4 * (2 if training == "sampled" else 1)
    stop(generate, edges, output, 1, **settings)
    for number in (2, steps - 3):
        stop(generate, edges, output, number, **settings, resume=True)
    assert len(list(run_dir.glob("checkpoint-*"))) == 2
    rows = (run_dir / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4"]
    stats = generate(edges, output, **settings, resume=True)
    assert results(output) == wanted
    assert not run_dir.exists()
    assert stats["learning_rate_cycles"] == [
        {"num_epochs": 4, "learning_rate": {"graphsage": 0.01, "hgt": 0.001}[model]}
    ]
    assert (
        0
        < stats["seconds_train"]
        == json.loads((tmp_path / "new" / "e_model" / "stats.json").read_text())["seconds_train"]
    )
