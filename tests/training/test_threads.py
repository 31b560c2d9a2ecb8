"""A whole training gives the same bytes with any number of threads; small work stays on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clinical_drug_discovery.lib.synthesize import synthesize_graph

SCRIPT = """
import torch
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
assert torch.get_num_threads() == {threads}
sizes = dict(embedding_dim=32, hidden_dim=64, num_layers=2, num_epochs=3)
sizes |= dict(cache=False, ranker=False)
generate_gnn_embeddings("kg.parquet", "graphsage-{name}.npy", **sizes)
generate_hgt_embeddings("kg.parquet", "hgt-{name}.npy", num_heads=4, **sizes)
"""


def test_training_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    synthesize_graph(tmp_path / "kg.parquet", scale=0.02)
    for name, threads in (("one", 1), ("two", 2), ("again", 2)):
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(name=name, threads=threads)],
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
