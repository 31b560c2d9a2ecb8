"""Train a model without some drug-disease pairs, and measure how well these pairs are ranked."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ..evaluation.link_prediction import (
    HeldOutFacts,
    held_out_pairs,
    hold_out_facts,
    relation_metrics,
)
from ..evaluation.metrics import Metrics, filtered_ranks, ranking_metrics
from ..evaluation.rankers import drug_rankers
from ..evaluation.split import (
    Split,
    leak_count,
    ranking_task,
    split_areas,
    split_diseases,
    split_pairs,
)
from ..graph.knowledge_graph import KnowledgeGraph, node_range_of
from ..graph.source import EdgesPath, ReadSettings, Source
from ..graph.vocabulary import VocabularyChoice
from ..models.inference import embed_nodes
from ..ranking.bilinear_score import GnnScores
from ..ranking.drug_ranker import rank_fit_bytes
from ..ranking.treatments import lacks_treatments, pairs_of
from ..system.errors import InputError, check_at_least, check_between
from ..system.files import atomic_path, check_writable
from ..system.machine import GIB, one_thread, peak_memory_bytes
from ..system.progress import Run
from ..training.compile_kernels import compile_kernels
from ..training.memory_plan import plan_training
from ..training.settings import HgtSettings, SageSettings
from ..training.train import Trained, train_hgt, train_sage
from ._run.model_dir import check_targets
from ._run.start import begin_run, input_names, read_edges
from .gnn_embeddings import generate_gnn_embeddings
from .gnn_hgt import generate_hgt_embeddings

#: Model: the function that defines the defaults, the class of the settings, the training function.
MODELS: dict[str, tuple[Callable[..., Any], type[SageSettings | HgtSettings], Callable[..., Any]]]
MODELS = {
    "graphsage": (generate_gnn_embeddings, SageSettings, train_sage),
    "hgt": (generate_hgt_embeddings, HgtSettings, train_hgt),
}
#: Split: the function that makes it, and the defaults of its settings.
SPLITS: dict[str, tuple[Callable[..., Split], dict[str, float]]] = {
    "pair": (split_pairs, {"share": 0.1}),
    "disease": (split_diseases, {"num_diseases": 60, "min_drugs": 3, "max_drugs": 40}),
    "area": (split_areas, {"num_areas": 20, "min_drugs": 3}),
}
_MAX_FACTS = 500  # held out per relation: enough to compare models, too few to weaken training
REPORT, RANKS = "report.json", "ranks.parquet"


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the held-out pairs and facts. Settings of other splits must be None.

    Attributes:
        split: pairs to hold out: pair (a fraction of the indications), disease (all indications and
            palliations of some diseases) or area (all indications and palliations of some diseases
            and of their related diseases).
        share: for split pair: fraction of the indications to hold out (default 0.1).
        num_diseases: for split disease: number of diseases to hold out (default 60).
        num_areas: for split area: number of areas to hold out (default 20).
        min_drugs: for splits disease and area: minimum number of drugs that treat a held-out
            disease, or the disease at the center of an area (default 3).
        max_drugs: for split disease: maximum number of drugs per held-out disease (default 40).
        relation_share: fraction of the facts of every other relation to hold out for link
            prediction, at most 500 facts per relation; 0 holds out no such facts.
    """

    split: str
    share: float | None = None
    num_diseases: int | None = None
    num_areas: int | None = None
    min_drugs: int | None = None
    max_drugs: int | None = None
    relation_share: float = 0.01


