"""Hold out pairs, train a model without them, and rank them: in one draw, or fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import polars as pl

from ...evaluation.folds import Fold, pooled_rankers, pooled_relations
from ...evaluation.gnn_scores import GnnScores
from ...evaluation.held_out import HeldOut, hold_out
from ...evaluation.link_prediction import relation_metrics
from ...evaluation.measures.reliability import pooled_reliability
from ...evaluation.rankers import drug_rankers, needs_fit
from ...evaluation.split import Split, ranking_task
from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...models.inference import embed_nodes
from ...models.kinds.interface import Settings
from ...ops.buffers import used_again
from ...ranking.fit_memory import rank_fit_bytes
from ...system.errors import counted
from ...system.machine import GIB, one_thread
from ...system.progress import Run
from ...training.compile_kernels import compile_kernels
from ...training.memory_budget import plan_training
from ...training.train import train
from .evaluation import rank_pairs
from .fold_files import FoldFiles, remove_evaluation


@dataclass(frozen=True)
class HeldOutRanking:
    """The pairs to hold out, the model to train without them, and the rankers to compare."""

    make_split: Callable[..., Split]  #: one of the functions of `split`, with its settings
    on: str  #: part to rank: test or validation
    validation_share: float
    relation_share: float
    settings: Settings
    names: Sequence[str]
    memory_budget: str | int | None
    chunk_size: int | None
    seed: int


def rank_folds(
    run: Run,
    graph: KnowledgeGraph,
    asked: HeldOutRanking,
    folds: int,
    files: FoldFiles,
    overwrite: bool,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Train and rank each fold that is not finished, and pool the ranks of all folds.

    Args:
        run: provides the device and the log; receives the warnings of all folds.
        graph: the whole graph, on the CPU.
        asked: what each fold holds out, trains and compares.
        folds: number of folds.
        files: the files of the folds.
        overwrite: train and rank all folds, and remove the files of an earlier evaluation when the
            first fold is ready.

    Returns:
        The entries of the report about all folds; and the ranks, with the column `fold`.
    """
    numbers, finished = range(1, folds + 1), [] if overwrite else files.finished()
    if finished:
        run.progress.milestone(f"Continuing: folds {', '.join(map(str, finished))} are finished")
    for number in numbers:
        if number not in finished:
            run.progress.milestone(f"Fold {number} of {folds}")
            of_fold = replace(run, seconds={}, warnings=[])
            make_split = partial(asked.make_split, fold=Fold(number, folds))
            held_out = hold_out_pairs(of_fold, graph, replace(asked, make_split=make_split))
            found, ranks = train_and_rank(of_fold, held_out, asked)
            if overwrite and number == 1:
                remove_evaluation(files.directory)
            files.write(number, {**found, "warnings": of_fold.warnings}, ranks)
            del held_out
    reports, ranks = files.read(numbers)
    for text in dict.fromkeys(text for report in reports for text in report["warnings"]):
        run.warnings.append(text)
    counts = {
        name: sum(report["split_counts"][name] for report in reports)
        for name in reports[0]["split_counts"]
    }
    num_diseases = ranks["disease_index"].n_unique()  # a disease may be in several folds
    counts |= {f"num_{what}_diseases": num_diseases for what in ("held_out", "test")}
    same = ("num_nodes", "num_edges", "num_candidates", "device")
    found = {
        "folds": folds,
        **{name: reports[0][name] for name in same},
        "split_counts": counts,
        "num_leaks": sum(report["num_leaks"] for report in reports),
        "rankers": pooled_rankers(reports, ranks, seed=asked.seed),
        "reliability": pooled_reliability([report["reliability"] or [] for report in reports]),
        "relations": pooled_relations(reports),
        "seconds": {
            "read": run.seconds["seconds_read"],
            **{
                name: sum(report["seconds"].get(name, 0) for report in reports)
                for name in reports[0]["seconds"]
            },
        },
    }
    return found, ranks


def train_and_rank(
    run: Run, held_out: HeldOut, asked: HeldOutRanking
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Train the model on the training graph, and rank the held-out pairs with each ranker.

    Returns:
        The entries of the report about sizes, metrics, times and memory; and the ranks.
    """
    graph, names, seed = held_out.split.graph, asked.names, asked.seed
    rank_fit = rank_fit_bytes(graph, asked.settings.embedding_dim) if needs_fit(names) else 0
    plan = plan_training(
        run, graph, asked.settings, asked.memory_budget, asked.chunk_size, rank_fit
    )
    compile_kernels(run, plan.backend, plan.settings.model)
    with one_thread(plan.is_small):
        with used_again():
            trained = train(run, graph, asked.settings, plan, seed)
            embeddings, collapse = embed_nodes(
                run, trained.model, trained.graph, plan.chunk_size, plan.backend
            )
        gnn, final_loss = GnnScores(embeddings, trained.decoder), trained.history[-1]["loss"]
        del trained
        with run.timed("relations"):
            relations = relation_metrics(graph, held_out.facts, held_out.removed, gnn, seed=seed)
        task = ranking_task(held_out.split, held_out.pairs)
        rankers = drug_rankers(graph, gnn, seed=seed, names=names)
        ranked = rank_pairs(graph, task, held_out.pairs, rankers, seed=seed)
    first_drug, stop_drug = node_range_of(graph, graph.vocabulary.drug_type)
    parts = {part.removeprefix("seconds_"): value for part, value in run.seconds.items()}
    found = {
        "num_nodes": graph.num_nodes,
        "num_edges": held_out.num_edges,
        "num_training_edges": graph.num_edges,
        "split_counts": held_out.split.counts,
        "num_leaks": held_out.num_leaks,
        "num_candidates": stop_drug - first_drug,
        "rankers": ranked.metrics,
        "reliability": ranked.reliability,
        "relations": relations,
        "final_loss": final_loss,
        "collapse": collapse,
        "predicted_memory_gib": plan.predicted_bytes / GIB,
        "device": str(run.device),
        "seconds": {**parts, **ranked.seconds},
    }
    return found, ranked.ranks


def hold_out_pairs(run: Run, graph: KnowledgeGraph, asked: HeldOutRanking) -> HeldOut:
    """Hold out pairs and facts, and log the numbers."""
    with run.timed("split"):
        held_out = hold_out(
            graph, asked.make_split, part=asked.on, validation_share=asked.validation_share,
            relation_share=asked.relation_share, seed=asked.seed,
        )  # fmt: skip
    counts, pairs = held_out.split.counts, held_out.pairs
    run.progress.milestone(
        f"Held out {counted(counts['num_held_out_pairs'], 'pair')} and "
        f"{counted(counts['num_held_out_facts'], 'fact')} of other relations; {asked.on} has "
        f"{counted(len(pairs), 'pair')} of {counted(len(pairs.diseases), 'disease')}; "
        f"{counted(held_out.num_leaks, 'leak')}"
    )
    return held_out
