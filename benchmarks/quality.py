"""How well are held-out drugs found for diseases, among all drugs? A race on the same splits.

python benchmarks/quality.py kg.csv [--seeds 0 1 2] [--split pair] [--minutes 2]
    [--model graphsage --num-epochs 40] [--rivals DIR]

Medians over the seeds, by the metrics that `cdd evaluate` has (docs/evaluation.md): rankers that
learn nothing; typed paths; with --minutes, DistMult and ComplEx with nothing but a vector per node,
trained so long (shallow.py). With --model instead our network after so many epochs, at its other
defaults, and all that `cdd evaluate` ranks by. --rivals DIR writes each split there, as rivals.py
says, and ranks by the scores of other programs that are found beside it.

Splits are those of `cdd evaluate --relation-share 0` with the same seed. "both" holds out whole
diseases, then a tenth of the other pairs: one training answers both questions.
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
from shallow import train_shallow

from clinical_drug_discovery.evaluation.baselines import BASELINES
from clinical_drug_discovery.evaluation.drug_ranking import (
    Ranker,
    RankingTask,
    drug_rankers,
    ranking_task,
    score_by_node,
)
from clinical_drug_discovery.evaluation.metrics import Metrics, ranking_metrics
from clinical_drug_discovery.evaluation.split import Split
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib._run.start import begin_run
from clinical_drug_discovery.lib.evaluate import MODELS, SPLITS, settings_of
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.ranking.bilinear_score import GnnScores, Scores
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import fit_path_ranker
from clinical_drug_discovery.training.compile_kernels import compile_kernels
from clinical_drug_discovery.training.memory_plan import plan_training

SHOWN = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
#: A training graph, and what is asked after training on it.
Race = tuple[KnowledgeGraph, dict[str, RankingTask]]
#: By question and ranker.
Figures = dict[str, dict[str, Metrics]]


def hold_out(graph: KnowledgeGraph, name: str, seed: int) -> Split:
    """As `cdd evaluate` does."""
    make, parameters = SPLITS[name]
    return make(graph, **parameters, seed=seed, validation_share=0)


def prepare(graph: KnowledgeGraph, name: str, seed: int) -> Race:
    """Hold out what a split holds out."""
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
    """Make the rankers that were asked for, each when its turn comes."""
    if arguments.model:
        yield from trained_rankers(graph, seed, arguments)
        return
    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)
    if not arguments.no_paths:
        first = node_range_of(graph, DISEASE)[0]
        evidence = MetapathFeatures(graph)
        for name, fit in (("listwise", fit_path_ranker), ("boosted", fit_boosted)):
            scores_of = fit(evidence, seed=seed).scores
            yield f"paths, {name}", partial(score_by_node, scores_of, evidence, first)
    if arguments.minutes is not None:
        seconds = 60 * arguments.minutes
        for name, is_complex in (("DistMult", False), ("ComplEx", True)):
            yield name, train_shallow(graph, is_complex=is_complex, seconds=seconds, seed=seed)


def trained_rankers(
    graph: KnowledgeGraph, seed: int, arguments: argparse.Namespace
) -> Iterator[tuple[str, Ranker]]:
    """Our network at its defaults but for the epochs, and all that `cdd evaluate` ranks by."""
    chosen = {"num_epochs": arguments.num_epochs, "training": arguments.training}
    settings, train = settings_of(arguments.model, chosen)
    nowhere = Path("nothing-is-written-here.csv")
    run = begin_run(
        arguments.edges, nowhere, Path("nor-here"), "cpu", settings.learning_rate, None, seed
    )
    plan = plan_training(run, graph, settings, None, None, 0)
    compile_kernels(run, plan.backend)
    trained = train(run, graph, settings, plan, seed)
    embeddings, _ = embed_nodes(run, trained.model, graph, plan.chunk_size, plan.backend)
    print(f"{arguments.model}: {settings.num_epochs} epochs, {run.seconds}", flush=True)
    gnn = GnnScores(embeddings, trained.decoder)
    del trained
    for name, scores_of in drug_rankers(graph, gnn, seed=seed):
        yield (name if name in BASELINES else f"{arguments.model}: {name}"), scores_of
        if arguments.no_paths and name == "paths":  # what the ranker has of them
            return


def judge(scores: Scores, asked: RankingTask, every: IntArray) -> Metrics:
    """Figures of one question, of scores of all diseases that any question asks about."""
    own = scores[np.searchsorted(every, asked.diseases)]
    return ranking_metrics(own, asked.known, asked.row, asked.candidate)


def race(prepared: Race, arguments: argparse.Namespace, name: str, seed: int) -> Figures:
    """Every ranker's figures, by question and ranker."""
    graph, questions = prepared
    every = np.unique(np.concatenate([asked.diseases for asked in questions.values()]))
    figures: Figures = {question: {} for question in questions}

    def note(ranker: str, scores: Scores) -> None:
        for question, asked in questions.items():
            figures[question][ranker] = judge(scores, asked, every)

    start = time.perf_counter()
    for ranker, scores_of in rankers_of(graph, seed, arguments):
        note(ranker, scores_of(every))
        print(f"  {name} {seed}, {ranker}: {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
    if arguments.rivals is not None:
        place = arguments.rivals / f"{name}-{seed}"
        export_split(place, graph, every)
        num_drugs = len(questions[next(iter(questions))].known[0])
        for rival, scores in found_scores(place, (len(every), num_drugs)):
            note(rival, scores)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--split", choices=[*SPLITS, "both"], action="append", help="all if left out"
    )
    parser.add_argument(
        "--minutes", type=float, help="training of each shallow model; none if left out"
    )
    parser.add_argument("--model", choices=MODELS, help="train our network as well")
    parser.add_argument("--num-epochs", type=int, default=100, help="of our network")
    parser.add_argument("--training", help="of our network, full or sampled")
    parser.add_argument("--no-paths", action="store_true", help="leave out what only paths take")
    parser.add_argument("--rivals", type=Path, help="directory to share splits and scores by")
    arguments = parser.parse_args()
    graph = read_graph(arguments.edges)
    for name in arguments.split or [*SPLITS, "both"]:
        found = [race(prepare(graph, name, s), arguments, name, s) for s in arguments.seeds]
        for question in found[0]:
            show(f"{name}, {question}", [figures[question] for figures in found])


def show(title: str, found: list[dict[str, Metrics]]) -> None:
    """Medians over the seeds."""
    counts = ", ".join(str(next(iter(each.values()))["num_pairs"]) for each in found)
    print(f"\n{title}: {counts} pairs held out\n{'':36}" + "".join(f"{m:>12}" for m in SHOWN))
    for ranker in found[0]:
        each = [figures[ranker] for figures in found if ranker in figures]
        medians = (statistics.median(float(m[shown] or 0) for m in each) for shown in SHOWN)
        print(f"{ranker:36}" + "".join(f"{value:12.3f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()
