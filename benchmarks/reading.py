"""How long does a kg.csv take to become a graph, and how much memory?

python benchmarks/reading.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)
"""

from __future__ import annotations

import sys
import time

from measure import edges_file, in_fresh_process, run


def read(arguments: list[str]) -> dict[str, float]:
    from clinical_drug_discovery.runtime import GIB, peak_memory_bytes
    from clinical_drug_discovery.tables import read_graph

    start = time.perf_counter()
    graph = read_graph(arguments[0])
    seconds = time.perf_counter() - start
    return {
        "num_rows": graph.report.num_rows,
        "seconds": seconds,
        "peak_memory_gib": peak_memory_bytes() / GIB,
    }


def main() -> None:
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        figures = in_fresh_process(__file__, "read", path, repeat=5)
    print(
        f"read {figures['num_rows']:,.0f} rows: {figures['seconds']:.1f} s, "
        f"peak {figures['peak_memory_gib']:.2f} GiB (medians of 5 processes)"
    )


if __name__ == "__main__":
    run({"read": read}, main)
