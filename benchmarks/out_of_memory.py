"""Embed a graph within a control group of a given size, with the large arrays on the disk.

    python benchmarks/out_of_memory.py kg.parquet --limit 4GiB --scratch-dir /d
    python benchmarks/out_of_memory.py --scale 10 --limit 6GiB --scratch-dir /d -- --hidden-dim 64

Pages of mapped files count as resident, but the system can drop them. So the peak of a process says
little, and a control group of Linux sets the limit: a process that needs more is killed. The group
is made below the root of the hierarchy (version 1 or 2), which only root may do.

The budget of a run is the limit without the room for pages of files (`--pages`). The second process
of a run, the graph's cache and the results count, too. For each model, one line has the exit code,
the peaks of anonymous memory and of all pages in the group, the CPU seconds of the whole run, and
the seconds of each part.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import MODELS, edges_file

from clinical_drug_discovery.system.limits.memory import parse_bytes

_VERSION_1, _VERSION_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_PARTS = ("read", "train", "inference", "write")
_GIB = 2**30


class Group:
    """A control group with a limit on memory."""

    def __init__(self, limit: int) -> None:
        is_first = _VERSION_1.is_dir()
        self._path = (_VERSION_1 if is_first else _VERSION_2) / f"cdd-{os.getpid()}"
        self._path.mkdir()
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "rss")
        self._limit, self._used, self._anonymous = (
            names if is_first else ("memory.max", "memory.current", "anon")
        )
        (self._path / self._limit).write_text(str(limit))
        if not is_first:
            (self._path / "memory.swap.max").write_text("0")

    def run(self, command: list[str]) -> tuple[int, float, float]:
        """Run a command in the group; return its exit code and the two peaks in GiB."""
        process = subprocess.Popen(command, preexec_fn=self._enter)
        anonymous = used = 0
        while process.poll() is None:
            anonymous = max(anonymous, self._statistic())
            used = max(used, int((self._path / self._used).read_text()))
            time.sleep(0.2)
        return process.returncode, anonymous / _GIB, used / _GIB

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        self._path.rmdir()

    def _enter(self) -> None:
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def _statistic(self) -> int:
        lines = (self._path / "memory.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)[self._anonymous])


def measured(path: str, model: str, asked: argparse.Namespace, folder: Path) -> str:
    """Run one model, and return a line about it."""
    limit, pages = (parse_bytes(name, getattr(asked, name)) for name in ("limit", "pages"))
    command = [
        sys.executable, "-m", "clinical_drug_discovery", "embed", model, "--edges", path,
        "--output", str(folder / f"{model}.npy"), "--num-epochs", str(asked.epochs), "--no-ranker",
        "--training", asked.training, "--device", "cpu", "--memory-budget", str(limit - pages),
        "--cache-dir", asked.cache_dir or str(folder / "cache"), "--overwrite",
        "--scratch-dir", asked.scratch_dir, *asked.flags,
    ]  # fmt: skip
    group, before = Group(limit), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        code, anonymous, used = group.run(command)
    finally:
        group.remove()
    line = f"{model}: exit code {code}, limit {asked.limit}, anonymous {anonymous:.2f} GiB, "
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    line += f"with pages of files {used:.2f} GiB, {seconds:.0f} CPU seconds"
    if code == 0:
        stats = json.loads((folder / f"{model}_model" / "stats.json").read_text())
        line += "".join(f", {part} {stats[f'seconds_{part}']:.0f} s" for part in _PARTS)
        per_edge = stats["seconds_train"] / asked.epochs + stats["seconds_inference"]
        line += (
            f", {1e6 * per_edge / stats['num_edges']:.2f} s an epoch and inference per 1e6 edges"
        )
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog="More flags of cdd embed follow after --."
    )
    parser.add_argument("edges", nargs="?", help="default: a synthetic graph")
    parser.add_argument("--scale", type=float, default=1.0, help="of the synthetic graph")
    parser.add_argument("--limit", required=True, help="of the control group, such as 4GiB")
    parser.add_argument("--pages", default="256MiB", help="part of the limit for pages of files")
    parser.add_argument("--scratch-dir", required=True)
    parser.add_argument("--cache-dir", help="keeps the graph, for later runs (default: removed)")
    parser.add_argument("--model", choices=tuple(MODELS), action="append")
    parser.add_argument("--training", default="sampled")
    parser.add_argument("--epochs", type=int, default=3)
    # argparse cannot tell the flags after -- from a second `edges`.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked = parser.parse_args(sys.argv[1:end])
    asked.flags = sys.argv[end + 1 :]
    with (
        edges_file(asked.edges, asked.scale) as path,
        tempfile.TemporaryDirectory(dir=asked.scratch_dir) as folder,
    ):
        for model in asked.model or MODELS:
            print(measured(path, model, asked, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
