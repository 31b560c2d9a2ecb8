"""`cdd doctor` describes the machine, and its trial fails for a device that computes otherwise."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from typer.testing import CliRunner

from clinical_drug_discovery import cli
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib import doctor
from clinical_drug_discovery.lib._run import device_trial
from clinical_drug_discovery.lib._run.device_trial import TOLERANCES, compare_devices
from clinical_drug_discovery.lib._synthetic.primekg_shape import sizes_like_primekg
from clinical_drug_discovery.lib.doctor import describe_machine
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.kinds.interface import Settings
from clinical_drug_discovery.system.devices import available_devices, has_passed_trial, trials_file
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.training.graph_sizes import GraphSizes
from clinical_drug_discovery.training.memory_budget import fit_plan
from clinical_drug_discovery.training.memory_plan import plan_for
from clinical_drug_discovery.training.objective.disease_pairs import (
    compared_by_genes,
    most_sharing_pairs,
)
from clinical_drug_discovery.training.train import Trained, train

CPU = torch.device("cpu")
TRIALS = [
    f"{model} {training}" for model in ("graphsage", "hgt") for training in ("full", "sampled")
]


@pytest.fixture
def small() -> list[Settings]:
    """The default settings, with less to compute."""
    sage, hgt = doctor._all_default_settings()
    sizes: dict[str, Any] = {"hidden_dim": 16, "embedding_dim": 16, "num_layers": 2}
    return [replace(sage, edge_batch_size=40, **sizes), replace(hgt, edge_sample_size=4, **sizes)]


@pytest.fixture
def no_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "check_device", lambda device: None)
    for module in ("lib._run.device_trial", "system.devices"):
        monkeypatch.setattr(f"clinical_drug_discovery.{module}.device_name", lambda device: "a GPU")


def test_the_cpu_is_described_and_its_products_follow_its_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = describe_machine()
    assert found["cpu"]
    assert {"AVX2", "NEON"} & set(found["instruction_sets"])
    has_products = "bfloat16" in found["kernels"].split("products in ")[1].split()[0]
    assert has_products <= bool({"AVX512_BF16", "AMX"} & set(found["instruction_sets"]))
    monkeypatch.setattr("clinical_drug_discovery.ops.backend.has_bfloat16_products", lambda: False)
    assert "products in float32 (no AVX512_BF16 or AMX in use)" in describe_machine()["kernels"]


def test_a_device_agrees_with_itself(graph: KnowledgeGraph, small: list[Settings]) -> None:
    found = compare_devices(graph, CPU, small)
    assert list(found) == TRIALS
    for result in found.values():
        assert result == {"losses": 0, "weights": 0, "embeddings": 0, "passed": True}


def changed(function: Callable[..., Any], every: int, change: Callable[[Any], None]) -> Any:
    """The function, where each `every`th call changes the result."""
    calls = itertools.count(1)

    def with_change(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if next(calls) % every == 0:
            change(result)
        return result

    return with_change


def shift_weights(trained: Trained) -> None:
    """Shift the weights of relations by as much as an epoch moves some of them."""
    trained.decoder.relation.data += 0.01


def scale_loss(trained: Trained) -> None:
    trained.history[0]["loss"] *= 1 + 2 * TOLERANCES["losses"]


def raise_error(trained: Trained) -> None:
    raise NotImplementedError("aten::frexp is not implemented for this device")


@pytest.mark.parametrize(
    ("change", "failing"),
    [(shift_weights, "weights"), (scale_loss, "losses"), (raise_error, "error")],
)
@pytest.mark.parametrize("model", [0, 1], ids=["graphsage", "hgt"])
def test_a_planted_difference_fails(
    graph: KnowledgeGraph, small: list[Settings], monkeypatch: pytest.MonkeyPatch,
    model: int, change: Callable[[Any], None], failing: str,
) -> None:  # fmt: skip
    planted = changed(train, 3, change)  # the third training of a trial is that of the device
    monkeypatch.setattr(device_trial, "train", planted)
    for result in compare_devices(graph, CPU, small[model : model + 1]).values():
        assert not result["passed"]
        if failing == "error":
            assert result["error"].startswith("NotImplementedError: aten::frexp")
        else:
            assert result[failing] > TOLERANCES[failing]


def test_an_embedding_that_is_a_little_wrong_fails(
    graph: KnowledgeGraph, small: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = changed(embed_all, 2, lambda z: z.mul_(1 + 2 * TOLERANCES["embeddings"]))
    monkeypatch.setattr(device_trial, "embed_all", planted)
    for result in compare_devices(graph, CPU, small).values():
        assert not result["passed"]
        assert result["weights"] == 0
        assert 1 < result["embeddings"] / TOLERANCES["embeddings"] < 3


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_fail(
    graph: KnowledgeGraph, small: list[Settings], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    planted = changed(embed_all, 2, lambda z: z[0].fill_(value))
    monkeypatch.setattr(device_trial, "embed_all", planted)
    for result in compare_devices(graph, CPU, small[:1]).values():
        assert result == {"error": "NaN or infinity in the embeddings", "passed": False}


def test_an_update_that_a_device_leaves_out_fails(
    graph: KnowledgeGraph, small: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference of each weight is 1 if it stays where it was."""
    for settings in small:
        start, end = (
            device_trial._weights(device_trial._train(graph, CPU, replace(settings, **rates)))
            for rates in ({"learning_rate": device_trial._NO_RATE}, {"num_epochs": 2})
        )
        for before, after in zip(start, end, strict=True):
            assert device_trial._relative_difference(before, after, before) == 1


