"""Kill runs at random moments, resume them, and compare the results with uninterrupted runs.

Each case is a model and a way of training. A run is killed with SIGKILL, then started again with
`--resume`, and may be killed again. The last one ends by itself. Its embeddings and weights must
have the bytes of the run that was never killed.

    python benchmarks/kill_and_resume.py               # 8 kills, on the sample graph
    python benchmarks/kill_and_resume.py --kills 50
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file

CASES = tuple(itertools.product(("graphsage", "hgt"), ("full", "sampled")))
SMALL = ("--embedding-dim", "32", "--hidden-dim", "32", "--device", "cpu", "--no-cache")
KILLS_IN_A_ROW = 3  # most kills of one run
ANYWHERE = 0.25  # fraction of the kills at any moment; the others come after the first epoch


def command(edges: Path, case: tuple[str, str], output: Path, epochs: int) -> list[str]:
    """Return the command of a run that saves a checkpoint after each step."""
    model, training = case
    python = (sys.executable, "-m", "clinical_drug_discovery", "embed", model)
    paths = ("--edges", str(edges), "--output", str(output), "--num-epochs", str(epochs))
    return [*python, *paths, *SMALL, "--training", training, "--checkpoint-minutes", "0"]


def results(output: Path) -> dict[str, bytes]:
    """Return the bytes of the embeddings and of each tensor of the weights."""
    weights = load_file(output.with_name(f"{output.stem}_model") / "weights.safetensors")
    found = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    return {**found, "embeddings": output.read_bytes()}


def rows_of(history: Path) -> tuple[int, int]:
    """Return the time of the last change of a history and its number of epochs; 0, 0 without it."""
    try:
        return history.stat().st_mtime_ns, history.read_text().count("\n") - 1
    except FileNotFoundError:
        return 0, 0


def run_and_kill(run: list[str], history: Path, seconds: float, rng: random.Random) -> str:
    """Start a run, and kill it at a random moment; return the moment, or "ended"."""
    before, _ = rows_of(history)
    process = subprocess.Popen(run, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if rng.random() < ANYWHERE:
        time.sleep(rng.uniform(0, seconds))
    else:
        while rows_of(history)[0] == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, seconds / 3))
    if process.poll() is not None:
        return "ended"
    process.kill()
    process.wait()
    return f"killed after epoch {rows_of(history)[1]}"


def try_case(
    edges: Path, case: tuple[str, str], kills: int, epochs: int, rng: random.Random, folder: Path
) -> tuple[int, int, int]:
    """Return the numbers of kills, of resumed runs, and of resumed runs with the right bytes."""
    whole = folder / "whole.npy"
    start = time.perf_counter()
    subprocess.run(command(edges, case, whole, epochs), check=True, capture_output=True)
    seconds, wanted = time.perf_counter() - start, results(whole)
    killed, resumed, right = 0, 0, 0
    while killed < kills:
        output = folder / f"{resumed}.npy"
        resume = [*command(edges, case, output, epochs), "--resume"]
        history = folder / f"{output.stem}_model.run" / "history.csv"
        for _ in range(min(rng.randint(1, KILLS_IN_A_ROW), kills - killed)):
            moment = run_and_kill(resume, history, seconds, rng)
            killed += moment != "ended"
            print(f"  {'/'.join(case)}: {moment}", flush=True)
        done = subprocess.run(resume, capture_output=True, text=True, check=False)
        resumed += 1
        is_right = done.returncode == 0 and results(output) == wanted
        right += is_right
        if not is_right:
            print(f"  {'/'.join(case)}: WRONG, exit code {done.returncode}: {done.stderr[-500:]}")
    return killed, resumed, right


def main() -> None:
    """Run all cases and print one line for each; exit with 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=8, help="kills in all cases together")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--edges", type=Path, default=None, help="default: the sample graph")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    edges = asked.edges or Path(str(files("clinical_drug_discovery") / "data" / "sample_kg.csv"))
    each, extra = divmod(asked.kills, len(CASES))
    wrong = 0
    for number, case in enumerate(CASES):
        with TemporaryDirectory() as folder:
            kills = each + (number < extra)
            found = try_case(edges, case, kills, asked.epochs, rng, Path(folder))
        killed, resumed, right = found
        wrong += resumed - right
        print(f"{'/'.join(case)}: {killed} kills, {right} of {resumed} resumed runs are right")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
