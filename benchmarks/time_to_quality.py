"""Compare embeddings by the seconds of their training: how much do neighbors know of treatments?

python benchmarks/time_to_quality.py KG [--split pair|disease] [--fold 1,2,3] [--folds 6]
    [--methods start,fastrp,graphsage,hgt,graphsage-parts,hgt-parts,distmult,rotate,pyg,node2vec]
    [--epochs 10,20,40,100]
    [--seconds 60,120,240] [--walks 2] [--node2vec PYTHON] [--output DIR] [--plot FILE]
    [--device cpu|cuda] [--finished]

Each method learns from the training graph of a fold of `cdd evaluate --folds`. The probe of
`cdd evaluate` (ranker `neighbors`) then ranks the held-out drugs by the embeddings. Each run has a
process of its own and a file of its own in DIR, so the same command continues where it stopped.
With --finished, the table and the picture show all runs in DIR, and none is started.
With several folds, the ranks are pooled, and the costs are means.

- graphsage, hgt: the defaults, except for --epochs. Each number of epochs is a run of its own,
  since the learning rate falls to 0 within a run. With "-parts", `training` is sampled.
- start: the vectors that both start from, with 512 dimensions, of the graph without treatments.
- fastrp: this package's FastRP alone, with 512 dimensions, of the graph with treatments.
- distmult, rotate: shallow.py, 128 dimensions, for --seconds of CPU time each.
- pyg: two layers of PyTorch Geometric's SAGEConv on the whole graph (rival_pyg.py), 64 dimensions,
  for --seconds of CPU time.
- node2vec: PecanPy with 128 dimensions and --walks walks of 40 steps from each node. It needs the
  interpreter of an environment that has it (see rival_pecanpy.py).

The times count from the training graph in memory to the embeddings of all nodes, without compiling
this package's kernels. On a machine that others use too, compare the CPU seconds. The peak memory
is that of the process, with the whole graph.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from rival_pyg import train_sage
from rivals import export_split
from shallow import DISTMULT, ROTATE, train_shallow
from torch import Tensor

from clinical_drug_discovery.evaluation.embedding_probe import neighbor_scores
from clinical_drug_discovery.evaluation.folds import Fold
from clinical_drug_discovery.evaluation.held_out import TEST, HeldOut, hold_out
from clinical_drug_discovery.evaluation.measures.differences import differences
from clinical_drug_discovery.evaluation.metrics import filtered_ranks, pair_metrics
from clinical_drug_discovery.evaluation.split import ranking_task
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.source import ReadSettings, Source
from clinical_drug_discovery.graph.vocabulary import VocabularyChoice
from clinical_drug_discovery.lib._run.start import begin_run, read_edges
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.lib.evaluate import SPLITS
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.models.initialisation import projected_vectors, structural_vectors
from clinical_drug_discovery.models.kinds.interface import FULL, SAMPLED
from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.compile_kernels import compile_kernels
from clinical_drug_discovery.training.memory_budget import plan_training
from clinical_drug_discovery.training.objective.treatment_votes import without_treatments
from clinical_drug_discovery.training.train import train

SEED, DIM, PYG_DIM, RELATION_SHARE = 0, 512, 64, 0.01  # as `cdd evaluate` does by default
SHALLOW = {"distmult": DISTMULT, "rotate": ROTATE}
PARTS = "-parts"  # ends the names of GNNs that are trained on parts of the graph
GNNS, FREE = ("graphsage", "hgt", f"graphsage{PARTS}", f"hgt{PARTS}"), ("start", "fastrp")
PYG, NODE2VEC = "pyg", "node2vec"
METHODS = (*FREE, *GNNS, *SHALLOW, PYG, NODE2VEC)
LABELS = {
    "start": "initial vectors", "fastrp": "FastRP", "graphsage": "GraphSAGE", "hgt": "HGT",
    f"graphsage{PARTS}": "GraphSAGE on parts", f"hgt{PARTS}": "HGT on parts",
    "distmult": "DistMult", "rotate": "RotatE", PYG: "PyG SAGEConv", NODE2VEC: "node2vec",
}  # fmt: skip


class Embedded(NamedTuple):
    """Embeddings of all nodes, and what they cost."""

    vectors: Tensor
    cost: dict[str, float]  #: seconds, cpu_seconds, peak_gib


def runs_of(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield each method and the amount of its training: epochs, seconds or walks."""
    for method in arguments.methods:
        if method in FREE:
            yield method, 0
        else:
            by_time = arguments.walks if method == NODE2VEC else arguments.seconds
            for amount in arguments.epochs if method in GNNS else by_time:
                yield method, amount


