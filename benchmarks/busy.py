"""Measure how much longer a training takes beside a busy process.

python benchmarks/busy.py [num_epochs]            the demonstration (100 epochs if left out)
python benchmarks/busy.py graphsage|hgt kg.csv    an epoch on a large graph, also with the time
                                                  that GNU's OpenMP threads wait by default

Measures alone and beside a process that keeps one core busy, in turns, each in a fresh process, and
prints the ratio of the median times. At most 2 is wanted. Needs a machine on which nothing else
runs.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from measure import MODELS, embed, in_fresh_process, run

REPEAT = 3
BUSY = "while True: pass"
NUM_EPOCHS = 4
#: Variables of the environment by their description.
WAITS = {
    "short waits": {"GOMP_SPINCOUNT": "1000"},  # as `cdd` sets it
    "GNU's default": {"GOMP_SPINCOUNT": "300000"},
}


def demo_seconds(num_epochs: str) -> float:
    """Return the seconds of one demonstration."""
    script = "from clinical_drug_discovery.cli import main; main()"
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["demo", "--output", directory, "--num-epochs", num_epochs]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def epoch(arguments: list[str]) -> dict[str, float]:
    model, path = arguments
    return embed(model, path, NUM_EPOCHS)


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy inside the `with` block."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def compare(name: str, seconds: Callable[[], float]) -> None:
    """Print how long some work takes alone and beside a busy process."""
    quiet, beside = [], []
    for _ in range(REPEAT):
        quiet.append(seconds())
        with busy_process():
            beside.append(seconds())
    alone, together = statistics.median(quiet), statistics.median(beside)
    print(
        f"{name}: {alone:.1f} s alone, {together:.1f} s beside a busy process: "
        f"{together / alone:.2f} times as long",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in MODELS:
        for name, variables in WAITS.items():

            def seconds(variables: dict[str, str] = variables) -> float:
                task = in_fresh_process(__file__, "epoch", *sys.argv[1:], variables=variables)
                return float(task["seconds_epoch"])

            compare(f"epoch of {sys.argv[1]}, {name}", seconds)
        return
    num_epochs = sys.argv[1] if sys.argv[1:] else "100"
    demo_seconds("1")  # compiles, if there is anything to compile
    compare("cdd demo", lambda: demo_seconds(num_epochs))


if __name__ == "__main__":
    run({"epoch": epoch}, main)
