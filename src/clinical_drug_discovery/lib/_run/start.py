"""One call of a public function: what both of them do before and after their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clinical_drug_discovery.graph.cache import cache_path, read_cached
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import check_edges_file, check_filters, read_graph
from clinical_drug_discovery.lib._run.model_dir import check_targets, model_dir_of
from clinical_drug_discovery.models.embeddings_file import check_output, output_files
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.system.devices import choose_device
from clinical_drug_discovery.system.errors import InputError, check_at_least
from clinical_drug_discovery.system.files import check_writable
from clinical_drug_discovery.system.machine import (
    PeakMemory,
    empty_cache,
    return_large_buffers,
)
from clinical_drug_discovery.system.progress import Run


def check_rest(*, chunk_size: int | None, seed: int) -> None:
    """Refuse what is no setting of a model."""
    if chunk_size is not None:
        check_at_least("chunk_size", chunk_size, 1)
    check_at_least("seed", seed, 0)


def start_run(
    edges_csv: str | Path,
    output_csv: str | Path,
    model_dir: str | Path | None,
    device: str | None,
    learning_rate: float,
    bfloat16: bool,
) -> Run:
    """Refuse what cannot be done, before anything expensive starts and with nothing written.

    Args:
        edges_csv: the graph's file.
        output_csv: the file of embeddings to write.
        model_dir: where to write the model; beside the embeddings if None.
        device: see `devices.choose_device`.
        learning_rate: checked.
        bfloat16: whether to store and multiply in it, where it has to be asked for.

    Raises:
        InputError: a file or directory, the device or bfloat16 breaks a rule.
    """
    output = Path(output_csv)
    check_output(output)
    directory = model_dir_of(output) if model_dir is None else Path(model_dir)
    check_writable("model_dir", directory)
    return begin_run(Path(edges_csv), output, directory, device, learning_rate, bfloat16)


def begin_run(
    edges: Path,
    output: Path,
    model_dir: Path,
    device: str | None,
    learning_rate: float,
    bfloat16: bool,
) -> Run:
    """What `start_run` does wherever the results go.

    Raises:
        InputError: the edges file, the device or bfloat16 breaks a rule, or the output would
            replace the edges file.
    """
    place, reason = choose_device(device)
    if bfloat16:
        _check_bfloat16(place)
    check_edges_file(edges)
    check_targets({"the edges file": edges}, output_files(output), model_dir)
    return_large_buffers()
    run = Run(edges, output, model_dir, place, learning_rate, PeakMemory(place))
    run.progress.milestone(f"Device: {run.device} ({reason})")
    return run


def _check_bfloat16(device: torch.device) -> None:
    """Refuse bfloat16 where it is no choice, or where each product would be emulated."""
    # On a CPU that takes the path of GPUs it is one, as there.
    if device.type != "cuda" and uses_kernels(device):
        why = (
            "a CPU stores what edges gather in it without being asked, and multiplies in it where "
            "it has instructions for that"
        )
    elif device.type == "mps":
        why = "nobody has measured it there"
    elif device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        why = "this GPU has no instructions for it"
    else:
        return
    raise InputError(
        f"bfloat16 (got True) must be left out with device {device.type!r}: {why}; "
        "it is for GPUs of device 'cuda' that multiply in it"
    )


def read_edges(
    run: Run,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
    cache: bool,
    cache_dir: str | Path | None,
) -> KnowledgeGraph:
    """Read the graph, or take it from its cache, and say what it holds.

    Args:
        run: says where from.
        include_node_types: see `tables.read_graph`.
        limit_nodes: see `tables.read_graph`.
        cache: whether to use the cache at all.
        cache_dir: see `cache.cache_path`.

    Raises:
        InputError: the file, a filter or the cache's place breaks a rule.
    """
    filters: dict[str, Any] = {
        "include_node_types": include_node_types, "limit_nodes": limit_nodes
    }  # fmt: skip
    check_filters(**filters)
    if cache_dir is not None and not cache:
        raise InputError(f"cache_dir (got {cache_dir}) is of no use without cache")
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
        empty_cache(run.device)  # what the reader used is then there for the training
    run.progress.milestone(
        f"Read {graph.num_nodes:,} nodes and {graph.num_edges:,} edges of {len(graph.relations)} "
        f"relations in {run.seconds['seconds_read']:.1f} s: {graph.report.spelling}"
    )
    return graph
