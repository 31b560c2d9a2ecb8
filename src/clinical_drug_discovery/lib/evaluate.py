"""Train on a graph without some of its pairs, and say how well they are found again."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from clinical_drug_discovery.evaluation.drug_ranking import Question, drug_rankers
from clinical_drug_discovery.evaluation.link_prediction import (
    HeldOutFacts,
    held_out_pairs,
    hold_out_facts,
    relation_metrics,
)
from clinical_drug_discovery.evaluation.metrics import Metrics, filtered_ranks, ranking_metrics
from clinical_drug_discovery.evaluation.split import (
    Split,
    leak_count,
    split_areas,
    split_diseases,
    split_pairs,
)
from clinical_drug_discovery.graph.knowledge_graph import DRUG, KnowledgeGraph, node_range_of
from clinical_drug_discovery.lib._run.model_dir import check_targets
from clinical_drug_discovery.lib._run.start import begin_run, read_edges
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.ranking.bilinear_score import NetworkScores
from clinical_drug_discovery.ranking.drug_ranker import rank_fit_bytes
from clinical_drug_discovery.ranking.treatments import INDICATION, pairs_of
from clinical_drug_discovery.system.errors import InputError, check_at_least, check_between
from clinical_drug_discovery.system.files import atomic_path, check_writable
from clinical_drug_discovery.system.machine import GIB, one_thread, peak_memory_bytes
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.compile_kernels import compile_kernels
from clinical_drug_discovery.training.memory_plan import plan_training
from clinical_drug_discovery.training.settings import HgtSettings, SageSettings
from clinical_drug_discovery.training.train import Trained, train_hgt, train_sage

#: By model whose defaults count, its settings and its training.
MODELS: dict[str, tuple[Callable[..., Any], type[SageSettings | HgtSettings], Callable[..., Any]]]
MODELS = {
    "graphsage": (generate_gnn_embeddings, SageSettings, train_sage),
    "hgt": (generate_hgt_embeddings, HgtSettings, train_hgt),
}
#: By split how to make it, and what it takes.
SPLITS: dict[str, tuple[Callable[..., Split], dict[str, float]]] = {
    "pair": (split_pairs, {"share": 0.1}),
    "disease": (split_diseases, {"num_diseases": 60, "min_drugs": 3, "max_drugs": 40}),
    "area": (split_areas, {"num_areas": 20, "min_drugs": 3}),
}
_MOST_FACTS = 500  # held out of a relation: enough to tell a good model, too few to miss
REPORT, RANKS = "report.json", "ranks.parquet"


def evaluate_model(
    edges_csv: str | Path,
    output_dir: str | Path,
    *,
    model: str,
    split: str,
    share: float | None = None,
    num_diseases: int | None = None,
    num_areas: int | None = None,
    min_drugs: int | None = None,
    max_drugs: int | None = None,
    relation_share: float = 0.01,
    embedding_dim: int | None = None,
    hidden_dim: int | None = None,
    num_layers: int | None = None,
    num_heads: int | None = None,
    num_epochs: int | None = None,
    learning_rate: float | None = None,
    edge_batch_size: int | None = None,
    edge_sample_size: int | None = None,
    training: str | None = None,
    subgraph_size: int | None = None,
    contrastive_weight: float | None = None,
    similarity_threshold: float | None = None,
    temperature: float | None = None,
    seed: int = 0,
    device: str | None = None,
    memory_budget: str | int | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Train on a graph without some of its pairs, and rank all drugs for their diseases.

    Beside the network stand the ranker over typed paths, its parts, and rankers that learn
    nothing, on the same training graph and by the same figures. docs/evaluation.md says what they
    mean.

    Args:
        edges_csv: knowledge graph in PrimeKG's columns: .csv, .csv.gz, .csv.zst or .parquet.
        output_dir: directory to write report.json and ranks.parquet to.
        model: graphsage or hgt.
        split: what is held out: pair (a share of the indications), disease (all indications and
            palliations of some diseases) or area (those of diseases and of their relatives).
        share: split pair: of the indications, 0.1 if left out.
        num_diseases: split disease: how many, 60 if left out.
        num_areas: split area: how many, 20 if left out.
        min_drugs: splits disease and area: fewest drugs of a held-out disease (of an area, the one
            in its middle), 3 if left out.
        max_drugs: split disease: most drugs of a held-out disease, 40 if left out.
        relation_share: facts of every other relation that are held out for link prediction, 500 of
            each at most; 0 for none.
        embedding_dim: length of an embedding. This and what follows down to temperature are
            settings of the model, with the meaning and the defaults that `cdd embed` has.
        hidden_dim: width of the hidden layers and of the learned vector of each node.
        num_layers: number of layers.
        num_heads: hgt: attention heads of each layer.
        num_epochs: how often the graph is gone over in training.
        learning_rate: step size of Adam in the first step.
        edge_batch_size: graphsage: facts in the loss of an epoch.
        edge_sample_size: hgt: facts of each edge type in the loss of an epoch.
        training: full or sampled.
        subgraph_size: training sampled: nodes that a step sees.
        contrastive_weight: hgt: weight of the contrastive loss.
        similarity_threshold: hgt: two diseases are alike from this Jaccard index on.
        temperature: hgt: divides the cosines of the contrastive loss.
        seed: of the split, the initial weights, all sampling and the bootstrap.
        device: mps, cuda or cpu; the first of these that is available if left out.
        memory_budget: most memory that training may take, such as 4GiB; 70% of what is free if
            left out. The ranking by typed paths comes after it and takes 2 to 3 GiB on PrimeKG.
        chunk_size: nodes embedded at a time.
        cache: keep the graph once it is read, and take it from there as long as the file is the
            same.
        cache_dir: where to keep it; beside the edges file if left out.

    Returns:
        What report.json holds.

    Raises:
        InputError: a parameter or the file breaks a rule, or scores are NaN or infinite; at most
            the cached graph is written then.
    """
    hold_out, split_parameters = _split(
        split,
        {
            "share": share,
            "num_diseases": num_diseases,
            "num_areas": num_areas,
            "min_drugs": min_drugs,
            "max_drugs": max_drugs,
        },
    )
    settings, train = settings_of(
        model,
        {
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "num_epochs": num_epochs,
            "learning_rate": learning_rate,
            "edge_batch_size": edge_batch_size,
            "edge_sample_size": edge_sample_size,
            "training": training,
            "subgraph_size": subgraph_size,
            "contrastive_weight": contrastive_weight,
            "similarity_threshold": similarity_threshold,
            "temperature": temperature,
        },
    )
    check_between("relation_share", relation_share, 0, 1, low_allowed=True)
    directory = Path(output_dir)
    check_writable("output_dir", directory)
    files = [directory / name for name in (REPORT, RANKS)]
    check_targets({"the edges file": Path(edges_csv)}, files, directory)
    run = begin_run(
        Path(edges_csv), files[0], directory, device, settings.learning_rate, chunk_size, seed
    )

    whole = read_edges(run, None, None, cache, cache_dir)
    with run.timed("split"):
        held = hold_out(whole, seed=seed, validation_share=0)
        _check_learnable(held.graph, split)
        graph, facts = hold_out_facts(held.graph, share=relation_share, most=_MOST_FACTS, seed=seed)
        every_fact = [held_out_pairs(whole, held.held_out), facts]
        num_edges, held = whole.num_edges, replace(held, graph=graph)
        counts = {
            **held.counts,
            "num_held_out_facts": len(facts.src) // 2,
            "num_removed_fact_edges": num_edges
            - held.counts["num_removed_edges"]
            - graph.num_edges,
        }
        num_leaks = _check_leaks(held, facts)
    del whole
    run.progress.milestone(
        f"Held out {len(held.test):,} pairs of {len(held.test.diseases):,} diseases and "
        f"{len(facts.src) // 2:,} facts of other relations; {num_leaks} leaks"
    )

    plan = plan_training(run, graph, settings, memory_budget, chunk_size, rank_fit_bytes(graph))
    compile_kernels(run)
    with one_thread(plan.is_small):
        trained = train(run, graph, settings, plan, seed)
        embeddings, collapse = embed_nodes(run, trained.model, graph, plan.chunk_size)
    network = NetworkScores(embeddings, trained.decoder)
    figures = {
        "final_loss": trained.history[-1]["loss"],
        "collapse": collapse,
        "predicted_memory_gib": plan.predicted_bytes / GIB,
    }
    parameters = {"model": model, **asdict(settings), "split": split, **split_parameters}
    del trained
    with run.timed("relations"):
        relations = relation_metrics(graph, every_fact, network, seed=seed)
    rankers, ranks, seconds = _rank(run, held, network, seed)

    report = {
        "model": model,
        "split": split,
        "device": str(run.device),
        "seed": seed,
        "num_nodes": graph.num_nodes,
        "num_edges": num_edges,
        "num_training_edges": graph.num_edges,
        "split_counts": counts,
        "num_leaks": num_leaks,
        "num_candidates": node_range_of(graph, DRUG)[1] - node_range_of(graph, DRUG)[0],
        "rankers": rankers,
        "relations": relations,
        **figures,
        "parameters": {**parameters, "relation_share": relation_share},
        "seconds": {
            **{part.removeprefix("seconds_"): value for part, value in run.seconds.items()},
            **seconds,
        },
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "warnings": run.warnings,
        "output_dir": str(directory),
    }
    _write(directory, report, ranks)
    run.progress.milestone(f"Wrote {files[0]} and {files[1]}")
    return report


