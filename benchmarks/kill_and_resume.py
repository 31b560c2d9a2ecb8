"""Kill runs at random moments, resume them, and compare the results with uninterrupted runs.

Each case is a model and a way of training. A run is killed by the system, then started again with
`--resume`, and may be killed again. The last one ends by itself. Its embeddings and weights must
have the bytes of the run that was never killed.

    python benchmarks/kill_and_resume.py               # 8 kills, on the sample graph
    python benchmarks/kill_and_resume.py --kills 50
    python benchmarks/kill_and_resume.py --scratch-dir /tmp/scratch    # large arrays lie in files

Each run is a process of its own, forked from one that has imported the libraries but not used them.
So most kills do not hit the seconds of the imports, and 50 kills take a few minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

from safetensors.torch import load_file

if TYPE_CHECKING:
    from clinical_drug_discovery.training.memory_plan import Plan

CASES = tuple(itertools.product(("graphsage", "hgt"), ("full", "sampled")))
_SIZES = ("--embedding-dim", "32", "--hidden-dim", "32")
SMALL = (*_SIZES, "--device", "cpu", "--no-cache", "--no-ranker", "--checkpoint-minutes", "0")
# Several steps in an epoch of the sample graph, whose nodes would else be in each batch.
SAMPLED = ("--training", "sampled", "--subgraph-size", "500")
FACTS = {"graphsage": "--edge-batch-size", "hgt": "--edge-sample-size"}
NUM_CANDIDATES = 4
LEAST_IN_FILES = 4096
IMPORTED = ("cli", "lib.gnn_embeddings", "lib.gnn_hgt")  # before the processes are forked
KILLS_IN_A_ROW = 3  # most kills of one run

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [f"clinical_drug_discovery.{name}" for name in IMPORTED]
    + ["torch.fx.experimental.symbolic_shapes"]
)


def command(edges: Path, case: tuple[str, str], output: Path, epochs: int) -> list[str]:
    """Return the arguments of a run that saves a checkpoint after each step."""
    model, training = case
    paths = ("--edges", str(edges), "--output", str(output), "--num-epochs", str(epochs))
    more = (*SAMPLED, FACTS[model], "8") if training == "sampled" else ()
    return ["embed", model, *paths, *SMALL, *more]


def start(
    arguments: list[str], log: Path, kill_after: float = 0
) -> multiprocessing.context.ForkServerProcess:
    """Run the command line in a process of its own, until it ends or is killed.

    Args:
        arguments: of the command line.
        log: gets the messages of the run.
        kill_after: the system kills the process after so many CPU seconds; 0: never.
    """
    process = _FORKS.Process(target=_run, args=(arguments, str(log), kill_after))
    process.start()
    process.join()
    return process


def _run(arguments: list[str], log: str, kill_after: float) -> None:
    from clinical_drug_discovery.__main__ import main as run
    from clinical_drug_discovery.ops import buffers
    from clinical_drug_discovery.training import edge_sampler, graph_sizes, memory_plan

    for module in (edge_sampler, graph_sizes):
        vars(module)["NUM_CANDIDATES"] = NUM_CANDIDATES
    if "--scratch-dir" in arguments:  # as if nothing fitted into memory
        vars(buffers)["LEAST_IN_FILES"] = LEAST_IN_FILES
        mock.patch.object(memory_plan.Plan, "bytes_needed", _needs_files).start()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.argv = ["cdd", *arguments]
    # SIGPROF ends the process like SIGKILL. A timer of CPU seconds does not depend on the load.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, kill_after)
    begin = time.process_time()
    try:
        run()
    finally:
        Path(log).with_suffix(".seconds").write_text(str(time.process_time() - begin))


def _needs_files(plan: Plan) -> int:
    return 0 if plan.scratch_dir else 2**60


def results(output: Path) -> dict[str, bytes]:
    """Return the bytes of the embeddings and of each tensor of the weights."""
    weights = load_file(output.with_name(f"{output.stem}_model") / "weights.safetensors")
    found = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return {**found, "embeddings": output.read_bytes()}


def moment_of(run_dir: Path) -> str:
    """Return how far a killed run has come."""
    try:
        rows = (run_dir / "history.csv").read_text().count("\n") - 1
    except FileNotFoundError:
        return "before or after the training"
    return f"after epoch {max(rows, 0)}"


def try_case(
    edges: Path,
    case: tuple[str, str],
    kills: int,
    epochs: int,
    rng: random.Random,
    folder: Path,
    flags: list[str],
) -> tuple[int, int, int]:
    """Return the numbers of kills, of resumed runs, and of resumed runs with the right bytes."""
    whole, log = folder / "whole.npy", folder / "log.txt"
    if start(command(edges, case, whole, epochs), log).exitcode:
        sys.exit(log.read_text())
    seconds, wanted = float(log.with_suffix(".seconds").read_text()), results(whole)
    killed, resumed, right = 0, 0, 0
    while killed < kills:
        output = folder / f"{resumed}.npy"
        resume = [*command(edges, case, output, epochs), *flags, "--resume"]
        for _ in range(min(rng.randint(1, KILLS_IN_A_ROW), kills - killed)):
            if start(resume, log, rng.uniform(0.001, seconds)).exitcode != -signal.SIGPROF:
                seconds = min(seconds, float(log.with_suffix(".seconds").read_text()))
                break
            killed += 1
            where = moment_of(folder / f"{output.stem}_model.run")
            print(f"  {'/'.join(case)}: killed {where}", flush=True)
        last = start(resume, log)
        resumed += 1
        is_right = last.exitcode == 0 and results(output) == wanted
        right += is_right
        if not is_right:
            print(f"  {'/'.join(case)}: WRONG, exit code {last.exitcode}: {log.read_text()[-500:]}")
    return killed, resumed, right


def main() -> None:
    """Run all cases and print one line for each; exit with 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8, help="kills in all cases together")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--edges", type=Path, default=None, help="default: the sample graph")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--scratch-dir", help="of the runs that are killed and resumed")
    asked = parser.parse_args()
    flags = ["--scratch-dir", asked.scratch_dir] if asked.scratch_dir else []
    rng = random.Random(asked.seed)
    edges = asked.edges or Path(str(files("clinical_drug_discovery") / "data" / "sample_kg.csv"))
    each, extra = divmod(asked.kills, len(CASES))
    wrong, begin = 0, time.perf_counter()
    for number, case in enumerate(CASES):
        with TemporaryDirectory() as folder:
            kills = each + (number < extra)
            found = try_case(edges, case, kills, asked.epochs, rng, Path(folder), flags)
        killed, resumed, right = found
        wrong += resumed - right
        print(f"{'/'.join(case)}: {killed} kills, {right} of {resumed} resumed runs are right")
    print(f"{asked.kills} kills, {wrong} wrong results, in {time.perf_counter() - begin:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
