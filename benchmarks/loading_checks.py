"""The cost of the checks on a loaded graph, as a share of loading it.

`python benchmarks/loading_checks.py --scale 0.1` makes a synthetic graph, saves it, and loads it
some times: the SHA-256 of all bytes, the table of the nodes, and the checks (`check_graph`).
`cdd rank` also follows metapaths when it loads (`MetapathFeatures`), so the share of that sum is
printed, too. Times are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.stored import graph_file
from clinical_drug_discovery.graph.stored.check_graph import check_graph
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=0.1, help="size relative to PrimeKG")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        edges, path = Path(directory) / "kg.csv", Path(directory) / "graph"
        synthesize_graph(edges, scale=arguments.scale)
        graph_file.save_graph(path, read_graph(edges), {})
        loads, checks = [], []
        for _ in range(arguments.repeats):
            start = process_time()
            graph, _ = graph_file.load_graph(path)
            loads.append(process_time() - start)
            start = process_time()
            check_graph(graph)
            checks.append(process_time() - start)
        start = process_time()
        MetapathFeatures(graph)
        paths = process_time() - start
    load, check = median(loads), median(checks)
    print(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} edges")
    print(f"load {load * 1000:.1f} ms, of which checks {check * 1000:.1f} ms: {check / load:.1%}")
    print(f"with metapaths {load + paths:.2f} s, of which checks {check / (load + paths):.2%}")


if __name__ == "__main__":
    main()
