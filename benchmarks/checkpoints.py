"""Measure the cost of checkpoints, as a share of the time of a training.

python benchmarks/checkpoints.py graphsage|hgt [kg.csv]   (without a file: a synthetic graph of
PrimeKG's size)

Trains some epochs with a checkpoint after each, and measures the seconds and the bytes of one. The
share is that of a training of 100 epochs with the default `--checkpoint-minutes`: one checkpoint
each time, and one at the end. A checkpoint is flushed to the disk, so the disk matters.
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

    def timed(checkpoints: Checkpoints, *given: Any) -> None:
        start = time.perf_counter()
        save(checkpoints, *given)
        saves.append(time.perf_counter() - start)
        sizes.append(newest_first(checkpoints.directory)[0].stat().st_size)

    Checkpoints.save = timed  # type: ignore[method-assign, assignment]
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


if __name__ == "__main__":
    run({"train": train}, main)
