"""Measure how long it takes to read a graph from its file and from the cache.

python benchmarks/reading.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

The yardstick is polars, which parses the same file into columns of text.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable

from measure import edges_file, in_fresh_process, run


def figures(work: Callable[[], int]) -> dict[str, float]:
    """Measure the seconds and peak memory of a function that returns a number of rows."""
    from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes

    start = time.perf_counter()
    num_rows = work()
    seconds = time.perf_counter() - start
    return {"num_rows": num_rows, "seconds": seconds, "peak_memory_gib": peak_memory_bytes() / GIB}


def scan(arguments: list[str]) -> dict[str, float]:
    import polars as pl

    frame = pl.scan_csv(arguments[0], infer_schema=False, glob=False)
    return figures(lambda: sum(len(batch) for batch in frame.collect_batches()))


def read(arguments: list[str]) -> dict[str, float]:
    from clinical_drug_discovery.graph.read import read_graph

    return figures(lambda: read_graph(arguments[0]).report.num_rows)


def cached(arguments: list[str]) -> dict[str, float]:
    """Read through the cache, which is made if it is missing."""
    from clinical_drug_discovery.graph.cache import read_cached

    path, directory = arguments
    return figures(lambda: read_cached(path, cache_dir=directory)[0].report.num_rows)


def main() -> None:
    with (
        edges_file(sys.argv[1] if sys.argv[1:] else None) as path,
        tempfile.TemporaryDirectory() as directory,
    ):
        plain = in_fresh_process(__file__, "scan", path, repeat=5)
        results = {
            "read": in_fresh_process(__file__, "read", path, repeat=5),
            "read and cache": in_fresh_process(__file__, "cached", path, directory),
            "from cache": in_fresh_process(__file__, "cached", path, directory, repeat=5),
        }
    print(f"polars alone: {plain['seconds']:.2f} s, peak {plain['peak_memory_gib']:.2f} GiB")
    for name, result in results.items():
        seconds, num_rows = result["seconds"], result["num_rows"]
        print(
            f"{name}: {seconds:.2f} s = {seconds / plain['seconds']:.2f} scans, "
            f"{num_rows / seconds / 1e6:.1f} million rows/s of {num_rows:,.0f}, "
            f"peak {result['peak_memory_gib']:.2f} GiB"
        )


if __name__ == "__main__":
    run({"scan": scan, "read": read, "cached": cached}, main)
