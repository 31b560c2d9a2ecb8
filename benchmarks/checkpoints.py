"""Measure the cost of checkpoints, as a share of the time of a training.

python benchmarks/checkpoints.py graphsage|hgt [kg.csv]   (without a file: a synthetic graph of
PrimeKG's size)

Trains some epochs with a checkpoint after each, and measures the seconds and the bytes of one. The
share is that of a training of 100 epochs with the default `--checkpoint-minutes`: one checkpoint
each time, and one at the end. A checkpoint is flushed to the disk, so the disk matters. The share
is printed for CPU seconds of the process, too: they do not count the disk, and other programs
change them little.
"""

from __future__ import annotations

import inspect
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import MODELS, edges_file, in_fresh_process, run

NUM_EPOCHS, USUAL_EPOCHS = 5, 100


def train(arguments: list[str]) -> dict[str, float]:
    """Train some epochs; return the medians of the seconds of an epoch and of a checkpoint."""
    import importlib

    import polars as pl

    from clinical_drug_discovery.training.checkpoint import Checkpoints, newest_first

    model, path = arguments
    module, function = MODELS[model]
    generate = getattr(importlib.import_module(module), function)
    save, saves, sizes = Checkpoints.save, list[float](), list[int]()
    cpu_ends, cpu_saves, cpu_epochs = list[float](), list[float](), list[float]()

    def timed(checkpoints: Checkpoints, *given: Any) -> None:
        start, cpu_start = time.perf_counter(), time.process_time()
        save(checkpoints, *given)
        saves.append(time.perf_counter() - start)
        cpu_saves.append(time.process_time() - cpu_start)
        cpu_epochs.extend(cpu_start - end for end in cpu_ends[-1:])
        cpu_ends.append(time.process_time())
        sizes.append(newest_first(checkpoints.directory)[0].stat().st_size)

    Checkpoints.save = timed  # type: ignore[method-assign, assignment]  # mypy allows no other function
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:  # /tmp may be in memory
        options = {"cache": False, "ranker": False, "checkpoint_minutes": 0}
        stats = generate(path, Path(directory) / "e.npy", num_epochs=NUM_EPOCHS, **options)
        epochs = pl.read_csv(Path(stats["model_dir"]) / "history.csv")["seconds"]
    # The time of an epoch begins before the checkpoint of the epoch before it.
    seconds = [epoch - before for epoch, before in zip(epochs[1:], saves[:-1], strict=True)]
    minutes = inspect.signature(generate).parameters["checkpoint_minutes"].default
    return {
        "seconds_epoch": statistics.median(seconds),
        "seconds_checkpoint": statistics.median(saves),
        "cpu_epoch": statistics.median(cpu_epochs),
        "cpu_checkpoint": statistics.median(cpu_saves),
        "slowest_checkpoint": max(saves),
        "bytes": max(sizes),
        "interval": 60 * minutes,
    }


def main() -> None:
    if sys.argv[1:2] not in ([name] for name in MODELS):
        sys.exit(__doc__)
    with edges_file(sys.argv[2] if sys.argv[2:] else None) as path:
        found = in_fresh_process(__file__, "train", sys.argv[1], path)
    whole = USUAL_EPOCHS * found["seconds_epoch"]
    number = int(whole / found["interval"]) + 1
    cost = number * found["seconds_checkpoint"]
    print(
        f"a checkpoint: {found['bytes'] / 1e6:,.1f} MB, {found['seconds_checkpoint']:.3f} s "
        f"(slowest {found['slowest_checkpoint']:.3f} s); an epoch: {found['seconds_epoch']:.3f} s"
    )
    print(
        f"{USUAL_EPOCHS} epochs: {whole:.0f} s, {number} checkpoints of {cost:.2f} s in all: "
        f"{cost / whole:.2%}"
    )
    share = number * found["cpu_checkpoint"] / (USUAL_EPOCHS * found["cpu_epoch"])
    print(
        f"CPU seconds: a checkpoint {found['cpu_checkpoint']:.3f}, an epoch "
        f"{found['cpu_epoch']:.3f}; the same checkpoints: {share:.2%}"
    )


if __name__ == "__main__":
    run({"train": train}, main)
