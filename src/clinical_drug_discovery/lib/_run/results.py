"""The end of a run: write its files and its record, then fit the drug ranker."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from ...evaluation.embedding_probe import Probe, probe_embeddings
from ...graph.identifiers import shown_identifier
from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...graph.source import ReadSettings
from ...graph.vocabulary import VocabularyChoice
from ...models.collapse import Collapse
from ...models.embeddings_file import output_files, write_embeddings
from ...models.warm_start import ORIGIN
from ...ranking.drug_ranker import fit_drug_ranker, why_no_ranker
from ...system.errors import counted
from ...system.files import file_sha256, save_record
from ...system.machine import GIB, empty_cache, peak_memory_bytes
from ...system.progress import Run
from ...system.run_directory import Places
from ...training.memory_plan import Plan
from ...training.objective.disease_pairs import PairSampler, similarity_spearman
from ...training.schedule import LATER_FRACTION
from ...training.train import Trained
from .finish import finish_run, kept
from .model_dir import STATS_FILE, add_ranker, save_model


def can_fit_ranker(run: Run, graph: KnowledgeGraph) -> bool:
    """Return whether a graph has enough known treatments for a drug ranker; warn if it has not."""
    why = why_no_ranker(graph)
    if why is not None:
        run.warn(f"no drug ranker will be fitted, so cdd rank cannot use this model: {why}")
    return why is None


def write_results(
    run: Run,
    places: Places,
    graph: KnowledgeGraph,
    plan: Plan,
    trained: Trained,
    embeddings: Tensor,
    collapse: Collapse,
    *,
    ranker: bool,
    seed: int,
    words: VocabularyChoice,
    reading: ReadSettings,
) -> dict[str, Any]:
    """Probe the embeddings, and write all results but the drug ranker.

    Args:
        run: provides the paths, the times and the warnings.
        places: the locked model directory of the run.
        graph: the graph that was embedded, on the CPU.
        plan: provides the settings and the predicted peak.
        trained: the trained model.
        embeddings: shape (N, D), embeddings of all nodes, on the CPU.
        collapse: collapse figures of these embeddings by node type.
        ranker: the user has asked for a drug ranker.
        seed: seed of the run.
        words: the words that the user has chosen.
        reading: settings with which the graph was read.

    Returns:
        The record of the run, the fields of `EmbeddingStats`.

    Raises:
        WriteError: a file cannot be written; the message says where the results are.
    """
    parameters = {**_parameters(graph, plan, trained, reading), "seed": seed}
    arguments = _arguments(run, plan, words, reading, seed=seed, ranker=ranker)
    with run.timed("probe"):
        probe = probe_embeddings(graph, embeddings, seed=seed)
    run.seconds["seconds_rank_fit"] = run.seconds["seconds_write"] = 0.0
    record: dict[str, Any] = {}

    def write(directory: Path, output: Path) -> None:
        name = save_model(run, directory, graph, trained, parameters, arguments)
        saved_nodes = write_embeddings(output, graph.nodes, embeddings, name)
        record.update(
            record_of(run, graph, plan, trained, embeddings),
            run=name,
            saved_nodes=saved_nodes,
            output_sha256=_hashes(run, output),
            collapse=collapse,
            probe=probe,
            seed=seed,
        )
        save_record(directory / STATS_FILE, _without_paths(run, record))

    with run.timed("write"):
        finish_run(run, places, write)
    run.progress.milestone(
        f"Wrote {counted(record['saved_nodes'], 'node')} to {run.output} and the model to "
        f"{run.model_dir}"
    )
    with kept(run):
        record.update(run.seconds)
        save_record(places.model_dir / STATS_FILE, _without_paths(run, record))
    return record


def fit_ranker(
    run: Run, places: Places, graph: KnowledgeGraph, embeddings: Tensor, record: dict[str, Any]
) -> None:
    """Fit the drug ranker for `cdd rank`, and add it to the results of a run.

    The model and the embeddings are complete on disk, so they stay if the fit fails or is stopped.

    Args:
        run: provides the paths and the log; receives the time.
        places: the locked model directory of the run.
        graph: on the CPU, with enough known treatments (`can_fit_ranker`).
        embeddings: shape (N, D), embeddings of all nodes, on the CPU.
        record: result of `write_results`; this function updates it.
    """
    with kept(run):
        with run.timed("rank_fit"):
            run.progress.milestone(
                "Fitting the drug ranker on paths in the graph and on embeddings"
            )
            empty_cache(run.device)  # the fit can then use the memory of the training
            ranker = fit_drug_ranker(graph, embeddings=embeddings, seed=record["seed"])
            run.peak.sample()
            empty_cache(run.device)
        add_ranker(places.model_dir, ranker, record["run"])
        record.update(
            has_ranker=True,
            example_node=example_node(graph, of_diseases=True),
            peak_memory_gib=peak_memory_bytes() / GIB,
            **run.seconds,
        )
        save_record(places.model_dir / STATS_FILE, _without_paths(run, record))


def _hashes(run: Run, output: Path) -> dict[str, str]:
    """Return the SHA-256 of the embeddings files at `output`, by their final names."""
    return {
        final.name: file_sha256(path)
        for final, path in zip(output_files(run.output), output_files(output), strict=True)
    }


def _cycles(plan: Plan, trained: Trained) -> list[dict[str, Any]]:
    """Return the number of epochs and the first learning rate of each cycle of the training."""
    rates = [plan.settings.learning_rate * fraction for fraction in (1.0, LATER_FRACTION)]
    return [
        {"num_epochs": num_epochs, "learning_rate": rates[index > 0]}
        for index, num_epochs in enumerate(trained.cycles)
    ]


def _parameters(
    graph: KnowledgeGraph, plan: Plan, trained: Trained, reading: ReadSettings
) -> dict[str, Any]:
    """Return the parameters of the run for config.json."""
    return {
        "model": plan.settings.model,
        **asdict(plan.settings),
        "learning_rate_cycles": _cycles(plan, trained),
        ORIGIN: trained.init_from,
        **asdict(graph.vocabulary),
        **reading.record(),
    }


def _arguments(
    run: Run, plan: Plan, words: VocabularyChoice, reading: ReadSettings, **others: Any
) -> dict[str, Any]:
    """Return the parameters that the result of the run depends on, for `cdd embed --config`."""
    found = {**asdict(plan.settings), **asdict(words), **reading.record(), **others}
    found["device"] = run.device.type
    return {name: value for name, value in found.items() if value is not None}


def record_of(
    run: Run, graph: KnowledgeGraph, plan: Plan, trained: Trained, embeddings: Tensor
) -> dict[str, Any]:
    """Return the record of a run whose ranker is not fitted yet; some fields are still empty."""
    device_peak = run.peak.num_bytes()
    settings = asdict(plan.settings)
    names = ("embedding_dim", "hidden_dim", "num_layers", "num_epochs", "training")
    known: dict[str, Any] = {
        **{name: settings[name] for name in names},
        **made_now(),
        **run.seconds,
    }
    stats = EmbeddingStats(
        **known,
        run="",
        model=plan.settings.model,
        num_nodes=graph.num_nodes,
        num_edges=graph.num_edges,
        num_relations=len(graph.relations),
        num_edge_types=len(graph.edge_types),
        device=str(run.device),
        num_processes=run.group.size,
        seed=0,
        seconds_exchange=run.group.seconds,
        seconds_compute=run.seconds["seconds_train"]
        + run.seconds["seconds_inference"]
        - run.group.seconds,
        peak_memory_gib=peak_memory_bytes() / GIB,
        device_memory_gib=None if device_peak is None else device_peak / GIB,
        device_memory_source=run.peak.source,
        final_loss=trained.history[-1]["loss"],
        finished_epochs=len(trained.history),
        ended_early=trained.ended_early,
        output_file=str(run.output),
        output_sha256={},
        model_dir=str(run.model_dir),
        saved_nodes=0,
        warnings=run.warnings,
        read_report=graph.report.to_dict(),
        predicted_memory_gib=plan.predicted_bytes / GIB,
        scratch_gib=plan.file_bytes / GIB,
        collapse={},
        similarity=_similarity(trained.pairs, embeddings),
        probe=None,
        has_ranker=False,
        example_node=example_node(graph, of_diseases=False),
        learning_rate_cycles=_cycles(plan, trained),
        init_from=trained.init_from,
    )
    return asdict(stats)


def made_now() -> dict[str, str]:
    """Return the version of this package and the time, for a record."""
    return {
        "version": version("clinical-drug-discovery"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def example_node(graph: KnowledgeGraph, *, of_diseases: bool) -> str:
    """Return the node with the most edges, of all nodes or of the diseases, for a first question.

    The node is given as `find_node` takes it: by its name or, if the name is ambiguous, as
    identifier.
    """
    disease = graph.vocabulary.disease_type
    first, stop = node_range_of(graph, disease) if of_diseases else (0, graph.num_nodes)
    node = graph.nodes.row(first + int(graph.degree[first:stop].argmax()), named=True)
    names = graph.nodes["node_name"].str.to_lowercase()
    is_unique = (names == node["node_name"].lower()).sum() == 1
    kind = ("node_id", "node_source", "node_type")
    return str(node["node_name"]) if is_unique else shown_identifier(*(node[key] for key in kind))


def _without_paths(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record without directories of this machine: it may be published with the model."""
    folders = {str(path.parent) for path in (*run.edges, run.output, run.model_dir)} - {"."}
    texts = record["warnings"]
    for folder in sorted(folders, key=len, reverse=True):
        texts = [text.replace(folder + os.sep, "") for text in texts]
    # Other directories, such as that of the cache, if their names do not have blanks.
    texts = [re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", text) for text in texts]
    names = {"output_file": run.output.name, "model_dir": run.model_dir.resolve().name}
    return {**record, **names, "warnings": texts}


def _similarity(
    pairs: PairSampler | None, embeddings: Tensor
) -> dict[str, float | int | None] | None:
    """Return the value of `EmbeddingStats.similarity`."""
    if pairs is None:
        return None
    return {
        "num_pairs": pairs.num_pairs,
        "num_held_out_nodes": pairs.num_held_out_nodes,
        "num_held_out_pairs": len(pairs.held_out.a),
        "spearman": similarity_spearman(embeddings, pairs.held_out),
    }


@dataclass(frozen=True)
class EmbeddingStats:
    """The record of a run: its sizes, settings, times, memory and results."""

    run: str  #: id of the run, from its weights and settings; all its files carry it
    version: str  #: of this package
    date: str  #: when the results were written: UTC, in ISO 8601
    model: str  #: "graphsage" or "hgt"
    num_nodes: int
    num_edges: int  #: number of directed edges: two for each fact
    num_relations: int  #: number of distinct relation names
    num_edge_types: int  #: number of distinct triples (source type, relation, target type)
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    training: str  #: "full" or "sampled"
    device: str
    num_processes: int  #: that torchrun has started; else 1
    seed: int
    seconds_read: float
    seconds_compile: float  #: time to compile the CPU kernels; 0 if nothing was compiled
    seconds_train: float
    seconds_inference: float  #: time to embed all nodes
    seconds_exchange: float  #: part of both: exchanges with other processes, and waiting for them
    seconds_compute: float  #: the rest of both
    seconds_collapse: float  #: time of the collapse check of all embeddings
    seconds_rank_fit: float  #: time to fit the drug ranker; about 0 without a ranker
    seconds_probe: float  #: time of the probe of the embeddings
    seconds_write: float
    predicted_memory_gib: float  #: peak memory of the process, predicted before the training
    scratch_gib: float  #: predicted size of the files in scratch_dir; 0 if it was not used
    peak_memory_gib: float  #: measured peak memory of the process, including libraries
    device_memory_gib: float | None  #: peak of the GPU's allocator; None on the CPU
    #: "reported": the peak comes from torch; "samples": largest of some measurements; "none": CPU
    device_memory_source: str
    final_loss: float  #: mean loss of the last epoch
    finished_epochs: int  #: less than num_epochs if the training ended early
    ended_early: str | None  #: the reason, if the training ended before epoch num_epochs
    #: HGT: num_pairs (pairs of similar diseases for training), num_held_out_nodes,
    #: num_held_out_pairs, and spearman (rank correlation between Jaccard index and cosine over
    #: held-out pairs; None if undefined). None for GraphSAGE or without disease-gene edges.
    similarity: dict[str, float | int | None] | None
    #: mrr and recall@50 of num_pairs known treatments that neighbors in the embeddings find, each
    #: as if it were unknown; walk_mrr and walk_recall@50 of the baseline walk; num_drugs and
    #: num_diseases, and is_sample if these are not all drugs and treated diseases. The training has
    #: seen these treatments. None with fewer than two treated diseases.
    probe: Probe | None
    output_file: str
    output_sha256: dict[str, str]  #: SHA-256 of the embeddings file (and of its index), by name
    model_dir: str
    saved_nodes: int  #: number of rows in output_file
    collapse: dict[str, dict[str, float | None]]  #: per node type: mean_cosine, effective_rank
    warnings: list[str]  #: all warnings of the run
    read_report: dict[str, Any]  #: see `graph.knowledge_graph.ReadReport`
    has_ranker: bool  #: True if the model directory has a drug ranker
    #: num_epochs and first learning_rate of each cosine decay: more than one if a finished training
    #: was made longer
    learning_rate_cycles: list[dict[str, float]]
    #: For a run that started from an earlier model: run (its id), num_matched_nodes, and num_new
    #: and num_removed of nodes, node_types and edge_types. None for a run from the beginning.
    init_from: dict[str, Any] | None
    example_node: str  #: name (or source:id) of the disease, or node, with the most edges