def _split(
    split: str, chosen: Mapping[str, float | None]
) -> tuple[Callable[..., Split], dict[str, float]]:
    """How to hold out, and with what parameters."""
    if split not in SPLITS:
        raise InputError(f"split (got {split!r}) must be one of {', '.join(SPLITS)}")
    make, defaults = SPLITS[split]
    parameters = _fill(f"split {split!r}", defaults, chosen)
    for name, value in parameters.items():
        if name == "share":
            check_between(name, value, 0, 1)
        else:
            check_at_least(name, value, 1)
    return partial(make, **parameters), parameters


def settings_of(
    model: str, chosen: Mapping[str, Any]
) -> tuple[SageSettings | HgtSettings, Callable[..., Trained]]:
    """A model's settings, checked, and its training.

    Args:
        model: graphsage or hgt.
        chosen: settings by name; what is None or left out is as `cdd embed` has it.

    Raises:
        InputError: a setting breaks its rule, or the model has no such setting.
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
    """The defaults, but for what is chosen; refuses what there is no use for."""
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            raise InputError(
                f"{name} (got {value}) is of no use with {what}, which takes {', '.join(defaults)}"
            )
    return {**defaults, **given}


def _check_learnable(graph: KnowledgeGraph, split: str) -> None:
    """Refuse, before the training, a graph that the rankers could learn nothing from."""
    if INDICATION not in graph.relations:
        raise InputError(
            f"the graph has no relation {INDICATION!r}, by which the network is asked for drugs, "
            f"only {', '.join(graph.relations)}"
        )
    if not len(pairs_of(graph)):
        raise InputError(
            f"split (got {split!r}) holds out every pair of a drug and a disease that it helps; "
            "some must be left to learn from"
        )


def _check_leaks(held: Split, facts: HeldOutFacts) -> int:
    """Edges of the training graph between ends that should be unknown; any is a fault of ours."""
    pairs = (held.held_out.drug, held.held_out.disease)
    num_leaks = leak_count(held.graph, *pairs) + leak_count(held.graph, facts.src, facts.dst)
    if num_leaks:
        raise RuntimeError(f"{num_leaks} edges of the training graph join held-out ends")
    return num_leaks


def _rank(
    run: Run, held: Split, network: NetworkScores, seed: int
) -> tuple[dict[str, Metrics], pl.DataFrame, dict[str, float]]:
    """The figures of every ranker, the rank of every pair, and what each took of time."""
    asked = Question.of(held, "test")
    index = held.graph.nodes["node_index"].to_numpy()
    ends = {"disease_index": index[held.test.disease], "drug_index": index[held.test.drug]}
    figures: dict[str, Metrics] = {}
    tables, seconds = [], {}
    run.progress.milestone("Ranking all drugs by each ranker")
    start = time.perf_counter()
    for name, scores_of in drug_rankers(held.graph, network, seed=seed):
        run.progress.detail(f"{name}...")
        scores = scores_of(asked.diseases)
        question = (scores, asked.known, asked.row, asked.candidate)
        figures[name] = ranking_metrics(*question, seed=seed)
        columns = {"ranker": [name] * len(held.test), **ends, "rank": filtered_ranks(*question)}
        tables.append(pl.DataFrame(columns))
        seconds[name] = time.perf_counter() - start  # with what was fitted for it
        start = time.perf_counter()
    return figures, pl.concat(tables), {f"rank, {name}": took for name, took in seconds.items()}


def _write(directory: Path, report: Mapping[str, Any], ranks: pl.DataFrame) -> None:
    """Both files, or none."""
    with (
        atomic_path(directory / RANKS) as ranks_path,
        atomic_path(directory / REPORT) as report_path,
    ):
        ranks.write_parquet(ranks_path)
        text = json.dumps(report, indent=2, allow_nan=False)
        report_path.write_text(text + "\n", encoding="utf-8")
