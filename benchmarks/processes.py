"""Compare steps over parts in one process with the same steps in all processes of torchrun.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/processes.py kg.csv
    [--model graphsage --steps 8]

A step has one part for each process. In turn, the first process takes a step alone while the others
wait, and all processes take it together, each on a core of its own (Linux). So a busy machine slows
down both. Prints the medians of the times, of the CPU seconds of the slowest process, and of the
bytes that a process sends.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from clinical_drug_discovery.graph.cache import read_cached
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.lib._run.start import begin_run, divided_among
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.system.group.interface import ALONE, first_here
from clinical_drug_discovery.system.group.joined import joined
from clinical_drug_discovery.training.compile_kernels import compile_kernels
from clinical_drug_discovery.training.memory_budget import plan_training
from clinical_drug_discovery.training.train import Parts, add_gradients, make_parts, mean_losses


class Cost(NamedTuple):
    """Seconds and bytes of a step."""

    seconds: float
    cpu: float
    exchange: float
    num_bytes: int


def take_step(parts: Parts) -> None:
    """Take a step as the training does."""
    losses = [
        add_gradients(
            parts.model, parts.decoder, parts.optimizer, *parts.draw(number),
            parts.terms.link_weight, parts.record, 1 / parts.batches.per_step,
        )
        for number in parts.own_numbers()
    ]  # fmt: skip
    parts.optimizer.step()
    parts.record.add(mean_losses(parts.shards.group.gather(losses)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edges")
    parser.add_argument("--model", default="graphsage")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    with joined() as group:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[group.local_rank % len(cores)]})
        settings = divided_among(settings_of(arguments.model, {"training": "sampled"}), group)
        source, nowhere = Source.of([arguments.edges]), Path("nothing-is-written-here.npy")
        run = begin_run(source, nowhere, Path("nor-here"), "cpu", settings.learning_rate)
        with first_here(group):
            graph, _ = read_cached(source)
        plan = plan_training(run, graph, settings, None, None, 0)
        compile_kernels(run, plan.backend, plan.settings.model)
        together = make_parts(run, graph, settings, plan, 0, None)
        alone = None
        if group.rank == 0:
            alone = make_parts(replace(run, group=ALONE), graph, settings, plan, 0, None)

        def cost(step: Callable[[], object]) -> Cost:
            before = time.perf_counter(), time.process_time(), group.seconds, group.num_bytes
            step()
            after = time.perf_counter(), time.process_time(), group.seconds, group.num_bytes
            return Cost(*(b - a for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]  # mypy does not count the fields

        for number in range(arguments.steps):
            one = cost(lambda: take_step(alone)) if alone is not None else None
            group.gather(None)
            all_costs = group.gather(cost(lambda: take_step(together)))
            if one is not None:
                report(number, one, [Cost(*values) for values in all_costs])


ratios: list[tuple[float, float, float, float, float]] = []


def report(number: int, one: Cost, many: list[Cost]) -> None:
    """Print the costs of a step, and the medians so far."""
    seconds, cpu = (max(getattr(c, name) for c in many) for name in ("seconds", "cpu"))
    exchange = min(c.exchange for c in many)
    if number:  # the first step prepares buffers
        ratios.append((one.seconds, seconds, one.cpu, cpu, exchange))
    if not ratios:
        return
    mid = [median(values) for values in zip(*ratios, strict=True)]
    speed = median(row[0] / row[1] for row in ratios)
    print(
        f"step {number}: alone {mid[0]:.2f} s ({mid[2]:.2f} CPU s), together {mid[1]:.2f} s "
        f"({mid[3]:.2f} CPU s each), {speed:.2f} times as fast; exchange {mid[4]:.3f} s, "
        f"{many[0].num_bytes / 1e6:.1f} MB sent by each",
        flush=True,
    )


if __name__ == "__main__":
    main()
