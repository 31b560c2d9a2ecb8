"""Embeddings of a knowledge graph with any model: read, plan, train, embed, write, fit the ranker.

`gnn_embeddings.py` and `gnn_hgt.py` have a public function of their own for one model each.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from ..graph.knowledge_graph import KnowledgeGraph
from ..graph.reading.room import ReadingMemory
from ..graph.source import EdgesPath, ReadSettings, Source
from ..graph.vocabulary import VocabularyChoice
from ..models.inference import embed_nodes
from ..models.kinds.interface import Settings
from ..models.kinds.table import entry_of, kind_of
from ..ops.buffers import large_in_files, used_again
from ..ranking.fit_memory import rank_fit_bytes
from ..system.arguments import plain_arguments
from ..system.errors import InputError, shown
from ..system.group.joined import current_group, joined
from ..system.log import part
from ..system.machine import one_thread
from ..system.processes import alone
from ..training.compile_kernels import begin_compilation, compile_kernels
from ..training.hooks import EpochHook, hooks
from ..training.memory_budget import plan_training
from ..training.train import train
from ._model.in_memory import embed_in_memory
from ._model.warm_start import check_origin, match_origin
from ._run.finish import check_space, working
from ._run.results import can_fit_ranker, fit_ranker, write_results
from ._run.resume import keep_last_checkpoint, open_checkpoints
from ._run.start import divided_among, read_edges, start_run


@plain_arguments
@alone()
@part("Embedding the graph")
def embed_model(
    model: str,
    edges_csv: EdgesPath | KnowledgeGraph,
    output_csv: str | Path | None,
    *,
    nodes: str | Path | None = None,
    model_settings: Mapping[str, Any] | None = None,
    vocabulary: VocabularyChoice | None = None,
    reading: ReadSettings | None = None,
    device: str | None = None,
    seed: int = 0,
    memory_budget: str | int | None = None,
    scratch_dir: str | Path | None = None,
    model_dir: str | Path | None = None,
    init_from: str | Path | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    ranker: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_minutes: float = 5.0,
    tracker: str | None = None,
    on_epoch: EpochHook | None = None,
) -> dict[str, Any]:
    """Embed all nodes of a knowledge graph with a model of the table of models.

    For GraphSAGE and HGT, it does the same as their own functions.

    Args:
        model: name in `models.kinds.table.MODELS`, such as graphsage or hgt.
        edges_csv: knowledge graph in any format of the page "Formats", such as PrimeKG's kg.csv; a
            folder, - for the standard input, several parts of one graph, or a graph in memory.
        output_csv: file to write the embeddings to: .csv, .parquet or .npy (with an index file).
            None: nothing is written, and no drug ranker is fitted.
        nodes: node table, for formats that keep the nodes in a file of their own.
        model_settings: settings of the model by name, such as `{"num_epochs": 50}`. Settings that
            are missing or None have their defaults.
        vocabulary: the graph's names for drugs, diseases and treatments (default: recognized).
        reading: filters of the graph, and what to do about faults in its files.
        device: cuda, mps or cpu (default: cuda if available, else mps if `cdd doctor --try mps` has
            passed on this machine, else cpu).
        seed: seed of the initial weights and of all sampling.
        memory_budget: largest peak memory of the process, such as 4GiB (default: 70% of the free
            memory).
        scratch_dir: directory on a disk for the rows of the graph while it is read, the vectors,
            the moments of Adam and the outputs of layers, if they do not fit the budget. The result
            has the same bytes, but takes longer. The files are gone at the end, also after a crash
            (default: keep everything in memory).
        model_dir: directory to write the model to (default: NAME_model beside the output NAME).
        init_from: model directory of an earlier model of the same kind and sizes. The new model
            starts from its weights and vectors (default: from the beginning).
        chunk_size: number of nodes that inference embeds at a time (default: as many as fit).
        cache: save the graph in a file that later runs read faster, until the edges file changes.
        cache_dir: directory of this file (default: the user's cache directory, see `cdd cache`).
        ranker: fit the drug ranker for `cdd rank`, if the graph has known treatments.
        overwrite: replace the files of an earlier run; without it, such files are an error.
        resume: continue an earlier run from its last checkpoint. Give the same parameters; only
            num_epochs may be larger. Without a checkpoint, start from the beginning.
        checkpoint_minutes: time between two checkpoints; 0 saves one after every step, 1000000 only
            one at the end, which takes less disk space.
        tracker: tensorboard, mlflow or wandb: also send the figures of each epoch to this program.
        on_epoch: function that gets the row of each epoch, such as `{"epoch": 3, "loss": 1.2}`. If
            it returns True or "stop", the training ends after this epoch.

    Returns:
        The fields of `EmbeddingStats`: sizes, settings, times, memory, loss, warnings, paths.
        Without output_csv, also nodes (a DataFrame) and embeddings (an array in their order).

    Raises:
        InputError: a parameter or the file is invalid. No file has been written in this case,
            except possibly the cached graph.

    Example:
        >>> from clinical_drug_discovery.lib.embed_model import embed_model
        >>> stats = embed_model("hgt", "kg.csv", "hgt.npy", model_settings={"num_epochs": 50})
        >>> stats["model"], stats["num_epochs"]
        ('hgt', 50)
    """
    words, reading = vocabulary or VocabularyChoice(), reading or ReadSettings()
    words.check()
    reading.check()
    return embed_graph(
        settings_of(model, model_settings or {}), words, reading, Source.of(edges_csv, nodes),
        output_csv, device=device, seed=seed, memory_budget=memory_budget, scratch_dir=scratch_dir,
        model_dir=model_dir, init_from=init_from, chunk_size=chunk_size, cache=cache,
        cache_dir=cache_dir, ranker=ranker, overwrite=overwrite, resume=resume,
        checkpoint_minutes=checkpoint_minutes, tracker=tracker, on_epoch=on_epoch,
    )  # fmt: skip


@joined()
def embed_graph(
    settings: Settings,
    words: VocabularyChoice,
    reading: ReadSettings,
    source: Source,
    output_csv: str | Path | None,
    *,
    device: str | None,
    seed: int,
    memory_budget: str | int | None,
    scratch_dir: str | Path | None,
    model_dir: str | Path | None,
    init_from: str | Path | None,
    chunk_size: int | None,
    cache: bool,
    cache_dir: str | Path | None,
    ranker: bool,
    overwrite: bool,
    resume: bool,
    checkpoint_minutes: float,
    tracker: str | None,
    on_epoch: EpochHook | None,
) -> dict[str, Any]:
    """Embed a graph; all public functions end here. See `embed_model` for the parameters.

    With several processes, the first writes and returns the record; the others return an empty one.
    """
    settings.check()
    settings = divided_among(settings, current_group())
    run = start_run(
        source, output_csv, model_dir, device, settings.learning_rate,
        overwrite=overwrite, resume=resume, scratch_dir=scratch_dir,
    )  # fmt: skip
    check_origin(run, init_from, settings, resume)
    kernels = begin_compilation(run, settings.model, source)
    scratch = None if scratch_dir is None else Path(scratch_dir)
    memory = ReadingMemory(memory_budget, scratch)
    graph = read_edges(run, source, reading, words, cache, cache_dir, memory)
    start = match_origin(run, graph, settings, init_from, resume)
    fits_ranker = ranker and output_csv is not None and can_fit_ranker(run, graph)
    rank_fit = rank_fit_bytes(graph, settings.embedding_dim) if fits_ranker else 0
    plan = plan_training(run, graph, settings, memory_budget, chunk_size, rank_fit, scratch)
    if output_csv is None:
        return embed_in_memory(
            run, graph, plan, kernels, start, seed=seed, on_epoch=on_epoch, tracker=tracker
        )
    checkpoints, finished = open_checkpoints(
        run, graph, plan, init_from, start, seed=seed, resume=resume, minutes=checkpoint_minutes
    )
    if finished is not None:
        return finished
    if run.group.rank == 0:
        check_space(run, graph, plan, checkpoint_minutes)
    compile_kernels(run, plan.backend, plan.settings.model, kernels)
    with (
        checkpoints.threads(), one_thread(plan.is_small), working(run) as places,
        large_in_files(plan.scratch_dir),
    ):  # fmt: skip
        with used_again():  # inference, too, uses the memory of the training
            with hooks(run, settings, on_epoch, tracker) as after_epoch:
                trained = train(run, graph, settings, plan, seed, checkpoints, after_epoch, start)
            embeddings, collapse = embed_nodes(
                run, trained.model, trained.graph, plan.chunk_size, plan.backend
            )
        if run.group.rank:
            return {}
        stats = write_results(
            run, places, graph, plan, trained, embeddings, collapse,
            ranker=ranker, seed=seed, words=words, reading=reading,
        )  # fmt: skip
        del trained  # the fit of the ranker uses its memory
        if fits_ranker:
            fit_ranker(run, places, graph, embeddings, stats)
        keep_last_checkpoint(run, checkpoints)
    return stats


def settings_of(model: str, chosen: Mapping[str, Any]) -> Settings:
    """Check the settings of a model, and return them.

    Settings that are missing or None have the defaults of `cdd embed`.

    Raises:
        InputError: a setting is invalid, or the model does not have this setting.
    """
    settings: Settings = kind_of(model).settings(
        **filled(f"model {model!r}", _defaults(model), chosen)
    )
    settings.check()
    return settings


def _defaults(model: str) -> dict[str, Any]:
    """Return the defaults of a model's settings: of its own function, or of the settings."""
    entry, own = entry_of(model), fields(kind_of(model).settings)
    if entry.function is None:
        return {field.name: field.default for field in own if field.default is not MISSING}
    module, name = entry.function
    function = getattr(import_module(f"clinical_drug_discovery.{module}"), name)
    signature = inspect.signature(function).parameters
    return {field.name: signature[field.name].default for field in own}


def filled(what: str, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen settings, with defaults for settings that are None or missing.

    Raises:
        InputError: a setting is not among the defaults.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            raise InputError(
                f"{name} (got {shown(value)}) does not apply to {what}, whose settings are "
                f"{', '.join(defaults)}"
            )
    return {**defaults, **given}
