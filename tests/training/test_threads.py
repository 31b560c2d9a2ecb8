"""A whole training gives the same bytes with any number of threads; small work stays on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clinical_drug_discovery.lib.synthesize import synthesize_graph

SCRIPT = """
import numba, torch
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
assert torch.get_num_threads() == numba.get_num_threads() == {threads}
sizes = dict(embedding_dim=32, hidden_dim=64, num_layers=2, num_epochs=3)
sizes |= dict(cache=False, ranker=False)
for name in {names}:
    generate_gnn_embeddings("kg.parquet", f"graphsage-{{name}}.npy", **sizes)
    generate_hgt_embeddings("kg.parquet", f"hgt-{{name}}.npy", num_heads=4, **sizes)
"""


def test_training_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    synthesize_graph(tmp_path / "kg.parquet", scale=0.02)
    for names, threads in ((["one"], 1), (["two", "again"], 2)):
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(names=names, threads=threads)],
            env={**os.environ, **dict.fromkeys(variables, str(threads))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    for model in ("graphsage", "hgt"):
        one, two, again = (
            (tmp_path / f"{model}-{name}.npy").read_bytes() for name in ("one", "two", "again")
        )
        assert two == again, model
        assert one == two, model


def test_a_checkpoint_leaves_small_work_on_one_thread() -> None:
    script = (
        "import torch\n"
        "from clinical_drug_discovery.system.machine import one_thread\n"
        "from clinical_drug_discovery.training.checkpoint import _threads\n"
        "with one_thread(True):\n"
        "    print(_threads()['torch'], torch.get_num_threads())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 1\n"
