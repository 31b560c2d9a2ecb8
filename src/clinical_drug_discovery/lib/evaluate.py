"""Train a model without some drug-disease pairs, and measure how well these pairs are ranked."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ..evaluation.contraindications import contraindicated_drugs, contraindication_metrics
from ..evaluation.held_out import TEST, VALIDATION, HeldOut, hold_out
from ..evaluation.link_prediction import relation_metrics
from ..evaluation.metrics import Metrics, filtered_ranks, ranking_metrics
from ..evaluation.rankers import check_rankers, drug_rankers, needs_fit
from ..evaluation.split import (
    NUM_AREAS,
    NUM_DISEASES,
    Split,
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
from ..system.arguments import plain_arguments
from ..system.errors import InputError, check_at_least, check_between
from ..system.files import atomic_path, check_new, check_writable
from ..system.log import part
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
    "disease": (split_diseases, {"num_diseases": NUM_DISEASES, "min_drugs": 3, "max_drugs": 40}),
    "area": (split_areas, {"num_areas": NUM_AREAS, "min_drugs": 3}),
}
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
        validation_share: fraction of the held-out pairs (of the diseases or areas for the other
            splits) and facts that is only for choosing settings, at least 0 and below 1.
        on: the held-out pairs and facts to rank: test, or validation, which needs
            validation_share. Choose settings on validation, and rank test once at the end.
    """

    split: str
    share: float | None = None
    num_diseases: int | None = None
    num_areas: int | None = None
    min_drugs: int | None = None
    max_drugs: int | None = None
    relation_share: float = 0.01
    validation_share: float = 0.0
    on: str = "test"


@plain_arguments
@part("Evaluating the model")
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
    rankers: Sequence[str] | None = None,
    seed: int = 0,
    device: str | None = None,
    memory_budget: str | int | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    overwrite: bool = False,
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
        rankers: names of the rankers to compare, such as gnn, ranker or popularity (default: all).
        seed: seed of the split, the initial weights, all sampling and the bootstrap.
        device: cuda, mps or cpu (default: cuda if available, else mps if `cdd doctor --try mps`
            has passed on this machine, else cpu).
        memory_budget: maximum memory of training, such as 4GiB (default: 70% of the free memory).
            The drug ranker is fitted after training and takes 2 to 3 GiB on PrimeKG.
        chunk_size: number of nodes embedded at a time (default: as many as the budget allows).
        cache: keep a copy of the graph; later runs load it faster if the edges file is unchanged.
        cache_dir: directory of the cached graph (default: beside the edges file).
        overwrite: replace the files of an earlier evaluation in output_dir.

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
    names = check_rankers(rankers)
    source = Source.of(edges_csv, nodes)
    run = _start(source, output_dir, device, trained_with, chunk_size, seed, overwrite)
    graph = read_edges(run, source, reading, words, cache, cache_dir)
    held_out = _hold_out(run, graph, make_split, settings, seed)
    del graph  # frees the memory of the whole graph
    found, ranks = _train_and_rank(
        run, held_out, trained_with, train, names, memory_budget, chunk_size, seed
    )
    report = {
        "model": model,
        "split": settings.split,
        "on": settings.on,
        "seed": seed,
        **found,
        "parameters": {"model": model, **asdict(trained_with), **split_settings},
    }
    return _write(run, report, ranks)


