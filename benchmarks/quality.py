"""Compare rankers on the same splits: how well do they find held-out drugs among all drugs?

python benchmarks/quality.py kg.csv [--seeds 0 1 2] [--split pair] [--minutes 2]
    [--model graphsage --num-epochs 40] [--rivals DIR]

Prints the medians over the seeds of the metrics of `cdd evaluate` (docs/evaluation.md). By default
it compares the baselines and the rankers over metapaths. --minutes adds DistMult and ComplEx
(shallow.py), trained for this time. --model compares the rankers of `cdd evaluate` instead, with
the default settings except for the number of epochs. --rivals DIR writes each split to DIR (see
rivals.py) and adds the scores that other programs have left there.

The splits are those of `cdd evaluate --relation-share 0` with the same seed. The split "both" holds
out whole diseases, then a tenth of the other pairs, so that one training serves two tasks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from boosting import fit_boosted
from rivals import export_split, found_scores
from shallow import COMPLEX, DISTMULT, shallow_ranker, train_shallow

from clinical_drug_discovery.evaluation.baselines import BASELINES
from clinical_drug_discovery.evaluation.gnn_scores import GnnScores, Scores
from clinical_drug_discovery.evaluation.metrics import Metrics, ranking_metrics
from clinical_drug_discovery.evaluation.rankers import Ranker, drug_rankers
from clinical_drug_discovery.evaluation.split import RankingTask, Split, ranking_task
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.lib._run.start import begin_run
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.lib.evaluate import SPLITS
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.models.kinds.table import MODELS
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import fit_path_ranker
from clinical_drug_discovery.training.compile_kernels import compile_kernels
from clinical_drug_discovery.training.memory_budget import plan_training
from clinical_drug_discovery.training.train import train

SHOWN = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
#: A training graph, and the tasks after training on it, by name.
Race = tuple[KnowledgeGraph, dict[str, RankingTask]]
#: Metrics by task and ranker.
Results = dict[str, dict[str, Metrics]]


def hold_out(graph: KnowledgeGraph, name: str, seed: int) -> Split:
    """Make a split as `cdd evaluate` does."""
    make, parameters = SPLITS[name]
    return make(graph, **parameters, seed=seed, validation_share=0)


def prepare(graph: KnowledgeGraph, name: str, seed: int) -> Race:
    """Make a split; returns its training graph and its tasks."""
    if name == "both":
        first = hold_out(graph, "disease", seed)
        then = hold_out(first.graph, "pair", seed)
        tasks = {"pair": ranking_task(then, then.test), "disease": ranking_task(first, first.test)}
        return then.graph, tasks
    split = hold_out(graph, name, seed)
    return split.graph, {name: ranking_task(split, split.test)}


def rankers_of(
    graph: KnowledgeGraph, seed: int, arguments: argparse.Namespace
) -> Iterator[tuple[str, Ranker]]:
    """Make the chosen rankers one after another."""
    if arguments.model:
        yield from trained_rankers(graph, seed, arguments)
        return
    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)
    if not arguments.no_paths:
        first = node_range_of(graph, PRIMEKG.disease_type)[0]
        features = MetapathFeatures(graph)
        paths, _ = fit_path_ranker(features, seed=seed)
        yield "paths", lambda diseases: paths.scores(features, diseases - first)
        boosted = fit_boosted(features, seed=seed)
        yield "paths, boosted", lambda diseases: boosted.scores(features, diseases - first)
    if arguments.minutes is not None:
        seconds = 60 * arguments.minutes
        for name in (DISTMULT, COMPLEX):
            model = train_shallow(graph, kind=name, seconds=seconds, seed=seed)
            yield name, shallow_ranker(graph, model)


def trained_rankers(
    graph: KnowledgeGraph, seed: int, arguments: argparse.Namespace
) -> Iterator[tuple[str, Ranker]]:
    """Train a model and make the rankers of `cdd evaluate`."""
    chosen = {"num_epochs": arguments.num_epochs, "training": arguments.training}
    settings = settings_of(arguments.model, chosen)
    nowhere = Path("nothing-is-written-here.csv")
    run = begin_run(
        Source.of(arguments.edges), nowhere, Path("nor-here"), "cpu", settings.learning_rate
    )
    plan = plan_training(run, graph, settings, None, None, 0)
    compile_kernels(run, plan.backend, plan.settings.model)
    trained = train(run, graph, settings, plan, seed)
    embeddings, _ = embed_nodes(run, trained.model, trained.graph, plan.chunk_size, plan.backend)
    print(f"{arguments.model}: {settings.num_epochs} epochs, {run.seconds}", flush=True)
    gnn = GnnScores(embeddings, trained.decoder)
    del trained
    for name, ranker in drug_rankers(graph, gnn, seed=seed):
        yield (name if name in BASELINES else f"{arguments.model}: {name}"), ranker
        if arguments.no_paths and name == "paths":
            return


def race(prepared: Race, arguments: argparse.Namespace, name: str, seed: int) -> Results:
    """Return the metrics of every ranker, by task and ranker."""
    graph, tasks = prepared
    diseases = np.unique(np.concatenate([task.diseases for task in tasks.values()]))
    results: Results = {task: {} for task in tasks}

    def note(ranker: str, scores: Scores) -> None:
        for which, task in tasks.items():
            rows = scores[np.searchsorted(diseases, task.diseases)]
            results[which][ranker] = ranking_metrics(rows, task.known, task.row, task.candidate)

    start = time.perf_counter()
    for ranker, score in rankers_of(graph, seed, arguments):
        note(ranker, score(diseases))
        print(f"  {name} {seed}, {ranker}: {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
    if arguments.rivals is not None:
        place = arguments.rivals / f"{name}-{seed}"
        export_split(place, graph, diseases)
        num_drugs = next(iter(tasks.values())).known.shape[1]
        for rival, scores in found_scores(place, (len(diseases), num_drugs)):
            note(rival, scores)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=[*SPLITS, "both"], action="append", help="default: all")
    parser.add_argument(
        "--minutes", type=float, help="train DistMult and ComplEx for this time each"
    )
    parser.add_argument("--model", choices=MODELS, help="train this model")
    parser.add_argument("--num-epochs", type=int, default=100, help="of --model")
    parser.add_argument("--training", help="of --model: full or sampled")
    parser.add_argument("--no-paths", action="store_true", help="leave out rankers over metapaths")
    parser.add_argument("--rivals", type=Path, help="directory of other programs' scores")
    arguments = parser.parse_args()
    graph = read_graph(arguments.edges)
    for name in arguments.split or [*SPLITS, "both"]:
        found = [race(prepare(graph, name, s), arguments, name, s) for s in arguments.seeds]
        for task in found[0]:
            show(f"{name}, {task}", [results[task] for results in found])


def show(title: str, found: list[dict[str, Metrics]]) -> None:
    """Print the medians over the seeds."""
    counts = ", ".join(str(next(iter(each.values()))["num_pairs"]) for each in found)
    print(f"\n{title}: {counts} pairs held out\n{'':36}" + "".join(f"{m:>12}" for m in SHOWN))
    for ranker in found[0]:
        each = [results[ranker] for results in found if ranker in results]
        medians = (statistics.median(float(m[shown] or 0) for m in each) for shown in SHOWN)
        print(f"{ranker:36}" + "".join(f"{value:12.3f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()
