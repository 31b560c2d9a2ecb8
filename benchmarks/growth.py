"""Measure the growth of time and memory with the graph.

python benchmarks/growth.py [scale...]   (1/8 1/4 1/2 1 2 4 if left out; 1 is PrimeKG's size)

Both models run with their defaults on synthetic graphs. Linear growth means a constant time per
edge; in practice the time per edge grows a little, because larger graphs fit the caches less.
"""

from __future__ import annotations

import sys
from fractions import Fraction

from measure import MODELS, edges_file, embed, in_fresh_process, run

SCALES = ("1/8", "1/4", "1/2", "1", "2", "4")
NUM_EPOCHS = 4
LIMIT_GIB = 8.0  # of memory, for the largest scale


def embed_graph(arguments: list[str]) -> dict[str, float]:
    model, path = arguments
    return embed(model, path, NUM_EPOCHS)


def main() -> None:
    scales = sorted(sys.argv[1:] or SCALES, key=Fraction)
    per_edge: dict[str, list[float]] = {model: [] for model in MODELS}
    for scale in scales:
        with edges_file(None, float(Fraction(scale))) as path:
            for model, found in per_edge.items():
                figures = in_fresh_process(__file__, "embed", model, path)
                millions, peak = figures["num_edges"] / 1e6, figures["peak_memory_gib"]
                found.append(figures["seconds_epoch"] / millions)
                print(
                    f"{model} at scale {scale}, {millions:.2f} million edges: "
                    f"epoch {figures['seconds_epoch']:.2f} s, {found[-1]:.3f} s per million edges, "
                    f"inference {figures['seconds_inference'] / millions:.3f}; peak {peak:.2f} GiB "
                    f"(predicted {figures['predicted_memory_gib']:.2f}), "
                    f"{'within' if peak <= LIMIT_GIB else 'BEYOND'} {LIMIT_GIB:g} GiB",
                    flush=True,
                )
    for model, found in per_edge.items():
        ratio = found[-1] / found[0]
        print(f"{model}: an edge at scale {scales[-1]} takes {ratio:.2f} times that of {scales[0]}")


if __name__ == "__main__":
    run({"embed": embed_graph}, main)
