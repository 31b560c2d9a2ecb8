"""How well are held-out drugs found for diseases, among all drugs? A race on the same splits.

python benchmarks/quality.py kg.csv [--seeds 3] [--minutes 2] [--split pair] [--rivals DIR]

Medians over the seeds, by the metrics that `cdd evaluate` has (docs/evaluation.md): rankers that
learn nothing; typed paths; with --minutes, DistMult and ComplEx with nothing but a vector per node,
trained so long (shallow.py). --rivals DIR writes each split there, as rivals.py says, and ranks by
the scores of other programs that are found beside it. `cdd evaluate --relation-share 0` with the
same seed has the same split.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rivals import export_split, found_scores
from shallow import train_shallow

from clinical_drug_discovery.baselines import BASELINES
from clinical_drug_discovery.boosting import fit_boosted
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.metrics import Metrics, Scores, ranking_metrics
from clinical_drug_discovery.pairs import DISEASE, span_of
from clinical_drug_discovery.paths import PathEvidence
from clinical_drug_discovery.ranker import fit_ranker
from clinical_drug_discovery.rankers import Ranker, of_nodes
from clinical_drug_discovery.ranking import Question
from clinical_drug_discovery.split import Split, split_areas, split_diseases, split_pairs
from clinical_drug_discovery.tables import read_graph

SHOWN = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
SPLITS: dict[str, Callable[[KnowledgeGraph, int], Split]] = {
    "pair": lambda graph, seed: split_pairs(graph, share=0.1, seed=seed, validation_share=0),
    "disease": lambda graph, seed: split_diseases(
        graph, num_diseases=60, min_drugs=3, max_drugs=40, seed=seed, validation_share=0
    ),
    "area": lambda graph, seed: split_areas(graph, num_areas=20, seed=seed, validation_share=0),
}


def rankers_of(
    split: Split, seed: int, minutes: float | None, paths: bool
) -> Iterator[tuple[str, Ranker]]:
    graph = split.graph
    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)
    if paths:
        first = span_of(graph, DISEASE)[0]
        evidence = PathEvidence(graph)
        for name, fit in (("listwise", fit_ranker), ("boosted", fit_boosted)):
            scores_of = fit(evidence, seed=seed).scores
            yield f"typed paths, {name}", partial(of_nodes, scores_of, evidence, first)
    if minutes is not None:
        for name, is_complex in (("DistMult", False), ("ComplEx", True)):
            yield name, train_shallow(graph, is_complex=is_complex, seconds=60 * minutes, seed=seed)


def race(split: Split, arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Metrics]:
    """Every ranker's figures on one split."""
    asked = Question.of(split, "test")
    figures: dict[str, Metrics] = {}

    def judge(ranker: str, scores: Scores) -> None:
        figures[ranker] = ranking_metrics(scores, asked.known, asked.row, asked.candidate)

    start = time.perf_counter()
    for ranker, scores_of in rankers_of(split, seed, arguments.minutes, not arguments.no_paths):
        judge(ranker, scores_of(asked.diseases))
        print(f"  {name} {seed}, {ranker}: {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()
    if arguments.rivals is not None:
        place = arguments.rivals / f"{name}-{seed}"
        export_split(place, split, asked)
        for rival, scores in found_scores(place, asked.known.shape):
            judge(rival, scores)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--minutes", type=float, help="training of each shallow model; none if left out"
    )
    parser.add_argument("--split", choices=SPLITS, action="append", help="all if left out")
    parser.add_argument("--no-paths", action="store_true", help="leave typed paths out")
    parser.add_argument("--rivals", type=Path, help="directory to share splits and scores by")
    arguments = parser.parse_args()
    graph = read_graph(arguments.edges)
    for name in arguments.split or SPLITS:
        splits = [SPLITS[name](graph, seed) for seed in range(arguments.seeds)]
        found = [race(split, arguments, name, seed) for seed, split in enumerate(splits)]
        pairs = ", ".join(str(len(split.test)) for split in splits)
        print(f"\n{name}: {pairs} pairs held out\n{'':26}" + "".join(f"{m:>12}" for m in SHOWN))
        for ranker in found[0]:
            each = [figures[ranker] for figures in found if ranker in figures]
            medians = (statistics.median(float(m[shown] or 0) for m in each) for shown in SHOWN)
            print(f"{ranker:26}" + "".join(f"{value:12.3f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()
