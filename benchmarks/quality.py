"""How well are held-out drugs found for diseases, among all drugs?

python benchmarks/quality.py kg.csv [seeds]   (three seeds if left out)

Rankers that learn nothing, on the same splits and by the same metrics that a model is judged by:
random pairs (a tenth of the indications) and whole diseases (60, of 3 to 40 drugs each). Medians
over the seeds; docs/evaluation.md says what the figures mean.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial

from clinical_drug_discovery.baselines import BASELINES
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.ranking import rank_metrics_of
from clinical_drug_discovery.split import Split, split_diseases, split_pairs
from clinical_drug_discovery.tables import read_graph

SHOWN = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
SPLITS: dict[str, Callable[[KnowledgeGraph, int], Split]] = {
    "random pairs": lambda graph, seed: split_pairs(
        graph, share=0.1, seed=seed, validation_share=0
    ),
    "whole diseases": lambda graph, seed: split_diseases(
        graph, num_diseases=60, min_drugs=3, max_drugs=40, seed=seed, validation_share=0
    ),
}


def main() -> None:
    graph = read_graph(sys.argv[1])
    seeds = range(int(sys.argv[2]) if sys.argv[2:] else 3)
    for name, make in SPLITS.items():
        splits = [make(graph, seed) for seed in seeds]
        pairs = ", ".join(str(len(split.test)) for split in splits)
        print(f"\n{name}: {pairs} pairs held out\n{'':26}" + "".join(f"{m:>12}" for m in SHOWN))
        for ranker, scores_of in BASELINES.items():
            found = [rank_metrics_of(split, partial(scores_of, split.graph)) for split in splits]
            medians = (statistics.median(float(m[shown] or 0) for m in found) for shown in SHOWN)
            print(f"{ranker:26}" + "".join(f"{value:12.3f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()
