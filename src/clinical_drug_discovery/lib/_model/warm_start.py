"""The earlier model that a run starts from: its checks, and what its graph shares with the new one.

A run that continues from a checkpoint does not read the earlier model: the checkpoint has
everything, also how much was matched.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...graph.knowledge_graph import KnowledgeGraph
from ...graph.reading.records import listed
from ...models.kinds.interface import Settings
from ...models.warm_start import VECTORS, WarmStart, check_fits
from ...system.errors import InputError
from ...system.log import part
from ...system.progress import Run
from ...system.run_directory import settle
from .._run.model_dir import WEIGHTS_FILE, read_model_graph
from .._run.resume import has_checkpoint, run_of_origin
from .network import read_network, read_settings

_SIZES = ("embedding_dim", "hidden_dim", "num_layers", "num_heads")


def check_origin(run: Run, init_from: str | Path | None, settings: Settings, resume: bool) -> None:
    """Check that a run can start from an earlier model, before a large file is read.

    Args:
        run: provides the directories.
        init_from: model directory of the earlier model; None: start from the beginning.
        settings: of the new model.
        resume: continue an earlier run.

    Raises:
        InputError: the directory does not hold a model, or it is of another kind or size.
    """
    if init_from is None or has_checkpoint(run, resume):
        return
    directory = Path(init_from)
    settle(directory)
    if not directory.is_dir():
        raise InputError(f"init_from (got {init_from}) must be a directory")
    run_of_origin(directory)  # refuses a damaged file, and one of a later version
    old = read_settings(directory)
    if old.model != settings.model:
        raise InputError(
            f"init_from (got {init_from}) must be a model of the same kind, {settings.model!r}; it "
            f"is {old.model!r}"
        )
    for name in _SIZES:
        size, expected = getattr(settings, name, None), getattr(old, name, None)
        if size != expected:
            raise InputError(
                f"{name} (got {size}) must be {expected}, the {name} of the model that the run "
                f"starts from (init_from, got {init_from})"
            )


def match_origin(
    run: Run, graph: KnowledgeGraph, settings: Settings, init_from: str | Path | None, resume: bool
) -> WarmStart | None:
    """Read an earlier model, check it, and find the nodes and types that its graph shares.

    Args:
        run: receives the log.
        graph: of the new model, on the CPU.
        settings: of the new model.
        init_from: see `check_origin`, which comes first.
        resume: continue an earlier run.

    Returns:
        The earlier model without its vectors, which are read when the new model is made. None if
        the run starts from the beginning or continues from a checkpoint.

    Raises:
        InputError: the earlier model is damaged, does not fit, or does not share a node.
    """
    if init_from is None or has_checkpoint(run, resume):
        return None
    directory = Path(init_from)
    with part("Matching the nodes of the earlier model"):
        old = read_model_graph(directory)
        network = read_network(directory, old)
        states = {"model": network.model.state_dict(), "decoder": network.decoder.state_dict()}
        weights = {
            f"{name}.{key}": weight.clone()
            for name, state in states.items()
            for key, weight in state.items()
            if f"{name}.{key}" != VECTORS
        }
        check_fits(weights, settings, old, directory)
        start = WarmStart.of(
            directory / WEIGHTS_FILE, weights, run_of_origin(directory), old, graph
        )
    if not len(start.nodes.new):
        raise InputError(
            f"init_from (got {directory}) must be a model whose graph shares nodes with this graph:"
            f" none of its {old.num_nodes:,} nodes has the type, source and id of a node here"
        )
    run.progress.milestone(_described(directory, start, old, graph))
    return start


def _described(
    directory: Path, start: WarmStart, old: KnowledgeGraph, graph: KnowledgeGraph
) -> str:
    """Return one line about what was matched."""
    found = start.record
    texts = [
        f"Starting from the model {directory}: {found['num_matched_nodes']:,} of "
        f"{graph.num_nodes:,} nodes match, {found['num_new_nodes']:,} are new, "
        f"{found['num_removed_nodes']:,} are gone"
    ]
    for what, before, after in (
        ("node types", set(old.node_type_names), set(graph.node_type_names)),
        ("edge types", _edge_types(old), _edge_types(graph)),
    ):
        texts += [
            f"{word} {what}: {_names(names)}"
            for word, names in (("new", after - before), ("removed", before - after))
            if names
        ]
    return "; ".join(texts)


def _edge_types(graph: KnowledgeGraph) -> set[str]:
    """Return the edge types as text; an edge type and its reverse are one."""
    return {" - ".join(min(kind, kind.reverse)) for kind in graph.edge_types}


def _names(names: Iterable[str]) -> str:
    return listed(sorted(names), 3).replace("; ", ", ")
