"""The start of a run: check the files and the device, and read the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...graph.cache import cache_path, read_cached
from ...graph.knowledge_graph import KnowledgeGraph, with_vocabulary
from ...graph.read import read_graph
from ...graph.vocabulary import VocabularyChoice
from ...models.embeddings_file import check_output, output_files
from ...system.devices import choose_device
from ...system.errors import InputError, check_at_least
from ...system.files import check_writable
from ...system.machine import PeakMemory, empty_cache, return_large_buffers
from ...system.processes import use_threads
from ...system.progress import Run
from .model_dir import check_targets, model_dir_of


def start_run(
    edges_csv: str | Path,
    output_csv: str | Path,
    model_dir: str | Path | None,
    device: str | None,
    learning_rate: float,
    chunk_size: int | None,
    seed: int,
) -> Run:
    """Start a run that writes embeddings: check parameters, paths and device; choose the device.

    Args:
        edges_csv: the edges file of the graph.
        output_csv: the embeddings file to write.
        model_dir: directory to write the model to; None: `model_dir_of` the embeddings file.
        device: see `choose_device`.
        learning_rate: already checked; for error messages.
        chunk_size: number of nodes that inference embeds at a time, or None.
        seed: seed of the run.

    Raises:
        InputError: a parameter or a path is invalid, or the device is not available.
    """
    output = Path(output_csv)
    check_output(output)
    directory = model_dir_of(output) if model_dir is None else Path(model_dir)
    check_writable("model_dir", directory)
    return begin_run(Path(edges_csv), output, directory, device, learning_rate, chunk_size, seed)


def begin_run(
    edges: Path,
    output: Path,
    model_dir: Path,
    device: str | None,
    learning_rate: float,
    chunk_size: int | None,
    seed: int,
) -> Run:
    """Start a run whose output paths were already checked; see `start_run`.

    Raises:
        InputError: chunk_size or seed is invalid, the device is not available, or an output would
            overwrite the edges file or another output.
    """
    use_threads()
    if chunk_size is not None:
        check_at_least("chunk_size", chunk_size, 1)
    check_at_least("seed", seed, 0)
    place, reason = choose_device(device)
    check_targets({"the edges file": edges}, output_files(output), model_dir)
    return_large_buffers()
    run = Run(edges, output, model_dir, place, learning_rate, PeakMemory(place))
    run.progress.milestone(f"Device: {run.device} ({reason})")
    return run


def read_edges(
    run: Run,
    words: VocabularyChoice,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
    cache: bool,
    cache_dir: str | Path | None,
) -> KnowledgeGraph:
    """Read the graph from the edges file or from the cache.

    Args:
        run: provides the path of the edges file; receives the time and warnings.
        words: the node types and relations that the user has named.
        include_node_types: see `read_graph`.
        limit_nodes: see `read_graph`.
        cache: True: read the cache, or write it after reading the edges file.
        cache_dir: see `cache_path`.

    Raises:
        InputError: the file, a filter or the cache directory is invalid.
    """
    filters: dict[str, Any] = {
        "include_node_types": include_node_types, "limit_nodes": limit_nodes
    }  # fmt: skip
    if cache_dir is not None and not cache:
        raise InputError(f"cache_dir (got {cache_dir}) must be left out if the cache is off")
    with run.timed("read"):
        if cache:
            place = cache_path(run.edges, **filters, cache_dir=cache_dir)
            check_targets({"the cached graph": place}, output_files(run.output), run.model_dir)
            graph, outcome = read_cached(run.edges, **filters, cache_dir=cache_dir)
            for text in outcome.warnings:
                run.warn(text)
            run.progress.milestone(outcome.message)
        else:
            graph = read_graph(run.edges, **filters)
        empty_cache(run.device)  # the training can then use the memory of the reader
    run.progress.milestone(
        f"Read {graph.num_nodes:,} nodes and {graph.num_edges:,} edges of {len(graph.relations)} "
        f"relations in {run.seconds['seconds_read']:.1f} s: {graph.report.spelling}"
    )
    graph = with_vocabulary(graph, words)
    run.progress.milestone(f"Vocabulary: {graph.vocabulary}")
    return graph
