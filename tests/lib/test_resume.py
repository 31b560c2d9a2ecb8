"""A training that was stopped and continued ends in the bytes of one that was not stopped."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from graphs import Fact, node, to_rows
from stops import Killed, kill_after, results

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import load_checksummed, save_checksummed
from clinical_drug_discovery.training.checkpoint import VERSION
from clinical_drug_discovery.training.history import TrainingRecord

Generate = Callable[..., dict[str, Any]]
MODELS: dict[str, Generate] = {"graphsage": generate_gnn_embeddings, "hgt": generate_hgt_embeddings}
TRAINING: dict[str, dict[str, Any]] = {
    "full": {},
    "sampled": {"training": "sampled", "subgraph_size": 70},  # two steps an epoch
}
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_epochs": 4}
SMALL |= {"ranker": False, "cache": False, "device": "cpu"}


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def stop(generate: Generate, edges: Path, output: Path, number: int, **settings: Any) -> None:
    """Run until so many checkpoints are saved."""
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, number)
        with pytest.raises(Killed):
            generate(edges, output, checkpoint_minutes=0, **{**SMALL, **settings})


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("model", MODELS)
def test_a_continued_run_ends_in_the_bytes_of_an_uninterrupted_one(
    model: str,
    training: str,
    kernels: bool,
    edges: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernels:
        monkeypatch.setattr("clinical_drug_discovery.ops.backend.MIN_KERNEL_EDGES", 0)
    for module in ("edge_sampler", "graph_sizes"):  # else a batch has all nodes of so small a graph
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
    (run_dir / ".part-killed.safetensors").touch()
    stats = generate(edges, output, **settings, resume=True)
    assert results(output) == wanted
    assert not list((tmp_path / "new").rglob(".part-*"))
    assert not run_dir.exists()
    assert stats["learning_rate_cycles"] == [
        {"num_epochs": 4, "learning_rate": {"graphsage": 0.01, "hgt": 0.002}[model]}
    ]
    assert (
        0
        < stats["seconds_train"]
        == json.loads((tmp_path / "new" / "e_model" / "stats.json").read_text())["seconds_train"]
    )


def test_a_step_may_lack_a_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drugs share a gene, so most steps draw no pair of different drugs."""
    for module in ("edge_sampler", "graph_sizes"):  # else a batch has all nodes of so small a graph
        monkeypatch.setattr(f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", 4)
    genes = [node("gene/protein", i) for i in range(160)]
    facts = [(node("drug", i), "drug_protein", genes[0]) for i in range(2)]
    facts += [(genes[i], "protein_protein", genes[(3 * i + 1) % 160]) for i in range(160)]
    edges, output = tmp_path / "kg.csv", tmp_path / "e.npy"
    to_rows(facts).write_csv(edges)
    settings = {**SMALL, "training": "sampled", "subgraph_size": 30, "edge_batch_size": 4}
    generate_gnn_embeddings(edges, tmp_path / "whole" / "e.npy", **settings)
    for number in (2, 1, 1, 1, 1):  # in the middle of an epoch
        stop(generate_gnn_embeddings, edges, output, number, **settings, resume=True)
    generate_gnn_embeddings(edges, output, **settings, resume=True)
    assert results(output) == results(tmp_path / "whole" / "e.npy")


def damage(path: Path) -> None:
    """Change the last byte, which belongs to a tensor."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(
    edges: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate_gnn_embeddings(edges, tmp_path / "whole.npy", **SMALL)
    output = tmp_path / "e.npy"
    stop(generate_gnn_embeddings, edges, output, 3)
    before, newest = sorted((tmp_path / "e_model.run").glob("checkpoint-*"))
    damage(newest)
    stats = generate_gnn_embeddings(edges, output, **SMALL, resume=True)
    (warning,) = stats["warnings"]
    assert warning.startswith(f"the checkpoint {newest} is damaged and skipped: ")
    assert results(output)[:2] == results(tmp_path / "whole.npy")[:2]
    assert not before.exists()
    output = tmp_path / "other.npy"
    stop(generate_gnn_embeddings, edges, output, 2)
    for path in (tmp_path / "other_model.run").glob("checkpoint-*"):
        damage(path)
    with pytest.raises(InputError, match=r"resume \(got True\) finds only damaged checkpoints"):
        generate_gnn_embeddings(edges, output, **SMALL, resume=True)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"learning_rate": 0.5}, r"learning_rate \(0.01 in the checkpoint, 0.5 now\)"),
        ({"seed": 1, "hidden_dim": 12}, r"hidden_dim \(8 in .*, 12 now\), seed \(0 in .*, 1 now\)"),
        ({"training": "sampled", "subgraph_size": 90}, r"training \('full' in .*, 'sampled' now\)"),
        (
            {"disease_type": "drug"},
            r"differs in vocabulary\.disease_type \('disease' in .*, 'drug' now\), vocabulary\.",
        ),
        ({"limit_nodes": 50}, r"graph \('[0-9a-f]{64}' in the checkpoint, '[0-9a-f]{64}' now\)"),
        ({"num_epochs": 3}, r"num_epochs \(got 3\) must be at least 4, the number of epochs of"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_run_is_refused_with_the_difference(
    changed: dict[str, Any], difference: str, edges: Path, tmp_path: Path
) -> None:
    output = tmp_path / "e.npy"
    stop(generate_gnn_embeddings, edges, output, 2)
    kept = {path: path.read_bytes() for path in (tmp_path / "e_model.run").iterdir()}
    with pytest.raises(InputError, match=difference):
        generate_gnn_embeddings(edges, output, **{**SMALL, **changed}, resume=True)
    with pytest.raises(InputError, match=r"is a checkpoint of an earlier run: continue .*--resume"):
        generate_gnn_embeddings(edges, output, **{**SMALL, **changed})
    assert {path: path.read_bytes() for path in (tmp_path / "e_model.run").iterdir()} == kept


def test_a_finished_run_is_left_as_it_is_and_can_be_made_longer(
    edges: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "clinical_drug_discovery")
    output = tmp_path / "e.npy"
    first = generate_gnn_embeddings(edges, output, **SMALL, resume=True)
    assert "the training starts from the beginning" in caplog.text
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "e_model").iterdir()}
    assert generate_gnn_embeddings(edges, output, **SMALL, resume=True) == first
    assert "The run is finished: " in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "e_model").iterdir()} == times
    output.unlink()  # then the embeddings are computed again, without training
    again = generate_gnn_embeddings(edges, output, **SMALL, resume=True)
    assert again["final_loss"] == first["final_loss"]

    longer = {**SMALL, "num_epochs": 7}
    stop(generate_gnn_embeddings, edges, output, 1, **longer, resume=True)
    stats = generate_gnn_embeddings(edges, output, **longer, resume=True)
    assert stats["num_epochs"] == 7
    cycles = [{"num_epochs": 4, "learning_rate": 0.01}, {"num_epochs": 3, "learning_rate": 0.001}]
    config = json.loads((tmp_path / "e_model" / "config.json").read_text())
    assert stats["learning_rate_cycles"] == config["learning_rate_cycles"] == cycles
    assert len(pl.read_csv(tmp_path / "e_model" / "history.csv")) == 7
    other = tmp_path / "other.npy"
    generate_gnn_embeddings(edges, other, **SMALL)
    generate_gnn_embeddings(edges, other, **longer, resume=True)
    assert results(other) == results(output)


@pytest.mark.parametrize("num_epochs", [4, 6])
def test_a_continued_run_leaves_the_embeddings_of_another_run_alone(
    num_epochs: int, edges: Path, tmp_path: Path
) -> None:
    output, other = tmp_path / "e.npy", tmp_path / "other.npy"
    for path, seed in ((output, 0), (other, 1)):
        generate_gnn_embeddings(edges, path, **SMALL, seed=seed)
    before, settings = other.read_bytes(), {**SMALL, "num_epochs": num_epochs}
    settings |= {"model_dir": tmp_path / "e_model", "resume": True}
    with pytest.raises(InputError, match=r"other.npy was not written with the model in .*e_model"):
        generate_gnn_embeddings(edges, other, **settings)
    assert other.read_bytes() == before
    renamed = output.rename(tmp_path / "renamed.npy")  # the index is missing: it is written again
    stats = generate_gnn_embeddings(edges, renamed, **settings)
    assert stats["finished_epochs"] == num_epochs
    assert (tmp_path / "renamed_index.csv").exists()
    generate_gnn_embeddings(edges, other, **settings, overwrite=True)
    assert other.read_bytes() == renamed.read_bytes()


def test_ctrl_c_in_python_saves_a_checkpoint_and_leaves_the_handlers(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(record: TrainingRecord) -> None:
        if record.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    # A program in the background of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRecord, "after_backward", press)
        with pytest.raises(KeyboardInterrupt, match=r"epoch 2 is in .*e_model.run; .*resume=True"):
            generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(signal.SIGINT, before)
    generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL, resume=True)
    generate_gnn_embeddings(edges, tmp_path / "whole.npy", **SMALL)
    assert results(tmp_path / "e.npy") == results(tmp_path / "whole.npy")


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("clinical_drug_discovery.training.checkpoint.save_checksummed", fail)
    stats = generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL)
    (warning,) = stats["warnings"]
    assert warning.startswith("no checkpoint was saved: ")
    assert "No space left on device" in warning


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrainingRecord.after_backward

    def spoil(record: TrainingRecord) -> None:
        real(record)
        if record.epoch == 3:
            dict(record.weights)["model.layers.1.bias"].data[0] = torch.nan

    monkeypatch.setattr(TrainingRecord, "after_backward", spoil)
    expected = (
        r"learning_rate \(got 0.01\) is too high: the link_loss of epoch 4 is nan in step 1; the "
        r"first NaN or infinity is in model.layers.1.bias. Start again with a lower one, such as "
        r"0.001, and with overwrite \(--overwrite\). Do not use resume .* before that is .*000002.s"
    )
    with pytest.raises(InputError, match=expected):
        generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL, checkpoint_minutes=0)
    kept = sorted(path.name for path in (tmp_path / "e_model.run").glob("checkpoint-*"))
    assert kept == ["checkpoint-000000001.safetensors", "checkpoint-000000002.safetensors"]


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]
WRONG: dict[str, Change] = {
    "random state": lambda values, tensors: values["edges"].update(rng={"state": 1}),
    "negative steps": lambda values, tensors: values["optimizer"].update(step=-1),
    "other steps": lambda values, tensors: values["optimizer"].update(step=2),
    "epochs": lambda values, tensors: values["record"]["history"].pop(0),
    "losses": lambda values, tensors: values["record"].update(losses={"loss": ["0.5"]}),
    "no part": lambda values, tensors: values.pop("batches"),
    "shape": lambda values, tensors: tensors.update({"model/layers.0.bias": torch.zeros(9)}),
    "NaN": lambda values, tensors: tensors["model/node_embedding"].view(-1)[5:6].fill_(torch.nan),
    "squares": lambda values, tensors: tensors["optimizer/weights.square.1"].fill_(-1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_of_wrong_content_with_a_right_checksum_is_refused(
    name: str, edges: Path, tmp_path: Path
) -> None:
    stop(generate_gnn_embeddings, edges, tmp_path / "e.npy", 1)
    (path,) = (tmp_path / "e_model.run").glob("checkpoint-*")
    record, tensors = load_checksummed(path, VERSION)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    WRONG[name](record["parts"], tensors)
    path.unlink()
    save_checksummed(path, VERSION, record, tensors)
    with pytest.raises(InputError, match=r"is damaged: .*; remove it to continue"):
        generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL, resume=True)
    assert not (tmp_path / "e.npy").exists()
