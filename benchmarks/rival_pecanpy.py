"""Train node2vec (PecanPy) on a split that quality.py --rivals has written.

In an environment of its own (pip install pecanpy polars scikit-learn):
python benchmarks/rival_pecanpy.py DIR/pair-0 [--dim 128]

node2vec does not use relations. "node2vec, cosine" ranks drugs by the cosine with the disease.
"node2vec, regression" uses a logistic regression on the products of both vectors, fitted to the
known indications and to 20 other drugs for each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

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
    arguments = parser.parse_args()
    split = json.loads((arguments.split / "split.json").read_text())
    train = pl.read_parquet(arguments.split / "train.parquet")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "graph.edg"
        once = train.filter(pl.col("src") < pl.col("dst")).select("src", "dst").unique()
        once.write_csv(path, separator="\t", include_header=False)
        graph = pecanpy.SparseOTF(p=1, q=1, workers=arguments.workers, verbose=False)
        graph.read_edg(str(path), weighted=False, directed=False)
        vectors = graph.embed(
            dim=arguments.dim,
            num_walks=arguments.num_walks,
            walk_length=arguments.walk_length,
            epochs=arguments.epochs,
        )
    z = np.zeros((split["num_nodes"], arguments.dim), np.float32)
    z[np.array([int(name) for name in graph.nodes])] = vectors
    print(f"node2vec: {time.perf_counter() - start:.0f} s")
    unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    first, num_drugs = split["first_drug"], split["num_drugs"]
    diseases = pl.read_parquet(arguments.split / "asked.parquet")["disease"].to_numpy()
    drugs = slice(first, first + num_drugs)
    np.save(arguments.split / "node2vec, cosine.npy", unit[diseases] @ unit[drugs].T)

    known = train.filter(relation=split["indication"][0]).select("src", "dst").to_numpy()
    rng = np.random.default_rng(0)
    others = first + rng.integers(num_drugs, size=len(known) * NEGATIVES)
    drug = np.concatenate([known[:, 0], others])
    disease = np.concatenate([known[:, 1], known[:, 1].repeat(NEGATIVES)])
    model = LogisticRegression(max_iter=1000)
    model.fit(unit[drug] * unit[disease], np.arange(len(drug)) < len(known))
    weighted = unit[diseases] * model.coef_[0].astype(np.float32)
    np.save(arguments.split / "node2vec, regression.npy", weighted @ unit[drugs].T)


if __name__ == "__main__":
    main()
