"""Does the peak memory of a run stay below its budget?

python benchmarks/budget.py [kg.csv] [--scale 1] [--epochs 3]   (without a file: a synthetic graph)

Takes twelve settings of both models: the whole graph and parts of it, one thread and all, with and
without the fit of the drug ranker. A run with a budget of 1 MB is refused, and the refusal names
the smallest budget. The next run gets this budget, or a multiple of it, and its peak must stay
below. Each run is a process of its own. The last line counts the runs that kept their budget, and
the exit code is 1 if one did not. On PrimeKG's size, it takes a quarter of an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from measure import MODELS, edges_file, in_fresh_process, run

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
_NEEDS = re.compile(r"this run needs ([\d.]+) GiB")


class Setting(NamedTuple):
    """The settings of a run that differ from the defaults."""

    model: str
    sizes: dict[str, Any] = {}  # noqa: RUF012  # read only
    ranker: bool = False
    threads: int | None = None  #: None: all
    factor: float = 1.0  #: budget of the run, relative to the smallest one

    def __str__(self) -> str:
        """Return a line of text."""
        parts = [f"{name} {value}" for name, value in self.sizes.items()]
        parts += ["ranker"] if self.ranker else []
        parts += [f"{self.threads} thread"] if self.threads else []
        parts += [f"{self.factor:g} times the smallest budget"] if self.factor != 1 else []
        return ", ".join([self.model, *parts])


SAMPLED = {"training": "sampled"}
SETTINGS = (
    Setting("graphsage"),
    Setting("graphsage", threads=1),
    Setting("graphsage", {"hidden_dim": 128, "num_layers": 2}, factor=1.5),
    Setting("graphsage", SAMPLED),
    Setting("graphsage", ranker=True),
    Setting("graphsage", SAMPLED, ranker=True, threads=1),
    Setting("hgt"),
    Setting("hgt", threads=1),
    Setting("hgt", {"num_layers": 3}, factor=1.5),
    Setting("hgt", SAMPLED),
    Setting("hgt", ranker=True),
    Setting("hgt", SAMPLED, ranker=True, factor=1.2),
)


def embed(arguments: list[str]) -> dict[str, float]:
    """Embed with a budget; return the peaks in GiB, or the budget that a refusal names."""
    from clinical_drug_discovery.system.errors import DoesNotFitError

    path, model, budget, ranker, epochs, cache, sizes = arguments
    module, function = MODELS[model]
    generate = getattr(importlib.import_module(module), function)
    options = {"memory_budget": budget, "ranker": ranker == "True", "num_epochs": int(epochs)}
    options |= {"cache_dir": cache, "device": "cpu", **json.loads(sizes)}
    with tempfile.TemporaryDirectory() as directory:
        try:
            stats = generate(path, Path(directory) / "e.npy", **options)
        except DoesNotFitError as error:
            found = _NEEDS.search(str(error))
            if found is None:
                raise
            return {"needs": float(found[1])}
    names = ("predicted_memory_gib", "peak_memory_gib")
    return {"needs": 0.0, "fitted": float(stats["has_ranker"]), **{n: stats[n] for n in names}}


def measured(path: str, setting: Setting, epochs: int, cache: str) -> bool:
    """Run one setting, and print a line; return whether the run kept its budget."""
    variables = dict.fromkeys(_THREADS, str(setting.threads)) if setting.threads else {}

    def tried(budget: str) -> dict[str, float]:
        given = (setting.ranker, epochs, cache, json.dumps(setting.sizes))
        return in_fresh_process(
            __file__, "embed", path, setting.model, budget, *given, variables=variables
        )

    smallest = tried("1MB")["needs"]
    budget = smallest * setting.factor
    found = tried(f"{budget:.3f}GiB")
    if found["needs"]:
        print(f"REFUSED {setting}: budget {budget:.2f} GiB, needs {found['needs']:.2f}", flush=True)
        return False
    peak, fitted = found["peak_memory_gib"], bool(found["fitted"]) == setting.ranker
    kept = peak <= budget and fitted
    print(
        f"{'within' if kept else 'OVER' if fitted else 'NO RANKER'} {setting}: predicted "
        f"{found['predicted_memory_gib']:.2f} GiB, budget {budget:.2f}, measured {peak:.2f}",
        flush=True,
    )
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("edges", nargs="?", help="default: a synthetic graph")
    parser.add_argument("--scale", type=float, default=1.0, help="of the synthetic graph")
    parser.add_argument("--epochs", type=int, default=3)
    asked = parser.parse_args()
    kept = 0
    with edges_file(asked.edges, asked.scale) as path, tempfile.TemporaryDirectory() as cache:
        for setting in SETTINGS:
            kept += measured(path, setting, asked.epochs, cache)
    print(f"{kept} of {len(SETTINGS)} runs kept their budget")
    sys.exit(kept < len(SETTINGS))


if __name__ == "__main__":
    run({"embed": embed}, main)