def finished_runs(arguments: argparse.Namespace) -> list[tuple[str, int]]:
    """Return the runs that all folds have in DIR, in the order of METHODS."""
    found = [
        {path.stem for path in folder_of(arguments, fold).glob("*.json")} for fold in arguments.fold
    ]
    names = [name.rpartition("-") for name in set.intersection(*found)]
    runs = [(method, int(amount)) for method, _, amount in names if method in METHODS]
    return sorted(runs, key=lambda each: (METHODS.index(each[0]), each[1]))


def place_of(arguments: argparse.Namespace, method: str, amount: int, fold: int) -> Path:
    """Return the file of a run."""
    return folder_of(arguments, fold) / f"{method}-{amount}.json"


def folder_of(arguments: argparse.Namespace, fold: int) -> Path:
    """Return the folder of a fold's runs."""
    return Path(arguments.output / f"{arguments.split}-{fold}-of-{arguments.folds}")


def measured(embed: Callable[[], Tensor]) -> Embedded:
    """Embed, and measure the cost."""
    start, cpu_start = time.perf_counter(), time.process_time()
    vectors = embed()
    cost = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_gib": peak_memory_bytes() / GIB,
    }
    return Embedded(vectors, cost)


def embed_gnn(run: Run, graph: KnowledgeGraph, model: str, num_epochs: int) -> Embedded:
    """Train a GNN and embed all nodes."""
    training = SAMPLED if model.endswith(PARTS) else FULL
    chosen = {"num_epochs": num_epochs, "training": training}
    settings = settings_of(model.removesuffix(PARTS), chosen)
    plan = plan_training(run, graph, settings, None, None, 0)
    compile_kernels(run, plan.backend, plan.settings.model)

    def embed() -> Tensor:
        trained = train(run, graph, settings, plan, SEED)
        return embed_nodes(run, trained.model, trained.graph, plan.chunk_size, plan.backend)[0]

    return measured(embed)


def embed_untrained(graph: KnowledgeGraph, method: str) -> Embedded:
    """Return the vectors that training starts from, or FastRP alone."""
    generator = torch.Generator().manual_seed(SEED)
    if method == "fastrp":
        return measured(lambda: projected_vectors(graph, DIM, generator))
    return measured(lambda: structural_vectors(without_treatments(graph)[0], DIM, generator))


def embed_shallow(graph: KnowledgeGraph, kind: str, seconds: int) -> Embedded:
    """Train DistMult or RotatE for some CPU seconds."""

    def embed() -> Tensor:
        model = train_shallow(graph, kind=kind, seconds=seconds, seed=SEED, clock=time.process_time)
        vectors: Tensor = model.nodes.weight.detach()
        return vectors

    return measured(embed)


def embed_pyg(held_out: HeldOut, seconds: int) -> Embedded:
    """Train PyTorch Geometric's SAGEConv for some CPU seconds."""
    with tempfile.TemporaryDirectory() as directory:
        export_split(Path(directory), held_out.split.graph, held_out.pairs.diseases)

        def embed() -> Tensor:
            model, edges = train_sage(
                Path(directory), dim=PYG_DIM, seconds=seconds, clock=time.process_time
            )
            with torch.no_grad():
                vectors: Tensor = model(edges)
            return vectors

        return measured(embed)


def embed_node2vec(held_out: HeldOut, python: str | None, num_walks: int) -> Embedded:
    """Train node2vec in its own environment."""
    if python is None:
        sys.exit("--node2vec must name the Python of an environment with PecanPy")
    script = Path(__file__).with_name("rival_pecanpy.py")
    with tempfile.TemporaryDirectory() as directory:
        export_split(Path(directory), held_out.split.graph, held_out.pairs.diseases)
        vectors = Path(directory) / "vectors.npy"
        command = [python, script, directory, "--vectors", vectors, "--num-walks", num_walks]
        command += ["--workers", torch.get_num_threads()]
        done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True)
        cost = json.loads(done.stdout.splitlines()[-1])
        return Embedded(torch.from_numpy(np.load(vectors)), cost)


