"""Measure how long `cdd` takes to print help or to refuse a device.

python benchmarks/start_up.py

Prints the CPU seconds and the wall time of each command, the median of 5 runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from os import times
from pathlib import Path

COMMANDS = (
    "--help",
    "rank --help",
    "evaluate --help",
    "embed hgt --edges none.csv --output none.npy --device tpu",
    "embed hgt --edges none.csv --output none.npy --device mps",
    "embed hgt --edges none.csv --output none.npy --device cuda",
)
RUNS = 5


def main() -> None:
    cdd = str(Path(sys.executable).with_name("cdd"))
    for command in COMMANDS:
        measured = []
        for _ in range(RUNS):
            before, start = times(), time.perf_counter()
            subprocess.run([cdd, *command.split()], capture_output=True, check=False)
            after, wall = times(), time.perf_counter() - start
            user = after.children_user - before.children_user
            system = after.children_system - before.children_system
            measured.append((user + system, wall))
        cpu, wall = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{cpu:6.2f} CPU s {wall:6.2f} s  cdd {command}", flush=True)


if __name__ == "__main__":
    main()
