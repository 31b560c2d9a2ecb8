"""Train node2vec (PecanPy) on a split that quality.py --rivals or time_to_quality.py has written.

In an environment of its own (pip install pecanpy polars scikit-learn "setuptools<81"):
python benchmarks/rival_pecanpy.py DIR/pair-0 [--dim 128] [--vectors FILE.npy]

node2vec does not use relations. Its p and q are 1, so a step of a walk does not depend on the step
before. "node2vec, cosine" ranks drugs by the cosine with the disease. "node2vec, regression" uses a
logistic regression on the products of both vectors, fitted to the known indications and to 20 other
drugs for each. --vectors writes the vectors of all nodes instead, and prints the times and the peak
memory of the training as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pecanpy import pecanpy
from sklearn.linear_model import LogisticRegression

NEGATIVES = 20  # for each known indication


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--num-walks", type=int, default=10)
    parser.add_argument("--walk-length", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--vectors", type=Path)
    arguments = parser.parse_args()
    split = json.loads((arguments.split / "split.json").read_text())
    train = pl.read_parquet(arguments.split / "train.parquet")
    start, cpu_start = time.perf_counter(), time.process_time()
    z = train_vectors(train, split["num_nodes"], arguments)
    seconds = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }
    if arguments.vectors is not None:
        np.save(arguments.vectors, z)
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
        print(json.dumps({**seconds, "peak_gib": peak}))
        return
    print(f"node2vec: {seconds['seconds']:.0f} s")
    write_scores(z, train, split, arguments.split)


def train_vectors(train: pl.DataFrame, num_nodes: int, arguments: argparse.Namespace) -> Any:
    """Return the vectors of all nodes, shape (N, dim); nodes without edges have 0."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "graph.edg"
        once = train.filter(pl.col("src") < pl.col("dst")).select("src", "dst").unique()
        once.write_csv(path, separator="\t", include_header=False)
        graph = pecanpy.FirstOrderUnweighted(
            p=1, q=1, workers=arguments.workers, verbose=False, random_state=0
        )
        graph.read_edg(str(path), weighted=False, directed=False)
        vectors = graph.embed(
            dim=arguments.dim,
            num_walks=arguments.num_walks,
            walk_length=arguments.walk_length,
            epochs=arguments.epochs,
        )
    z = np.zeros((num_nodes, arguments.dim), np.float32)
    z[np.array([int(name) for name in graph.nodes])] = vectors
    return z


def write_scores(z: Any, train: pl.DataFrame, split: dict[str, Any], place: Path) -> None:
    """Score the drugs by the cosine and by the regression, and write both."""
    unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    first, num_drugs = split["first_drug"], split["num_drugs"]
    diseases = pl.read_parquet(place / "asked.parquet")["disease"].to_numpy()
    drugs = slice(first, first + num_drugs)
    np.save(place / "node2vec, cosine.npy", unit[diseases] @ unit[drugs].T)

    known = train.filter(relation=split["indication"][0]).select("src", "dst").to_numpy()
    rng = np.random.default_rng(0)
    others = first + rng.integers(num_drugs, size=len(known) * NEGATIVES)
    drug = np.concatenate([known[:, 0], others])
    disease = np.concatenate([known[:, 1], known[:, 1].repeat(NEGATIVES)])
    model = LogisticRegression(max_iter=1000)
    model.fit(unit[drug] * unit[disease], np.arange(len(drug)) < len(known))
    weighted = unit[diseases] * model.coef_[0].astype(np.float32)
    np.save(place / "node2vec, regression.npy", weighted @ unit[drugs].T)


if __name__ == "__main__":
    main()