def evaluate_model(
    edges_csv: EdgesPath,
    output_dir: str | Path,
    *,
    nodes: str | Path | None = None,
    model: str,
    settings: EvaluationSettings,
    model_settings: Mapping[str, Any] | None = None,
    vocabulary: VocabularyChoice | None = None,
    reading: ReadSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    memory_budget: str | int | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Hold out drug-disease pairs, train a model without them, and rank all drugs for the diseases.

    The report compares the model, the drug ranker, the parts of the drug ranker and untrained
    baselines, all on the same training graph. The page "Evaluation" explains the metrics.

    Args:
        edges_csv: knowledge graph, one file or several; see `cdd embed`.
        output_dir: directory for report.json and ranks.parquet.
        nodes: node table of formats that have one.
        model: graphsage or hgt.
        settings: the pairs and facts to hold out.
        model_settings: settings of the model by name, such as `{"num_epochs": 50}`. Settings that
            are missing or None have the defaults of `cdd embed`.
        vocabulary: the graph's names for drugs, diseases and treatments (default: recognized).
        reading: filters of the graph, and what to do about faults in its files.
        seed: seed of the split, the initial weights, all sampling and the bootstrap.
        device: cuda, mps or cpu; by default the first of these that is available.
        memory_budget: maximum memory of training, such as 4GiB (default: 70% of the free memory).
            The drug ranker is fitted after training and takes 2 to 3 GiB on PrimeKG.
        chunk_size: number of nodes embedded at a time (default: as many as the budget allows).
        cache: keep a copy of the graph; later runs load it faster if the edges file is unchanged.
        cache_dir: directory of the cached graph (default: beside the edges file).

    Returns:
        The contents of report.json.

    Raises:
        InputError: a parameter or the file is invalid, or a score is NaN or infinite. Only the
            cached graph may have been written then.

    Example:
        >>> from clinical_drug_discovery.lib.evaluate import EvaluationSettings, evaluate_model
        >>> pairs = EvaluationSettings(split="pair", share=0.2)
        >>> report = evaluate_model("kg.csv", "evaluation", model="hgt", settings=pairs)
        >>> report["rankers"]["ranker"]["mrr"]
    """
    make_split, split_settings = _split_of(settings)
    trained_with, train = settings_of(model, model_settings or {})
    words, reading = vocabulary or VocabularyChoice(), reading or ReadSettings()
    words.check()
    reading.check()
    source = Source.of(edges_csv, nodes)
    run = _start(source, output_dir, device, trained_with.learning_rate, chunk_size, seed)
    graph = read_edges(run, source, reading, words, cache, cache_dir)
    num_edges = graph.num_edges
    split, facts, num_leaks = _hold_out(run, graph, make_split, settings, seed)
    graph = split.graph  # frees the memory of the whole graph
    plan = plan_training(run, graph, trained_with, memory_budget, chunk_size, rank_fit_bytes(graph))
    compile_kernels(run, plan.backend)
    with one_thread(plan.is_small):
        trained = train(run, graph, trained_with, plan, seed)
        embeddings, collapse = embed_nodes(run, trained.model, graph, plan.chunk_size, plan.backend)
        gnn, final_loss = GnnScores(embeddings, trained.decoder), trained.history[-1]["loss"]
        del trained
        with run.timed("relations"):
            relations = relation_metrics(graph, facts, gnn, seed=seed)
        rankers, ranks, seconds = _rank(run, split, gnn, seed)
    report = {
        "model": model,
        "split": settings.split,
        "seed": seed,
        **_counts(split, num_edges),
        "num_leaks": num_leaks,
        "rankers": rankers,
        "relations": relations,
        "final_loss": final_loss,
        "collapse": collapse,
        "parameters": {"model": model, **asdict(trained_with), **split_settings},
        "predicted_memory_gib": plan.predicted_bytes / GIB,
        **_costs(run, seconds),
    }
    _write(run, report, ranks)
    return report


def _counts(split: Split, num_edges: int) -> dict[str, Any]:
    """Return the sizes of the whole graph and of the training graph, for the report."""
    first_drug, stop_drug = node_range_of(split.graph, split.graph.vocabulary.drug_type)
    return {
        "num_nodes": split.graph.num_nodes,
        "num_edges": num_edges,
        "num_training_edges": split.graph.num_edges,
        "split_counts": split.counts,
        "num_candidates": stop_drug - first_drug,
    }


def _costs(run: Run, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the device, times, memory and warnings of the run, for the report."""
    parts = {part.removeprefix("seconds_"): value for part, value in run.seconds.items()}
    return {
        "device": str(run.device),
        "seconds": {**parts, **seconds},
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "warnings": run.warnings,
        "output_dir": str(run.model_dir),
    }


def _start(
    source: Source,
    output_dir: str | Path,
    device: str | None,
    learning_rate: float,
    chunk_size: int | None,
    seed: int,
) -> Run:
    """Check parameters and files before the graph is read, and return the run; write nothing."""
    directory = Path(output_dir)
    check_writable("output_dir", directory)
    files = [directory / name for name in (REPORT, RANKS)]
    check_targets(input_names(source), files, directory)
    return begin_run(source, files[0], directory, device, learning_rate, chunk_size, seed)


def _split_of(settings: EvaluationSettings) -> tuple[Callable[..., Split], dict[str, Any]]:
    """Check the settings; return the function that makes the split, and the report's settings."""
    chosen = asdict(settings)
    split, relation_share = chosen.pop("split"), chosen.pop("relation_share")
    if split not in SPLITS:
        raise InputError(f"split (got {split!r}) must be one of {', '.join(SPLITS)}")
    make_split, defaults = SPLITS[split]
    check_between("relation_share", relation_share, 0, 1, low_allowed=True)
    filled = _fill(f"split {split!r}", defaults, chosen)
    for name, value in filled.items():
        if name == "share":
            check_between(name, value, 0, 1)
        else:
            check_at_least(name, value, 1)
    report = {"split": split, **filled, "relation_share": relation_share}
    return partial(make_split, **filled), report


def settings_of(
    model: str, chosen: Mapping[str, Any]
) -> tuple[SageSettings | HgtSettings, Callable[..., Trained]]:
    """Check the settings of a model, and return them with the function that trains the model.

    Settings that are missing or None have the defaults of `cdd embed`.

    Raises:
        InputError: a setting is invalid, or the model does not have this setting.
    """
    if model not in MODELS:
        raise InputError(f"model (got {model!r}) must be one of {', '.join(MODELS)}")
    generate, kind, train = MODELS[model]
    signature = inspect.signature(generate).parameters
    defaults = {field.name: signature[field.name].default for field in fields(kind)}
    settings = kind(**_fill(f"model {model!r}", defaults, chosen))
    settings.check()
    return settings, train


def _fill(what: str, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen settings, with defaults for settings that are None or missing."""
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            raise InputError(
                f"{name} (got {value}) does not apply to {what}, whose settings are "
                f"{', '.join(defaults)}"
            )
    return {**defaults, **given}


def _hold_out(
    run: Run,
    whole: KnowledgeGraph,
    make_split: Callable[..., Split],
    settings: EvaluationSettings,
    seed: int,
) -> tuple[Split, list[HeldOutFacts], int]:
    """Remove drug-disease pairs and facts of the other relations from a graph.

    Returns:
        The split, whose graph also lacks the held-out facts; the held-out edges, first of the
        pairs, then of the other relations; and the number of leaks (0).
    """
    with run.timed("split"):
        split = make_split(whole, seed=seed, validation_share=0)
        _check_learnable(split.graph, settings.split)
        graph, facts = hold_out_facts(
            split.graph, share=settings.relation_share, max_facts=_MAX_FACTS, seed=seed
        )
        counts = {
            **split.counts,
            "num_held_out_facts": len(facts.src) // 2,
            "num_removed_fact_edges": split.graph.num_edges - graph.num_edges,
        }
        split = replace(split, graph=graph, counts=counts)
        num_leaks = leak_count(graph, split.held_out.drug, split.held_out.disease)
        num_leaks += leak_count(graph, facts.src, facts.dst)
        if num_leaks:  # possible only through a bug in this package
            raise RuntimeError(f"{num_leaks} edges of the training graph join held-out nodes")
        every_fact = [held_out_pairs(whole, split.held_out), facts]
    run.progress.milestone(
        f"Held out {len(split.test):,} pairs of {len(split.test.diseases):,} diseases and "
        f"{len(facts.src) // 2:,} facts of other relations; {num_leaks} leaks"
    )
    return split, every_fact, num_leaks


def _check_learnable(graph: KnowledgeGraph, split: str) -> None:
    """Check that the training graph still has drugs that treat a disease."""
    if graph.vocabulary.indication not in graph.relations:
        raise InputError(lacks_treatments(graph))
    if not len(pairs_of(graph)):
        raise InputError(
            f"split (got {split!r}) holds out every pair of a drug and a disease that the drug "
            "treats; training needs at least one such pair"
        )


def _rank(
    run: Run, split: Split, gnn: GnnScores, seed: int
) -> tuple[dict[str, Metrics], pl.DataFrame, dict[str, float]]:
    """Return the metrics of each ranker, the rank of each test pair, and each ranker's seconds."""
    task = ranking_task(split, split.test)
    index = split.graph.nodes["node_index"].to_numpy()
    pairs = {"disease_index": index[split.test.disease], "drug_index": index[split.test.drug]}
    metrics: dict[str, Metrics] = {}
    tables, seconds = [], {}
    run.progress.milestone("Ranking all drugs with each ranker")
    start = time.perf_counter()
    for name, ranker in drug_rankers(split.graph, gnn, seed=seed):
        run.progress.detail(f"{name}...")
        ranking = (ranker(task.diseases), task.known, task.row, task.candidate)
        metrics[name] = ranking_metrics(*ranking, seed=seed)
        columns = {"ranker": [name] * len(split.test), **pairs, "rank": filtered_ranks(*ranking)}
        tables.append(pl.DataFrame(columns))
        seconds[f"rank, {name}"] = time.perf_counter() - start  # includes fitting the ranker
        start = time.perf_counter()
    return metrics, pl.concat(tables), seconds


def _write(run: Run, report: Mapping[str, Any], ranks: pl.DataFrame) -> None:
    """Write both files, or neither."""
    with (
        atomic_path(run.model_dir / RANKS) as ranks_path,
        atomic_path(run.model_dir / REPORT) as report_path,
    ):
        ranks.write_parquet(ranks_path)
        text = json.dumps(report, indent=2, allow_nan=False)
        report_path.write_text(text + "\n", encoding="utf-8")
    run.progress.milestone(f"Wrote {REPORT} and {RANKS} to {run.model_dir}")
