"""Measure how long `cdd` takes to print help, to refuse a device and to answer a question.

python benchmarks/start_up.py [EMBEDDINGS DRUG DISEASE]

Prints the CPU seconds and the wall time of each command, the median of 5 runs. EMBEDDINGS is a file
that `cdd embed` has written, with its model directory beside it; DRUG and DISEASE are nodes of its
graph, by name or id.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time
from os import times

from clinical_drug_discovery.lib._run.model_dir import model_dir_of

CDD = (sys.executable, "-m", "clinical_drug_discovery")
COMMANDS = (
    "--help",
    "rank --help",
    "evaluate --help",
    "embed hgt --edges none.csv --output none.npy --device tpu",
    "embed hgt --edges none.csv --output none.npy --device mps",
    "embed hgt --edges none.csv --output none.npy --device cuda",
)
RUNS = 5


def questions(embeddings: str, drug: str, disease: str) -> list[list[str]]:
    """Return the commands that ask a model for similar nodes, and for the drugs of a disease."""
    model_dir = str(model_dir_of(embeddings))
    similar = [
        ["similar", "--embeddings", embeddings, "--node", one, "--json"] for one in (drug, disease)
    ]
    return [*similar, ["rank", "--model-dir", model_dir, "--disease", disease, "--json"]]


def main() -> None:
    commands = [command.split() for command in COMMANDS]
    if sys.argv[1:]:
        commands += questions(*sys.argv[1:])
    for command in commands:
        measured = []
        for _ in range(RUNS):
            before, start = times(), time.perf_counter()
            subprocess.run([*CDD, *command], capture_output=True, check=False)
            after, wall = times(), time.perf_counter() - start
            user = after.children_user - before.children_user
            system = after.children_system - before.children_system
            measured.append((user + system, wall))
        cpu, wall = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{cpu:6.2f} CPU s {wall:6.2f} s  cdd {shlex.join(command)}", flush=True)


if __name__ == "__main__":
    main()