def measure_run(
    arguments: argparse.Namespace, method: str, amount: int, number: int
) -> dict[str, Any]:
    """Hold out the fold, embed its training graph, and rank the held-out drugs."""
    fold = Fold(number, arguments.folds)
    run, held_out = hold_out_fold(arguments.edges, arguments.split, fold, arguments.device)
    graph = held_out.split.graph
    if method in GNNS:
        embedded = embed_gnn(run, graph, method, amount)
    elif method in SHALLOW:
        embedded = embed_shallow(graph, SHALLOW[method], amount)
    elif method == PYG:
        embedded = embed_pyg(held_out, amount)
    elif method == NODE2VEC:
        embedded = embed_node2vec(held_out, arguments.node2vec, amount)
    else:
        embedded = embed_untrained(graph, method)
    if arguments.vectors is not None:
        np.save(arguments.vectors, embedded.vectors.numpy())
    return {
        "method": method, "amount": amount, "dim": embedded.vectors.shape[1], **embedded.cost,
        **probe(held_out, embedded.vectors),
    }  # fmt: skip


def hold_out_fold(edges: Path, split: str, fold: Fold, device: str = "cpu") -> tuple[Run, HeldOut]:
    """Read a graph, and hold out a fold as `cdd evaluate` does; the run writes nothing."""
    source = Source.of(edges)
    nowhere = Path("nothing-is-written-here.csv")
    run = begin_run(source, nowhere, Path("nor-here"), device, 0.0)
    whole = read_edges(run, source, ReadSettings(), VocabularyChoice(), True, None)
    make, parameters = SPLITS[split]
    held_out = hold_out(
        whole, partial(make, **parameters, fold=fold), part=TEST, validation_share=0.0,
        relation_share=RELATION_SHARE, seed=SEED,
    )  # fmt: skip
    return run, held_out


def probe(held_out: HeldOut, vectors: Tensor) -> dict[str, Any]:
    """Rank the held-out drugs by neighbors in the embeddings."""
    task = ranking_task(held_out.split, held_out.pairs)
    scores = neighbor_scores(held_out.split.graph, vectors, task.diseases)
    ranks = filtered_ranks(scores, task.known, task.row, task.candidate)
    return {
        **pair_metrics(ranks, task.row, seed=SEED),
        "disease_index": task.row.tolist(),
        "drug_index": task.candidate.tolist(),
        "rank": ranks.tolist(),
    }