@pytest.mark.usefixtures("no_gpu_is_refused")
def test_a_device_that_raises_ends_with_1(
    small: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_all_default_settings", lambda: small)
    if torch.backends.mps.is_available():
        pytest.skip("MPS would not raise here")
    result = CliRunner().invoke(cli.make_app(), ["doctor", "--try", "mps", "--json"])
    assert result.exit_code == 1
    trial = json.loads(result.stdout)["try"]
    assert list(trial["models"]) == TRIALS
    for found in trial["models"].values():
        assert not found["passed"]
        assert "mps" in found["error"].lower()
    assert trial["recorded_in"] is None
    assert not has_passed_trial("mps")


@pytest.mark.usefixtures("no_gpu_is_refused")
@pytest.mark.parametrize("passed", [True, False])
def test_only_a_passed_trial_is_recorded(monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    models = {"graphsage full": {"passed": True}, "hgt full": {"weights": 0.3, "passed": passed}}
    monkeypatch.setattr(device_trial, "compare_devices", lambda *given: models)
    result = CliRunner().invoke(cli.make_app(), ["doctor", "--try", "mps"])
    assert result.exit_code == (0 if passed else 1)
    assert ("DIFFERS" in result.stdout) != passed
    assert "0.3" in result.stdout
    assert has_passed_trial("mps") == passed
    assert trials_file().exists() == passed


@pytest.mark.usefixtures("no_gpu_is_refused")
def test_a_record_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(device_trial, "compare_devices", lambda *given: {})
    assert describe_machine(try_device="mps")["try"]["recorded_in"].startswith("nowhere: ")


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "gpu"])
def test_a_device_that_cannot_be_tried_ends_with_2(device: str) -> None:
    if (device == "mps" and torch.backends.mps.is_available()) or torch.cuda.is_available():
        pytest.skip("it is here")
    result = CliRunner().invoke(cli.make_app(), ["doctor", "--try", device])
    assert result.exit_code == 2
    assert f"(got '{device}')" in result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_passes_its_trial(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if device not in available_devices():
        pytest.skip(f"{device} is not available here")
    trial = describe_machine(try_device=device)["try"]
    assert trial["passed"], trial
    assert has_passed_trial(device)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeGraph:
    path = tmp_path_factory.mktemp("synthetic") / "kg.parquet"
    synthesize_graph(path, scale=0.02)
    return read_graph(path)


@pytest.mark.parametrize("training", ["full", "sampled"])
@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_a_size_needs_what_a_graph_of_that_size_needs(
    synthetic: KnowledgeGraph, model: str, training: str
) -> None:
    real = GraphSizes.of(synthetic)
    given, num_sharing = sizes_like_primekg(real.num_nodes, real.num_edges)
    assert (given.num_nodes, given.num_edges) == (real.num_nodes, real.num_edges)
    assert given.edge_type_counts.keys() == real.edge_type_counts.keys()
    for kind, count in real.node_type_counts.items():
        assert given.node_type_counts[kind] == pytest.approx(count, abs=1)
    tensors = (synthetic.src, synthetic.indptr, synthetic.node_type)
    assert real.tensor_bytes == sum(one.nbytes for one in tensors)
    assert given.tensor_bytes == pytest.approx(real.tensor_bytes, rel=0.01)
    (settings,) = doctor._chosen_settings(model, {"training": training})
    sharing = most_sharing_pairs(synthetic, **compared_by_genes(synthetic))
    assert num_sharing == pytest.approx(sharing, rel=0.2)
    one, other = (
        replace(plan_for(sizes, settings, CPU), num_sharing=pairs if settings.contrast else 0)
        for sizes, pairs in ((real, sharing), (given, num_sharing))
    )
    assert other.bytes_needed() == pytest.approx(one.bytes_needed(), rel=0.03)


def test_a_plan_without_a_graph_counts_the_graph_and_its_reading() -> None:
    sizes, _ = sizes_like_primekg(10_000, 50_000_000)  # so many edges that reading takes the most
    (settings,) = doctor._chosen_settings("graphsage", {"hidden_dim": 16, "embedding_dim": 16})
    plan = plan_for(sizes, settings, CPU)
    held = psutil.Process().memory_info().rss
    fitted = fit_plan(plan, "64GiB", choose_chunk_size=True, is_read=False)
    assert fitted.predicted_bytes >= held + sizes.reading_bytes - 2**26
    assert sizes.reading_bytes > plan.bytes_needed() + sizes.tensor_bytes


def test_a_plan_for_a_size_is_printed_and_says_what_it_assumes() -> None:
    asked = ["doctor", "--plan", "--num-nodes", "129375", "--num-edges", "8100502", "--device=cpu"]
    asked += ["--memory-budget", "64GiB"]
    record = json.loads(CliRunner().invoke(cli.make_app(), [*asked, "--json"]).stdout)
    graph = {"num_nodes": 129_375, "num_edges": 8_100_502}
    assert record["planned_graph"].items() >= graph.items()
    assert "PrimeKG's proportions" in record["planned_graph"]["assumed"]
    assert list(record["plan"]) == ["graphsage", "hgt"]
    for found in record["plan"].values():
        assert found["fits"]
        assert 1 < found["predicted_memory_gib"] < 4
        # ten times the weights of all nodes, the embeddings, and the graph
        assert 1.4 < found["disk_gib"] < 1.7
        assert list(found["estimated_seconds"]) == ["read", "train", "inference"]
        assert "Intel Xeon" in found["estimated_from"]
    assert record["plan"]["graphsage"]["estimated_seconds"]["train"] == 240  # 100 epochs of 2.44 s
    small = [*asked, "--model", "hgt", "--hidden-dim", "64"]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.make_app(), small)
    assert "PrimeKG's proportions" in result.stdout
    assert "graphsage\n" not in result.stdout
    (record,) = json.loads(CliRunner().invoke(cli.make_app(), [*small, "--json"]).stdout)[
        "plan"
    ].values()
    assert record["hidden_dim"] == 64
    assert record["estimated_seconds"] is None
    assert record["estimated_from"].startswith("not measured")