def _train_and_rank(
    run: Run,
    held_out: HeldOut,
    settings: SageSettings | HgtSettings,
    train: Callable[..., Trained],
    names: Sequence[str],
    memory_budget: str | int | None,
    chunk_size: int | None,
    seed: int,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Train the model on the training graph, and rank the held-out pairs with each ranker.

    Returns:
        The entries of the report about sizes, metrics, times and memory; and the ranks.
    """
    graph = held_out.split.graph
    rank_fit = rank_fit_bytes(graph) if needs_fit(names) else 0
    plan = plan_training(run, graph, settings, memory_budget, chunk_size, rank_fit)
    compile_kernels(run, plan.backend)
    with one_thread(plan.is_small):
        trained = train(run, graph, settings, plan, seed)
        embeddings, collapse = embed_nodes(run, trained.model, graph, plan.chunk_size, plan.backend)
        gnn, final_loss = GnnScores(embeddings, trained.decoder), trained.history[-1]["loss"]
        del trained
        with run.timed("relations"):
            relations = relation_metrics(graph, held_out.facts, gnn, seed=seed)
        rankers, ranks, seconds = _rank(run, held_out, gnn, names, seed)
    first_drug, stop_drug = node_range_of(graph, graph.vocabulary.drug_type)
    parts = {part.removeprefix("seconds_"): value for part, value in run.seconds.items()}
    found = {
        "num_nodes": graph.num_nodes,
        "num_edges": held_out.num_edges,
        "num_training_edges": graph.num_edges,
        "split_counts": held_out.split.counts,
        "num_leaks": held_out.num_leaks,
        "num_candidates": stop_drug - first_drug,
        "rankers": rankers,
        "relations": relations,
        "final_loss": final_loss,
        "collapse": collapse,
        "predicted_memory_gib": plan.predicted_bytes / GIB,
        "device": str(run.device),
        "seconds": {**parts, **seconds},
    }
    return found, ranks


def _hold_out(
    run: Run,
    graph: KnowledgeGraph,
    make_split: Callable[..., Split],
    settings: EvaluationSettings,
    seed: int,
) -> HeldOut:
    """Hold out pairs and facts, and log the numbers."""
    with run.timed("split"):
        held_out = hold_out(
            graph, make_split, part=settings.on, validation_share=settings.validation_share,
            relation_share=settings.relation_share, seed=seed,
        )  # fmt: skip
    counts, pairs = held_out.split.counts, held_out.pairs
    run.progress.milestone(
        f"Held out {counts['num_held_out_pairs']:,} pairs and {counts['num_held_out_facts']:,} "
        f"facts of other relations; {settings.on} has {len(pairs):,} pairs of "
        f"{len(pairs.diseases):,} diseases; {held_out.num_leaks} leaks"
    )
    return held_out


def _start(
    source: Source,
    output_dir: str | Path,
    device: str | None,
    settings: SageSettings | HgtSettings,
    chunk_size: int | None,
    seed: int,
    overwrite: bool,
) -> Run:
    """Check parameters and files before the graph is read, and return the run; write nothing."""
    directory = Path(output_dir)
    check_writable("output_dir", directory)
    files = [directory / name for name in (REPORT, RANKS)]
    check_targets(input_names(source), files, directory)
    check_new(files, overwrite)
    return begin_run(source, files[0], directory, device, settings.learning_rate, chunk_size, seed)


def _split_of(settings: EvaluationSettings) -> tuple[Callable[..., Split], dict[str, Any]]:
    """Check the settings; return the function that makes the split, and the report's settings."""
    chosen = asdict(settings)
    split, relation_share = chosen.pop("split"), chosen.pop("relation_share")
    validation_share, on = chosen.pop("validation_share"), chosen.pop("on")
    if split not in SPLITS:
        raise InputError(f"split (got {split!r}) must be one of {', '.join(SPLITS)}")
    make_split, defaults = SPLITS[split]
    check_between("relation_share", relation_share, 0, 1, low_allowed=True)
    check_between("validation_share", validation_share, 0, 1, low_allowed=True)
    if on not in (TEST, VALIDATION):
        raise InputError(f"on (got {on!r}) must be {TEST!r} or {VALIDATION!r}")
    if on == VALIDATION and not validation_share:
        raise InputError(f"on (got {on!r}) needs validation_share (got {validation_share}) above 0")
    filled = _fill(f"split {split!r}", defaults, chosen)
    for name, value in filled.items():
        if name == "share":
            check_between(name, value, 0, 1)
        else:
            check_at_least(name, value, 1)
    shares = {"relation_share": relation_share, "validation_share": validation_share}
    report = {"split": split, **filled, **shares}
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


def _rank(
    run: Run, held_out: HeldOut, gnn: GnnScores, names: Sequence[str], seed: int
) -> tuple[dict[str, Metrics], pl.DataFrame, dict[str, float]]:
    """Return the metrics of each ranker, the rank of each test pair, and each ranker's seconds."""
    graph, asked = held_out.split.graph, held_out.pairs
    task = ranking_task(held_out.split, asked)
    harmful = contraindicated_drugs(graph, task)
    index = graph.nodes["node_index"].to_numpy()
    pairs = {"disease_index": index[asked.disease], "drug_index": index[asked.drug]}
    metrics: dict[str, Metrics] = {}
    tables, seconds = [], {}
    run.progress.milestone("Ranking all drugs with each ranker")
    start = time.perf_counter()
    for name, ranker in drug_rankers(graph, gnn, seed=seed, names=names):
        run.progress.detail(f"{name}...")
        scores = ranker(task.diseases)
        ranking = (scores, task.known, task.row, task.candidate)
        metrics[name] = ranking_metrics(*ranking, seed=seed)
        metrics[name] |= contraindication_metrics(scores, task, *harmful)
        columns = {"ranker": [name] * len(asked), **pairs, "rank": filtered_ranks(*ranking)}
        tables.append(pl.DataFrame(columns))
        seconds[f"rank, {name}"] = time.perf_counter() - start  # includes fitting the ranker
        start = time.perf_counter()
    return metrics, pl.concat(tables), seconds


def _write(run: Run, entries: Mapping[str, Any], ranks: pl.DataFrame) -> dict[str, Any]:
    """Write both files, or neither; return the whole report."""
    report = {
        **entries,
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "warnings": run.warnings,
        "output_dir": str(run.model_dir),
    }
    with (
        atomic_path(run.model_dir / RANKS) as ranks_path,
        atomic_path(run.model_dir / REPORT) as report_path,
    ):
        ranks.write_parquet(ranks_path)
        saved = {**report, "output_dir": run.model_dir.resolve().name}  # no path of this machine
        text = json.dumps(saved, indent=2, allow_nan=False)
        report_path.write_text(text + "\n", encoding="utf-8")
    run.progress.milestone(f"Wrote {REPORT} and {RANKS} to {run.model_dir}")
    return report
