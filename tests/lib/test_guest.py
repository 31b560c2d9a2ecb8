"""The package is a guest in its process: settings stay as they were, and threads may share it."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from graphs import Fact, to_rows

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes

SMALL: dict[str, Any] = {
    "embedding_dim": 4, "hidden_dim": 4, "num_layers": 1, "num_epochs": 1, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def state() -> dict[str, Any]:
    """Everything of the process that the package must not change."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "signals": {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)},
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002  # the caller's
        "torch": torch.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), numba.get_num_threads()),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.disabled),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy errors": np.geterr(),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr, threading.excepthook),
        "path": list(sys.path),
    }


def test_calls_leave_the_process_as_it_was(edges: Path, tmp_path: Path) -> None:
    def call() -> None:
        generate_gnn_embeddings(edges, tmp_path / "a.csv", overwrite=True, **SMALL)
        generate_hgt_embeddings(
            edges, tmp_path / "b.csv", num_heads=2, ranker=False, overwrite=True, **SMALL
        )
        rank_drugs(tmp_path / "a_model", disease="disease 1")
        similar_nodes(tmp_path / "a.csv", "drug 1")
        with pytest.raises(ValueError, match="learning_rate"):
            generate_gnn_embeddings(edges, tmp_path / "c.csv", learning_rate=-1, **SMALL)

    before = state()
    call()
    loaded = state()
    for name, value in before.items():
        # scikit-learn and scipy set a variable and filters of warnings when they are imported.
        if name not in ("environment", "warnings"):
            assert loaded[name] == value, name
    call()
    after = state()
    for name, value in loaded.items():
        assert after[name] == value, name


def test_two_threads_at_once_give_what_one_gives(edges: Path, tmp_path: Path) -> None:
    def embed(name: str) -> None:
        generate_gnn_embeddings(edges, tmp_path / f"{name}.csv", ranker=False, **SMALL)

    embed("alone")
    threads = [threading.Thread(target=embed, args=(name,)) for name in ("a", "b")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    contents = [(tmp_path / f"{name}.csv").read_bytes() for name in ("alone", "a", "b")]
    assert contents[0] == contents[1] == contents[2]


#: Two threads run kernels; the graph has enough edges for them.
TWO_THREADS = """
import threading
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
def embed(name):
    generate_hgt_embeddings("kg.parquet", name, 16, 16, 1, 2, 3, ranker=False)
threads = [threading.Thread(target=embed, args=(f"{n}.npy",)) for n in range(2)]
[one.start() for one in threads]
[one.join() for one in threads]
"""


def layers() -> Iterator[str]:
    """Yield numba's threading layers that this machine has."""
    yield "workqueue"
    for layer, module in (("omp", "omppool"), ("tbb", "tbbpool")):
        code = f"import numba.np.ufunc.{module}"
        if not subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False
        ).returncode:
            yield layer


@pytest.mark.slow
def test_two_threads_may_run_kernels_with_every_threading_layer(tmp_path: Path) -> None:
    from clinical_drug_discovery.lib.synthesize import synthesize_graph

    synthesize_graph(tmp_path / "kg.parquet", scale=0.02)
    for layer in layers():
        done = subprocess.run(
            [sys.executable, "-c", TWO_THREADS],
            env={**os.environ, "NUMBA_THREADING_LAYER": layer},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (layer, done.stderr)
        contents = [(tmp_path / f"{n}.npy").read_bytes() for n in range(2)]
        assert contents[0] == contents[1]
        for path in tmp_path.glob("[01]*"):
            subprocess.run(["rm", "-r", str(path)], check=True)


WITHOUT_SYMPY = """
import sys
sys.modules["sympy"] = None  # importing it fails
import torch
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.ranking.score_mlp import ScoreMlp

generate_gnn_embeddings(
    sys.argv[1], sys.argv[2], embedding_dim=8, hidden_dim=8, num_layers=1, num_epochs=1,
    cache=False, ranker=False,
)
ScoreMlp(torch.zeros(3), torch.ones(3), 2, 4).initialise(torch.Generator())
"""


def test_a_training_does_not_import_sympy(edges: Path, tmp_path: Path) -> None:
    """After an interrupt within this slow import, torch could not compute gradients any more."""
    command = [sys.executable, "-c", WITHOUT_SYMPY, str(edges), str(tmp_path / "e.npy")]
    subprocess.run(command, check=True)
