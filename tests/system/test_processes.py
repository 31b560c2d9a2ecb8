"""A fork of a process that has used the package gets an error instead of waiting for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from graphs import Fact, to_rows

SCRIPT = """
import multiprocessing, sys
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.lib.synthesize import synthesize_graph

def embed(seed):
    return generate_gnn_embeddings("kg.csv", f"{seed}.csv", 8, 8, 2, 1, seed=seed, cache=False)

def work(number):
    calls = [
        lambda: embed(number),
        lambda: rank_drugs("0_model", disease="x"),
        lambda: similar_nodes("0.csv", "x"),
        lambda: synthesize_graph("made.csv", scale=0.001),
    ]
    try:
        return calls[number]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
    embed(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for number in range(4):
            print(pool.apply(work, [number]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_every_call_in_a_fork_says_to_use_spawn(tmp_path: Path, facts: list[Fact]) -> None:
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines:
        assert line.startswith("InputError: multiprocessing start method (got 'fork') must be")
        assert "get_context('spawn')" in line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_fork_of_a_process_that_only_imported_the_package_works() -> None:
    script = (
        "import os\n"
        "from clinical_drug_discovery.system.processes import use_threads\n"
        "child = os.fork()\n"
        "use_threads()\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
