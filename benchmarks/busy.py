"""Measure how much longer the demonstration takes beside a busy process.

python benchmarks/busy.py [num_epochs]   (100 if left out)

Runs `cdd demo` alone and beside a process that keeps one core busy, in turns, each in a fresh
process, and prints the ratio of the median times. At most 2 is wanted. Needs a machine on which
nothing else runs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

REPEAT = 3
BUSY = "while True: pass"


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


def main() -> None:
    num_epochs = sys.argv[1] if sys.argv[1:] else "100"
    demo_seconds("1")  # compiles, if there is anything to compile
    quiet, beside = [], []
    for _ in range(REPEAT):
        quiet.append(demo_seconds(num_epochs))
        busy = subprocess.Popen([sys.executable, "-c", BUSY])
        try:
            beside.append(demo_seconds(num_epochs))
        finally:
            busy.kill()
            busy.wait()
    alone, together = statistics.median(quiet), statistics.median(beside)
    print(
        f"cdd demo: {alone:.1f} s alone, {together:.1f} s beside a busy process: "
        f"{together / alone:.2f} times as long"
    )


if __name__ == "__main__":
    main()
