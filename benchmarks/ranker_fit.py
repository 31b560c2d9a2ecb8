"""Measure the fit of the drug ranker on one core and on two.

python benchmarks/ranker_fit.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)

Each fit runs in a fresh process that takes the graph from a cache, with 512 random numbers per node
as embeddings (seed 0). Prints medians of seconds and CPU seconds, the ratio to one core, and the
peak of the process beside the predicted one. Fails if the fitted numbers differ. Needs Linux, which
can keep a process on one core.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import zlib

import torch
from measure import cached_graph, edges_file, in_fresh_process, run

from clinical_drug_discovery.lib.fit_ranker import fit_peak_bytes
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes

DIM = 512
REPEAT = 3


def fit(arguments: list[str]) -> dict[str, float]:
    path, directory, cores = arguments
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    graph = cached_graph(path, directory)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(graph.num_nodes, DIM, generator=generator)
    predicted = fit_peak_bytes(graph, DIM)
    start, cpu = time.perf_counter(), time.process_time()
    ranker = fit_drug_ranker(graph, embeddings=embeddings)
    found = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak": peak_memory_bytes() / GIB,
        "predicted": predicted / GIB,
        "checksum": 0.0,
        **{f"seconds of the {name}": seconds for name, seconds in ranker.paths.seconds.items()},
    }
    for mlp in ranker.paths.mlps:
        for name in sorted(mlp):
            found["checksum"] = zlib.crc32(mlp[name].tobytes(), int(found["checksum"]))
    return found


def main() -> None:
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with (
        edges_file(sys.argv[1] if sys.argv[1:] else None) as path,
        tempfile.TemporaryDirectory() as directory,
    ):
        cached_graph(path, directory)
        for _ in range(REPEAT):
            for cores, found in runs.items():  # in turns, because other programs disturb
                found.append(in_fresh_process(__file__, "fit", path, directory, str(cores)))
    alone = statistics.median(one["seconds"] for one in runs[1])
    for cores, found in runs.items():
        middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
        print(
            f"cores: {cores}, fit {middle['seconds']:.1f} s "
            f"(features {middle['seconds of the features']:.1f}, "
            f"MLPs {middle['seconds of the mlps']:.1f}), "
            f"{middle['seconds'] / alone:.2f} of the time with one; "
            f"{middle['cpu']:.1f} CPU seconds; "
            f"peak {max(one['peak'] for one in found):.2f} GiB "
            f"(predicted {middle['predicted']:.2f})",
            flush=True,
        )
    if len({one["checksum"] for found in runs.values() for one in found}) > 1:
        sys.exit("the fitted numbers depend on the number of cores")


if __name__ == "__main__":
    run({"fit": fit}, main)