def pooled(of_folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one method over the held-out pairs of all folds."""
    one, num_folds = dict(of_folds[0]), len(of_folds)
    for name in ("disease_index", "drug_index", "rank"):
        one[name] = [value for each in of_folds for value in each[name]]
    for name in ("seconds", "cpu_seconds", "peak_gib"):
        one[name] = sum(each[name] for each in of_folds) / num_folds
    # Each disease is one row of the bootstrap, also if several folds held out pairs of it.
    row = np.unique(one["disease_index"], return_inverse=True)[1]
    return {**one, **pair_metrics(np.array(one["rank"]), row, seed=SEED)}


def show(found: list[dict[str, Any]], base: str) -> None:
    """Print a table of all runs, and their differences to one of them, paired by disease."""
    columns = ("disease_index", "drug_index", "rank")
    tables = [
        pl.DataFrame({name: each[name] for name in columns}).with_columns(
            ranker=pl.lit(name_of(each))
        )
        for each in found
    ]
    minus = differences(pl.concat(tables), base=base, seed=SEED)
    print(
        f"{'':18}{'CPU s':>7}{'wall s':>8}{'GiB':>6}{'MRR':>8}{'':16}{'recall@50':>11}{'':16}"
        f"minus {base}"
    )
    for each in found:
        row = f"{name_of(each):18}{each['cpu_seconds']:7.0f}{each['seconds']:8.0f}"
        row += f"{each['peak_gib']:6.2f}   "
        row += "   ".join(with_interval(each, name, ".3f") for name in ("mrr", "recall@50"))
        if (less := minus.get(name_of(each))) is not None:
            row += "   " + ", ".join(
                with_interval(less, name, "+.3f") for name in ("mrr", "recall@50")
            )
        print(row)


def name_of(each: dict[str, Any]) -> str:
    """Return the name of a run."""
    return f"{each['method']} {each['amount']}" if each["amount"] else str(each["method"])


def with_interval(metrics: dict[str, Any], name: str, form: str) -> str:
    """Return a metric with its interval."""
    value, low, high = (format(metrics[f"{name}{end}"], form) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Draw both figures of the probe against CPU seconds, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(dict.fromkeys(each["method"] for each in found))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for axis, name, label in zip(axes, ("mrr", "recall@50"), ("MRR", "recall@50"), strict=True):
        for method in methods:
            runs = sorted(
                (each for each in found if each["method"] == method),
                key=lambda each: float(each["cpu_seconds"]),
            )
            seconds = [each["cpu_seconds"] for each in runs]
            is_ours = method in GNNS
            line = axis.plot(
                seconds, [each[name] for each in runs], label=LABELS[method], marker="o",
                linestyle="-" if is_ours else "--", linewidth=2 if is_ours else 1.2,
            )[0]  # fmt: skip
            ends = ([each[f"{name}{end}"] for each in runs] for end in ("_low", "_high"))
            axis.vlines(seconds, *ends, color=line.get_color(), alpha=0.35, linewidth=1)
        axis.set(xlabel="CPU seconds of training", ylabel=label, xscale="log", ylim=(0, None))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(visible=True, alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path)


def numbers(text: str) -> list[int]:
    """Read a list such as 10,20,40."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="pair")
    parser.add_argument("--fold", type=numbers, default=[1])
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS)
    parser.add_argument("--epochs", type=numbers, default=[10, 20, 40, 100])
    parser.add_argument("--seconds", type=numbers, default=[60, 120, 240])
    parser.add_argument("--walks", type=numbers, default=[2])
    parser.add_argument("--node2vec", help="the Python of an environment with PecanPy")
    parser.add_argument("--output", type=Path, default=Path("time_to_quality"))
    parser.add_argument("--device", default="cpu", help="of graphsage and hgt: cpu or cuda")
    parser.add_argument("--base", help="run to subtract from the others, such as 'hgt 40'")
    parser.add_argument("--plot", type=Path, help="file of a picture; needs matplotlib")
    parser.add_argument("--finished", action="store_true", help="show all runs in DIR, run none")
    parser.add_argument("--vectors", type=Path, help="of one run: write its embeddings (.npy)")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)  # one run, in this process
    arguments = parser.parse_args()
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"--methods (got {', '.join(unknown)}) must be among {', '.join(METHODS)}")
    if arguments.run is not None:
        method, amount, fold = arguments.run[0], int(arguments.run[1]), int(arguments.run[2])
        place = place_of(arguments, method, amount, fold)
        text = json.dumps(measure_run(arguments, method, amount, fold))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".part").write_text(text)
        place.with_suffix(".part").replace(place)  # a file that exists is complete
        return
    runs = finished_runs(arguments) if arguments.finished else list(runs_of(arguments))
    if not runs:
        parser.error(f"--output ({arguments.output}) must have results with --finished")
    if arguments.vectors is not None and (len(runs) != 1 or len(arguments.fold) != 1):
        parser.error(f"--vectors needs one run, not {len(runs) * len(arguments.fold)}")
    for fold in arguments.fold:
        for method, amount in runs:
            if not place_of(arguments, method, amount, fold).exists():
                command = [sys.executable, *sys.argv, "--run", method, str(amount), str(fold)]
                subprocess.run(command, check=True)
    found = [
        pooled(
            [json.loads(place_of(arguments, *each, fold).read_text()) for fold in arguments.fold]
        )
        for each in runs
    ]
    show(found, arguments.base or name_of(found[0]))
    if arguments.plot is not None:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
