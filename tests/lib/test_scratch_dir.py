"""A run whose large arrays lie in files ends in the bytes of a run in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import FailingDisk
from stops import Killed, kill_after, results

import clinical_drug_discovery as cdd
from clinical_drug_discovery.graph.reading.room import ReadingMemory, ReadingPlan
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.ops import buffers
from clinical_drug_discovery.system import disk
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import WriteError
from clinical_drug_discovery.system.limits.parameters import ONLY_AT_END
from clinical_drug_discovery.system.limits.scratch import Scratch
from clinical_drug_discovery.training.memory_plan import Plan

SAMPLE = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
MODELS: dict[str, Callable[..., dict[str, Any]]] = {
    "graphsage": generate_gnn_embeddings,
    "hgt": generate_hgt_embeddings,
}
SIZES: dict[str, Any] = {"embedding_dim": 40, "hidden_dim": 32, "num_layers": 2, "num_epochs": 2}
SIZES |= {"ranker": False, "cache": False, "device": "cpu"}
PARTS: dict[str, Any] = {"training": "sampled", "subgraph_size": 400}
FACTS = {"graphsage": "edge_batch_size", "hgt": "edge_sample_size"}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let small arrays lie in files, and no run fit into memory; return the sizes of the files."""
    array, found = Scratch.array, list[int]()

    def noted(scratch: Scratch, num_bytes: int) -> Any:
        found.append(num_bytes)
        return array(scratch, num_bytes)

    monkeypatch.setattr(Scratch, "array", noted)
    monkeypatch.setattr(buffers, "LEAST_IN_FILES", 4_096)
    monkeypatch.setattr(Plan, "bytes_needed", lambda plan: 0 if plan.scratch_dir else 2**60)
    for module in ("edge_sampler", "graph_sizes"):  # else a batch has all nodes of so small a graph
        monkeypatch.setattr(f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", 4)
    return found


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", ["full", "sampled"])
@pytest.mark.parametrize("model", MODELS)
def test_files_give_the_bytes_of_memory_also_after_a_kill(
    model: str,
    training: str,
    kernels: bool,
    sizes: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernels:
        monkeypatch.setattr("clinical_drug_discovery.ops.backend.MIN_KERNEL_EDGES", 0)
    generate, options = MODELS[model], {**SIZES, FACTS[model]: 8, "checkpoint_minutes": 0}
    options |= PARTS if training == "sampled" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "bytes_needed", lambda plan: 0)
        generate(SAMPLE, tmp_path / "memory" / "e.npy", scratch_dir=tmp_path / "no", **options)
        assert not sizes
        assert not (tmp_path / "no").exists()
    files, scratch = tmp_path / "files" / "e.npy", tmp_path / "scratch"
    read_in: list[ReadingMemory] = []

    def in_files(_: object, memory: ReadingMemory) -> ReadingPlan:
        read_in.append(memory)
        return ReadingPlan(memory.scratch_dir)

    monkeypatch.setattr("clinical_drug_discovery.graph.read.plan_reading", in_files)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            generate(SAMPLE, files, scratch_dir=scratch, **options)
    stats = generate(SAMPLE, files, scratch_dir=scratch, resume=True, **options)
    assert read_in == [ReadingMemory(None, scratch)] * 2
    assert stats["scratch_gib"] * 2**30 >= 4 * 4 * 820 * 32
    assert results(files) == results(tmp_path / "memory" / "e.npy")
    vectors, embeddings = 4 * 820 * 32, 4 * 820 * 40
    # Twice: vectors, moments or records, and a layer.
    counts = (1 + 2 + 1, 0) if training == "full" else (1 + 1, 1)
    assert sizes.count(vectors) >= 2 * counts[0]
    assert sizes.count(4 * vectors) >= 2 * counts[1]
    assert embeddings in sizes
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("model", MODELS)
def test_a_disk_without_room_is_refused_or_ends_the_run(
    model: str, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    with monkeypatch.context() as patch:
        patch.setattr(disk, "free_bytes", lambda place: 10**5)
        expected = rf"{scratch}\) needs about ([\d,]+) .* 100,000 bytes free"
        needed = []
        for minutes in (5, ONLY_AT_END):
            with pytest.raises(InputError, match=expected) as no:
                MODELS[model](
                    SAMPLE, tmp_path / "e.npy", scratch_dir=scratch,
                    **{**SIZES, "checkpoint_minutes": minutes},
                )  # fmt: skip
            needed += re.findall(expected, str(no.value))
    before, one = (int(text.replace(",", "")) for text in needed)
    assert before - one == 2 * 3 * 4 * 820 * 32  # two checkpoints: vectors and two moments
    assert not list(tmp_path.iterdir())
    FailingDisk(scratch, fail_at=4, forever=True).install(monkeypatch)  # 1: the directory is made
    with pytest.raises(WriteError, match=rf"{scratch} cannot be written: No space left"):
        MODELS[model](SAMPLE, tmp_path / "e.npy", scratch_dir=scratch, **SIZES)
    assert len(sizes) == 3
    assert list(tmp_path.iterdir()) == [scratch]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("model", MODELS)
def test_a_directory_that_is_not_of_use_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scratch_dir \(got .*s\) must be left out if output_csv"):
        MODELS[model](SAMPLE, None, scratch_dir=tmp_path / "s", **SIZES)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"scratch_dir \(got .*file\) must be a directory"):
        MODELS[model](SAMPLE, tmp_path / "e.npy", scratch_dir=tmp_path / "file", **SIZES)
    for place in ("e.npy", "e_index.csv", "e_model", "e_model.run/s", "e_model.lock"):
        with pytest.raises(InputError, match=rf"scratch_dir \(got .*{place}\) must not lie in "):
            MODELS[model](SAMPLE, tmp_path / "e.npy", scratch_dir=tmp_path / place, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