def test_the_table_of_the_docs_is_what_the_command_computes() -> None:
    """The process itself, 0.3 GiB, differs between machines."""
    text = (Path(__file__).parents[2] / "docs/memory.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([\d.]+) million \| (\w+) \| ([\d.]+) \|.*\| ([\d.]+) GiB \|", text)
    assert len(rows) >= 8
    for millions, title, memory, disk in rows:
        edges = round(float(millions) * 1e6)
        sizes, num_sharing = sizes_like_primekg(round(edges / 62.6), edges)
        (settings,) = doctor._chosen_settings(title.lower(), {})
        plan = plan_for(sizes, settings, CPU)
        plan = replace(plan, num_sharing=num_sharing if settings.contrast else 0)
        graph = sizes.tensor_bytes + sizes.names_bytes
        found = (plan.bytes_needed() + graph) / 2**30 + 0.3
        assert float(memory) == pytest.approx(found, rel=0.1)
        assert float(disk) == pytest.approx(doctor._disk_and_time(plan)["disk_gib"], rel=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_nodes": 10}, r"num_nodes \(got 10\) is allowed only with plan"),
        ({"hidden_dim": 8}, r"hidden_dim \(got 8\) is allowed only with plan"),
        ({"plan": True, "num_nodes": 10}, "needs edges, .* or else num_nodes and num_edges"),
        ({"plan": True, "num_nodes": 0, "num_edges": 9}, r"num_nodes \(got 0\)"),
        ({"plan": True, "num_nodes": 9, "num_edges": 1}, r"num_edges \(got 1\)"),
        (
            {"plan": True, "num_nodes": 9, "edges_csv": "kg.csv"},
            r"num_nodes \(got 9\) must be left out: edges",
        ),
        (
            {"plan": True, "num_nodes": 9, "num_edges": 9, "model": "gcn"},
            r"model \(got 'gcn'\) must be one of graphsage, hgt",
        ),
        (
            {"plan": True, "num_nodes": 9, "num_edges": 9, "hidden_dim": 12},
            r"hidden_dim \(got 12\) must be divisible by num_heads",
        ),
        (
            {"plan": True, "num_nodes": 9, "num_edges": 9, "device": "cuda", "scratch_dir": "s"},
            r"scratch_dir \(got s\) needs the device cpu",
        ),
    ],
)
def test_mistakes_in_a_plan_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_machine(**given)


def test_the_smallest_graph_has_a_plan() -> None:
    plans = describe_machine(plan=True, num_nodes=1, num_edges=2, device="cpu")["plan"]
    assert all(found["fits"] for found in plans.values())


def test_plan_and_edges_need_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan .* needs edges"):
        describe_machine(plan=True)
    with pytest.raises(InputError, match="only with plan"):
        describe_machine(edges_csv=tmp_path)


def test_without_flags_no_model_is_imported() -> None:
    script = (
        "import sys\n"
        "from clinical_drug_discovery.lib.doctor import describe_machine\n"
        "assert 'torch' not in sys.modules\n"
        "found = describe_machine()\n"
        "assert found['devices'][-1] == 'cpu' and found['default_device']\n"
        "assert not {'numba', 'polars', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
