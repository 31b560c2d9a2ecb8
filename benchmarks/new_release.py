"""Train on a new release of a graph, from the beginning and from the model of the old release.

python benchmarks/new_release.py [kg.csv] [--model graphsage|hgt] [--epochs 20]
    [--init-epochs 0,2,5,10] [--rates 1] [--facts 0.1] [--nodes 0.02] [--fold 1] [--folds 6]

Without a path, the graph is the sample graph. The new release is the training graph of one fold of
`cdd evaluate --split pair --folds 6`. The old release lacks a tenth of its facts and 2% of its
nodes. A model of the old release is trained for --epochs. Then models of the new release are
trained: from the beginning for as many epochs, and with `init_from` for each number in
--init-epochs (0: without training) at each share of the learning rate in --rates. The probe of
`cdd evaluate` (ranker `neighbors`) ranks the held-out drugs by the embeddings.

Each training has a process of its own. The CPU seconds are those of the whole run without reading
the files of the graph: plan, training, embeddings of all nodes, writing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from time_to_quality import hold_out_fold, numbers, probe, with_interval

import clinical_drug_discovery as cdd
from clinical_drug_discovery.evaluation.folds import Fold
from clinical_drug_discovery.evaluation.held_out import HeldOut
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph

SAMPLE = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
RATES = {"graphsage": 0.01, "hgt": 0.002}  # the default learning rates


def old_release(graph: KnowledgeGraph, facts: float, nodes: float, seed: int) -> KnowledgeGraph:
    """Return a graph without a share of its facts, and then without a share of its nodes."""
    table, rows = cdd.to_frames(graph)
    rng = np.random.default_rng(seed)
    gone = rng.choice(table["node_index"].to_numpy(), int(nodes * table.height), replace=False)
    kept = rows.filter(pl.Series(rng.random(rows.height) >= facts))
    about = pl.col("x_index").is_in(gone) | pl.col("y_index").is_in(gone)
    old_table = table.filter(~pl.col("node_index").is_in(gone))
    return cdd.graph_from_frames(old_table, kept.filter(~about))


def train_model(
    given: argparse.Namespace,
    held_out: HeldOut,
    place: Path,
    epochs: int,
    *,
    rate: float = 1.0,
    old: Path | None = None,
    is_old: bool = False,
) -> dict[str, Any]:
    """Train one model, and rank the held-out drugs by its embeddings."""
    graph = held_out.split.graph
    if is_old:
        graph = old_release(graph, given.facts, given.nodes, given.seed)
    settings: dict[str, Any] = {"num_epochs": epochs, "learning_rate": rate * RATES[given.model]}
    settings |= {"seed": given.seed, "ranker": False, "init_from": old, "device": "cpu"}
    start = time.process_time()
    if epochs:
        output = place / f"{rate}-{epochs}-{old is None}.npy"
        if given.model == "hgt":
            stats = cdd.generate_hgt_embeddings(graph, output, **settings)
        else:
            stats = cdd.generate_gnn_embeddings(graph, output, **settings)
        cpu = time.process_time() - start
    else:
        assert old is not None
        vectors = cdd.load_model(old).embed(graph)[1]
        return {"cpu": time.process_time() - start, **probed(held_out, vectors)}
    found = {"cpu": cpu, "old": stats["model_dir"], "peak": stats["peak_memory_gib"]}
    found |= {"predicted": stats["predicted_memory_gib"], "init_from": stats["init_from"]}
    if not is_old:
        found |= probed(held_out, np.load(stats["output_file"])[order_of(graph)])
    return found


def order_of(graph: KnowledgeGraph) -> Any:
    """Return the row in a file of embeddings, which is sorted by node_index, of each node."""
    return graph.nodes["node_index"].to_numpy().argsort().argsort()


def probed(held_out: HeldOut, vectors: Any) -> dict[str, Any]:
    """Return the figures of the probe."""
    import torch

    return probe(held_out, torch.from_numpy(np.ascontiguousarray(vectors)))


def in_own_process(given: argparse.Namespace, place: Path, epochs: int, **how: Any) -> Any:
    """Return the result of `train_model`, from a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_train, (given, place, epochs, how))


def _train(given: argparse.Namespace, place: Path, epochs: int, how: dict[str, Any]) -> Any:
    held_out = hold_out_fold(given.edges, "pair", Fold(given.fold, given.folds))[1]
    return train_model(given, held_out, place, epochs, **how)


def show(name: str, found: dict[str, Any]) -> None:
    """Print one row of the table."""
    figures = "".join(f"   {with_interval(found, one, '.3f')}" for one in ("mrr", "recall@50"))
    peak = f"{found['peak']:.2f} ({found['predicted']:.2f})" if "peak" in found else ""
    print(f"{name:50}{found['cpu']:7.0f}   {peak:13}{figures}", flush=True)


def main() -> None:
    """Print the quality and the cost of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--model", choices=tuple(RATES), default="graphsage")
    parser.add_argument("--epochs", type=numbers, default=[20], help="from the beginning")
    parser.add_argument("--init-epochs", type=numbers, default=[0, 2, 5, 10])
    parser.add_argument("--rates", type=lambda text: [*map(float, text.split(","))], default=[1.0])
    parser.add_argument("--facts", type=float, default=0.1, help="share of the facts that are new")
    parser.add_argument("--nodes", type=float, default=0.02, help="share of the nodes that are new")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--old", type=Path, help="model of the old release, if there is one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        old = given.old
        if old is None:
            (place / "old").mkdir()
            found = in_own_process(given, place / "old", max(given.epochs), is_old=True)
            old = Path(found["old"])
        print(f"{'':50}{'CPU s':>7}   {'GiB (plan)':13}   MRR{'':22}recall@50")
        for epochs in given.epochs:
            show(f"from the beginning, {epochs} epochs", in_own_process(given, place, epochs))
        for epochs in given.init_epochs:
            for rate in given.rates if epochs else [1.0]:
                found = in_own_process(given, place, epochs, rate=rate, old=old)
                at = f" at {rate:g} of the rate" if len(given.rates) > 1 and epochs else ""
                show(f"from the old model, {epochs} epochs{at}", found)
        print(found.get("init_from") or "")


if __name__ == "__main__":
    main()
