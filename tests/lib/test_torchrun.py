"""Several processes train the model that one process trains, also if one of them is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from graphs import Fact, to_rows

import clinical_drug_discovery as cdd
from clinical_drug_discovery.lib._run.start import divided_among
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.ops import backend
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.training import edge_sampler, graph_sizes

# Subgraphs that lack some nodes, and blocks of inference that the processes divide.
SMALL: dict[str, Any] = {
    "embedding_dim": 12, "hidden_dim": 8, "num_layers": 2, "num_epochs": 3, "ranker": False,
    "cache": False, "device": "cpu", "training": "sampled", "subgraph_size": 70,
}  # fmt: skip
POSITIVES = {"graphsage": {"edge_batch_size": 12}, "hgt": {"edge_sample_size": 2}}
FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "graphsage": cdd.generate_gnn_embeddings,
    "hgt": cdd.generate_hgt_embeddings,
}
PATCHES: list[tuple[Any, str, int]] = [
    (backend, "MIN_KERNEL_EDGES", 0), (backend, "BLOCK_ROWS", 16),
    (edge_sampler, "NUM_CANDIDATES", 4), (graph_sizes, "NUM_CANDIDATES", 4),
]  # fmt: skip
# In the first attempt, one process is killed when two checkpoints are saved.
SCRIPT = """
import os, signal, sys
from importlib import import_module
from clinical_drug_discovery.__main__ import main
from clinical_drug_discovery.training.checkpoint import Checkpoints

for module, name, value in {patches}:
    setattr(import_module(module), name, value)
save, saved = Checkpoints.save, []

def saving(*given):
    save(*given)
    saved.append(1)
    if len(saved) == 2 and os.environ["RANK"] == "1":
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = saving
for arguments in {commands}:
    sys.argv = ["cdd", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def command(model: str, edges: Path, output: Path) -> list[str]:
    """Return the words of a command with the settings of the test."""
    words = ["embed", model, "--edges", str(edges), "--output", str(output), "--json"]
    words += ["--no-ranker", "--no-cache", "--checkpoint-minutes", "0"]
    for name, value in {**SMALL, **POSITIVES[model]}.items():
        if not isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def start(script: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Run a script in some processes with torchrun, each on one thread."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    words += [f"--nproc-per-node={size}", str(script)]
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.run(
        words, env={**os.environ, **threads}, capture_output=True, text=True, check=False
    )


def results(output: Path) -> list[bytes]:
    """Return the bytes that must not depend on the processes, and the history without times."""
    model_dir = output.with_name(f"{output.stem}_model")
    history = pl.read_csv(model_dir / "history.csv").drop("seconds").write_csv().encode()
    weights = (model_dir / "weights.safetensors").read_bytes()
    return [output.read_bytes(), weights, history]


def test_three_processes_of_which_one_is_killed_train_what_one_process_trains(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    edges, script = tmp_path / "kg.csv", tmp_path / "script.py"
    to_rows(facts).write_csv(edges)
    patches = [(module.__name__, name, value) for module, name, value in PATCHES]
    commands = [command(model, edges, tmp_path / "three" / f"{model}.npy") for model in FUNCTIONS]
    script.write_text(SCRIPT.format(patches=patches, commands=commands))
    done = start(script, 3)
    assert done.returncode == 0, done.stderr
    lost = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lost) == 1, done.stderr
    assert lost[0].startswith("error: process 1 of 3 (pid ")
    assert done.stderr.count("Continuing from ") == 1
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(FUNCTIONS), done.stdout  # only the first process prints
    for module, name, value in PATCHES:
        monkeypatch.setattr(module, name, value)
    for line, (model, generate) in zip(lines, FUNCTIONS.items(), strict=True):
        settings = {**SMALL, **POSITIVES[model], "subgraphs_per_step": 3}
        one = generate(edges, tmp_path / "one" / f"{model}.npy", **settings)
        three = json.loads(line)
        found, wanted = (results(Path(stats["output_file"])) for stats in (three, one))
        assert found == wanted
        assert (three["num_processes"], one["num_processes"]) == (3, 1)
        assert three["run"] == one["run"]
        assert three["seconds_exchange"] > one["seconds_exchange"] == 0
        parts = three["seconds_compute"] + three["seconds_exchange"]
        assert parts == pytest.approx(three["seconds_train"] + three["seconds_inference"])


def test_what_cannot_be_divided_is_refused() -> None:
    two: Any = SimpleNamespace(rank=0, size=2)
    full = settings_of("hgt", {})
    with pytest.raises(InputError, match=r"training \(got 'full'\) must be 'sampled' with several"):
        divided_among(full, two)
    odd = settings_of("hgt", {"training": "sampled", "subgraphs_per_step": 3})
    with pytest.raises(InputError, match=r"subgraphs_per_step \(got 3\) must be a multiple of 2"):
        divided_among(odd, two)
    part = settings_of("graphsage", {"training": "sampled"})
    assert divided_among(part, two).subgraphs_per_step == 2
