"""Train a model without some drug-disease pairs, and measure how well these pairs are ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ..evaluation.folds import graph_fingerprint
from ..evaluation.gold import (
    gold_counts,
    gold_task,
    match_gold,
    outcome_table,
    parse_date,
    read_gold,
)
from ..evaluation.held_out import TEST, VALIDATION
from ..evaluation.rankers import check_rankers
from ..evaluation.split import (
    NUM_AREAS,
    NUM_DISEASES,
    Split,
    split_areas,
    split_diseases,
    split_pairs,
)
from ..graph.knowledge_graph import KnowledgeGraph
from ..graph.source import EdgesPath, ReadSettings, Source
from ..graph.synonyms import read_synonyms
from ..graph.vocabulary import VocabularyChoice
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.limits.parameters import check_fields
from ..system.log import part
from ..system.machine import GIB, peak_memory_bytes
from ..system.processes import alone, use_threads
from ..system.progress import Run
from ._run.evaluation import (
    GOLD_PAIRS,
    RANKS,
    REPORT,
    check_outputs,
    parts_and_differences,
    rank_pairs,
    start_evaluation,
    write_report,
    writing_alone,
)
from ._run.fold_files import FoldFiles, fold_paths, remove_folds
from ._run.held_out_ranking import HeldOutRanking, hold_out_pairs, rank_folds, train_and_rank
from ._run.results import made_now
from ._run.saved_model import SavedModel
from ._run.start import read_edges
from .embed_model import filled, settings_of

#: Split: the function that makes it, and the defaults of its settings.
SPLITS: dict[str, tuple[Callable[..., Split], dict[str, float]]] = {
    "pair": (split_pairs, {"share": 0.1}),
    "disease": (split_diseases, {"num_diseases": NUM_DISEASES, "min_drugs": 3, "max_drugs": 40}),
    "area": (split_areas, {"num_areas": NUM_AREAS, "min_drugs": 3}),
}
#: Settings of the size of one draw, which folds replace.
_OF_ONE_DRAW = ("share", "num_diseases", "num_areas", "validation_share")


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
        folds: hold out every eligible pair, disease or area once, in this many folds with a model
            each, instead of one draw. Each fold is written when it is done, and the same command
            continues where an earlier one stopped.

    Example:
        >>> cdd.EvaluationSettings("disease", num_diseases=20).num_diseases
        20
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
    folds: int | None = None


@plain_arguments
@alone()
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

    The report compares the model, the drug ranker, its parts and untrained baselines, all on the
    same training graph. The page "Evaluation" explains the metrics.

    Args:
        edges_csv: knowledge graph, one file or several; see `cdd embed`.
        output_dir: directory for report.json, ranks.parquet and the files of finished folds.
        nodes: node table of formats that have one.
        model: graphsage or hgt.
        settings: the pairs and facts to hold out.
        model_settings: by name; those that are missing or None have the defaults of `cdd embed`.
        vocabulary: the graph's names for drugs, diseases and treatments (default: recognized).
        reading: filters of the graph, and what to do about faults in its files.
        rankers: names of the rankers to compare, such as gnn, ranker or popularity (default: all).
        seed: seed of the split, the initial weights, all sampling and the bootstrap.
        device: cuda, mps or cpu (default: cuda if available, else mps if `cdd doctor --try mps`
            has passed on this machine, else cpu).
        memory_budget: largest peak memory of training and of the fit of the ranker, such as 4GiB
            (default: 70% of the free memory, or of what the limits on the process leave).
        chunk_size: number of nodes embedded at a time (default: as many as the budget allows).
        cache: keep a copy of the graph; later runs load it faster if the edges file is unchanged.
        cache_dir: directory of the cached graph (default: the user's cache directory).
        overwrite: replace the files of an earlier evaluation in output_dir; folds start again.

    Returns:
        The contents of report.json.

    Raises:
        InputError: a parameter or the file is invalid, another process writes to output_dir, or a
            score is NaN or infinite. Only the cached graph and finished folds may be written then.

    Example:
        >>> short, pairs = {"num_epochs": 2}, cdd.EvaluationSettings("pair")
        >>> given = {"model": "graphsage", "settings": pairs, "model_settings": short}
        >>> report = cdd.evaluate_model(path, "out", rankers=["gnn"], **given)
        >>> list(report["rankers"])
        ['gnn']
    """
    make_split, split_settings = _split_of(settings)
    trained_with = settings_of(model, model_settings or {})
    words, reading = _checked(vocabulary, reading)
    asked = HeldOutRanking(
        make_split, settings.on, settings.validation_share, settings.relation_share,
        trained_with, check_rankers(rankers), memory_budget, chunk_size, seed,
    )  # fmt: skip
    source = Source.of(edges_csv, nodes)
    directory = Path(output_dir)
    files = [directory / name for name in (REPORT, RANKS)]
    files += fold_paths(directory) if settings.folds is None else []
    run = start_evaluation(source, files, directory, device, trained_with.learning_rate, overwrite)
    entries = {"model": model, "split": settings.split, "on": settings.on, "seed": seed}
    parameters = {"model": model, **asdict(trained_with), **split_settings}
    with writing_alone(directory, files, overwrite):
        found, ranks = _rank(
            run, read_edges(run, source, reading, words, cache, cache_dir), asked, settings.folds,
            {**parameters, **entries}, overwrite,
        )  # fmt: skip
        report = {**entries, **found, "parameters": parameters, **_ends(run, ranks, seed)}
        write_report(directory, report, {RANKS: ranks})
    return report


def _checked(
    vocabulary: VocabularyChoice | None, reading: ReadSettings | None
) -> tuple[VocabularyChoice, ReadSettings]:
    """Fill in defaults, and check both."""
    words, reading = vocabulary or VocabularyChoice(), reading or ReadSettings()
    words.check()
    reading.check()
    return words, reading


def _ends(run: Run, ranks: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Return the last entries of a report."""
    return {
        **parts_and_differences(ranks, seed=seed),
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "warnings": run.warnings,
        **made_now(),
        "output_dir": str(run.model_dir),
    }


def _rank(
    run: Run,
    graph: KnowledgeGraph,
    asked: HeldOutRanking,
    folds: int | None,
    parameters: Mapping[str, Any],
    overwrite: bool,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Return the entries of the report about all ranked pairs, and their ranks."""
    fingerprint = graph_fingerprint(graph)
    if folds is None:
        held_out = hold_out_pairs(run, graph, asked)
        del graph  # frees the memory of the whole graph, if the caller does not keep it
        found, ranks = train_and_rank(run, held_out, asked)
        remove_folds(run.model_dir)  # of an earlier evaluation that is replaced
        return {"graph": fingerprint, **found}, ranks
    settings = {
        **parameters,
        "rankers": list(asked.names),
        "device": str(run.device),
        "graph": fingerprint,
        "version": made_now()["version"],
    }
    files = FoldFiles(run.model_dir, settings)
    found, ranks = rank_folds(run, graph, asked, folds, files, overwrite)
    return {"graph": fingerprint, **found}, ranks


@plain_arguments
@alone()
@part("Evaluating the model")
def evaluate_model_dir(
    model_dir: str | Path,
    gold: str | Path,
    output_dir: str | Path,
    *,
    rankers: Sequence[str] | None = None,
    since: str | None = None,
    synonyms: str | Path | None = None,
    embeddings: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Rank drug-disease pairs of an outside list with a model that was trained on the whole graph.

    Pairs that the graph lists as treatments are not ranked. Each pair is ranked without the drugs
    that the graph or the list knows for the disease.

    Args:
        model_dir: model directory that `cdd embed` has written.
        gold: outside list of pairs, .csv or .tsv, with the columns drug_id or drug_name, disease_id
            or disease_name, and optionally date and label (approved, failed or contraindicated).
        output_dir: directory for report.json, ranks.parquet and gold_pairs.csv.
        rankers: names of the rankers to compare (default: all that the model provides).
        since: rank only approved pairs from this date on, such as 2015 or 2015-06-30.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.
        embeddings: file with the model's embeddings (default: the file that the model's run wrote,
            beside the model directory).
        seed: seed of the sampled negatives and of the bootstrap.
        overwrite: replace the files of an earlier evaluation in output_dir.

    Returns:
        The contents of report.json.

    Raises:
        InputError: a parameter or a file is invalid, another process writes to output_dir, no pair
            can be ranked, or a score is NaN or infinite. Nothing has been written then.

    Example:
        >>> report = cdd.evaluate_model_dir(model_dir, "approvals.csv", "gold", rankers=["ranker"])
        >>> report["outcomes"]["ranked"]
        1
    """
    use_threads()
    asked = None if rankers is None else check_rankers(rankers)
    directory, files = Path(output_dir), (REPORT, RANKS, GOLD_PAIRS)
    inputs = {f"the input {path}": Path(path) for path in (gold, synonyms, embeddings) if path}
    paths = [directory / name for name in files]
    check_outputs(inputs, paths, directory, overwrite)
    with writing_alone(directory, paths, overwrite):
        rows = read_gold(Path(gold))
        day = None if since is None else parse_date("since", since)
        saved = SavedModel.read(Path(model_dir), embeddings)
        table = match_gold(
            saved.graph, rows, since=day, synonyms=read_synonyms(synonyms, saved.graph.nodes)
        )
        task = gold_task(saved.graph, table)
        names, left_out = saved.choose(asked)
        ranked = rank_pairs(
            saved.graph, task.task, task.pairs, saved.rankers(names), seed=seed, others=task.others,
            recorded=False,
        )  # fmt: skip
        report = {
            "model": saved.model,
            "run": saved.run,
            "graph": graph_fingerprint(saved.graph),
            "gold": Path(gold).name,
            "since": day,
            "seed": seed,
            **gold_counts(saved.graph, table, task),
            "rankers": ranked.metrics,
            "rankers_left_out": left_out,
            **parts_and_differences(ranked.ranks, seed=seed),
            "seconds": ranked.seconds,
            "peak_memory_gib": peak_memory_bytes() / GIB,
            **made_now(),
            "output_dir": str(directory),
        }
        tables = {RANKS: ranked.ranks, GOLD_PAIRS: outcome_table(saved.graph, table)}
        write_report(directory, report, tables)
    return report


def _split_of(settings: EvaluationSettings) -> tuple[Callable[..., Split], dict[str, Any]]:
    """Check the settings; return the function that makes the split, and the report's settings."""
    check_fields(settings)
    chosen = asdict(settings)
    split, relation_share = chosen.pop("split"), chosen.pop("relation_share")
    validation_share, on = chosen.pop("validation_share"), chosen.pop("on")
    folds = chosen.pop("folds")
    if split not in SPLITS:
        raise InputError(f"split (got {split!r}) must be one of {', '.join(SPLITS)}")
    make_split, defaults = SPLITS[split]
    if on not in (TEST, VALIDATION):
        raise InputError(f"on (got {on!r}) must be {TEST!r} or {VALIDATION!r}")
    if on == VALIDATION and not validation_share:
        raise InputError(f"on (got {on!r}) needs validation_share (got {validation_share}) above 0")
    if folds is not None:
        for name in _OF_ONE_DRAW:
            if value := getattr(settings, name):
                raise InputError(
                    f"{name} (got {value}) must be left out with folds (got {folds}), which hold "
                    "out every eligible pair, disease or area once"
                )
        defaults = {name: n for name, n in defaults.items() if name not in _OF_ONE_DRAW}
    values = filled(f"split {split!r}", defaults, chosen)
    shares = {"relation_share": relation_share, "validation_share": validation_share}
    report = {"split": split, **values, **shares, **({} if folds is None else {"folds": folds})}
    return partial(make_split, **values), report
