"""A warm start: a new model takes over the weights and the input vectors of an earlier model.

Nodes are the same in both graphs if their type, source and id are equal. Types and relations are
the same if their names are equal. A type or relation that only the new graph has keeps the weights
of a new model. A node that only the new graph has starts near its neighbors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..graph.frames.added_facts import known_nodes
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..ops.buffers import rows_in_any_order
from ..system.errors import InputError
from .initialisation import structural_vectors
from .kinds.interface import Settings, TrainableModel
from .kinds.table import kind_of
from .layers import DistMult
from .new_nodes import fill_new_nodes

ORIGIN = "init_from"  #: key of the record of the earlier model in files
VECTORS = "model.node_embedding"  #: name of the input vectors in weights.safetensors
_ROWS = 8_192  # rows that are read at a time
_NODE_TYPE, _EDGE_TYPE, _RELATION = "node type", "edge type", "relation"


class Matches(NamedTuple):
    """The numbers of the same things in the graph of the earlier model and in the new graph."""

    old: IntArray  #: shape (K,)
    new: IntArray  #: shape (K,)

    @staticmethod
    def of(old: Sequence[Hashable], new: Sequence[Hashable]) -> Matches:
        """Match two lists of distinct names."""
        number = {name: i for i, name in enumerate(old)}
        pairs = [(number[name], i) for i, name in enumerate(new) if name in number]
        return Matches(*np.array(pairs, np.int64).reshape(-1, 2).T)


@dataclass(frozen=True)
class WarmStart:
    """An earlier model, and what it shares with the graph of a new model."""

    weights_file: Path  #: weights.safetensors of the earlier model
    weights: Mapping[str, Tensor]  #: of the model and its decoder, without input vectors
    nodes: Matches
    types: Mapping[str, Matches]  #: of node types, edge types and relations
    record: Mapping[str, Any]  #: run of the earlier model, and how much was matched, as JSON

    @staticmethod
    def of(
        weights_file: Path,
        weights: Mapping[str, Tensor],
        run: str,
        old: KnowledgeGraph,
        new: KnowledgeGraph,
    ) -> WarmStart:
        """Match the graph of an earlier model with the graph of a new model.

        Args:
            weights_file: of the earlier model.
            weights: its weights without input vectors, by the names of the file.
            run: id of its run.
            old: its graph, on the CPU.
            new: the graph of the new model, on the CPU.
        """
        nodes = Matches(*known_nodes(old, new))
        types = {
            _NODE_TYPE: Matches.of(old.node_type_names, new.node_type_names),
            _EDGE_TYPE: Matches.of(old.edge_types, new.edge_types),
            _RELATION: Matches.of(old.relations, new.relations),
        }
        record: dict[str, Any] = {"run": run, "num_matched_nodes": len(nodes.new)}
        for name, matches, before, after in (
            ("nodes", nodes, old.num_nodes, new.num_nodes),
            ("node_types", types[_NODE_TYPE], len(old.node_type_names), len(new.node_type_names)),
            ("edge_types", types[_EDGE_TYPE], len(old.edge_types), len(new.edge_types)),
        ):
            record[f"num_new_{name}"] = after - len(matches.new)
            record[f"num_removed_{name}"] = before - len(matches.old)
        return WarmStart(weights_file, weights, nodes, types, record)


@torch.no_grad()
def take_over(
    start: WarmStart,
    model: TrainableModel,
    decoder: DistMult,
    read: KnowledgeGraph,
    settings: Settings,
    generator: torch.Generator,
) -> None:
    """Replace the weights and the input vectors of a new model by those of an earlier model.

    Nodes that no path joins to a node of the earlier model start as in a new model.

    Args:
        start: the earlier model.
        model: with the weights of a new model, on the device.
        decoder: as well.
        read: the edges that the model reads, on the CPU.
        settings: of the new model.
        generator: draws the vectors of nodes that start as in a new model.

    Raises:
        InputError: the file of the earlier model has changed since it was checked.
    """
    axes = _typed_axes(settings)
    for name, weight in model.named_parameters():
        if f"model.{name}" != VECTORS:
            _copy_typed(weight, start.weights[f"model.{name}"], axes[name], start.types)
    _copy_typed(decoder.relation, start.weights["decoder.relation"], (_RELATION, None), start.types)
    own = model.node_embedding.detach()
    table = own if own.device.type == "cpu" else own.cpu()
    known = np.zeros(len(table), bool)
    known[start.nodes.new] = True
    with rows_in_any_order(table):
        for rows, vectors in _vectors_of(start):
            table[rows] = vectors
    alone = torch.from_numpy(fill_new_nodes(read, table, known))
    if len(alone):
        table[alone] = structural_vectors(read, table.shape[1], generator)[alone]
    if table is not own:
        own.copy_(table)


def check_fits(
    weights: Mapping[str, Tensor], settings: Settings, old: KnowledgeGraph, directory: Path
) -> None:
    """Check that the weights of an earlier model have the shapes that new settings give.

    Args:
        weights: without input vectors.
        settings: of the new model.
        old: the graph of the earlier model.
        directory: of the earlier model, for the message.

    Raises:
        InputError: a weight has another shape, or is missing.
    """
    shapes = _shapes(settings, len(old.node_type_names), len(old.edge_types))
    for name, shape in shapes.items():
        found = weights.get(f"model.{name}")
        if found is None or found.shape != shape:
            has = "lacks it" if found is None else f"has shape {tuple(found.shape)}"
            raise InputError(
                f"init_from (got {directory}) must be a model with the same settings: the weight "
                f"{name} would have shape {tuple(shape)}, and that model {has}"
            )


def _vectors_of(start: WarmStart) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the input vectors of matched nodes, and their new numbers, some thousand at a time.

    The file is opened for each part: pages that were read count as memory until it is closed.

    Raises:
        InputError: the file has changed since it was checked.
    """
    order = np.argsort(start.nodes.old, kind="stable")
    old, new = start.nodes.old[order], start.nodes.new[order]
    path, last = start.weights_file, int(old[-1]) + 1
    for first in range(0, last, _ROWS):
        some = slice(*np.searchsorted(old, (first, first + _ROWS)).tolist())
        try:
            with safe_open(path, "pt") as file:
                run = (file.metadata() or {}).get("run")
                if run not in (None, start.record["run"]):
                    raise SafetensorError(f"it is of run {run}")
                rows = file.get_slice(VECTORS)[first : min(first + _ROWS, last)]
            part = rows[torch.from_numpy(old[some] - first)]
        except (OSError, SafetensorError, IndexError) as error:
            raise InputError(f"{path} has changed during this run: {error}") from None
        yield torch.from_numpy(new[some]), part


def _typed_axes(settings: Settings) -> dict[str, tuple[str | None, ...]]:
    """Return for each weight of a model the type that each of its axes counts, or None."""
    one, more_nodes, more_edges = (_shapes(settings, *n) for n in ((1, 1), (2, 1), (1, 2)))
    found = {}
    for name, shape in one.items():
        of_axes = zip(shape, more_nodes[name], more_edges[name], strict=True)
        found[name] = tuple(
            _NODE_TYPE if nodes != size else _EDGE_TYPE if edges != size else None
            for size, nodes, edges in of_axes
        )
    return found


def _shapes(settings: Settings, num_types: int, num_edge_types: int) -> dict[str, torch.Size]:
    """Return the shape of each weight of a model but the input vectors."""
    no_nodes = (0,) * (num_types + 1)
    model = kind_of(settings.model).make(no_nodes, num_edge_types, settings, torch.Generator())
    weights = model.named_parameters()
    return {name: weight.shape for name, weight in weights if f"model.{name}" != VECTORS}


def _copy_typed(
    weight: Tensor, old: Tensor, axes: Sequence[str | None], types: Mapping[str, Matches]
) -> None:
    """Copy the parts of an earlier weight whose types the new graph has.

    Args:
        weight: changed in place.
        old: the same weight of the earlier model.
        axes: the type that each axis counts, or None.
        types: the matched types.
    """
    to, of = (
        tuple(
            np.arange(size) if kind is None else types[kind][which]
            for kind, size in zip(axes, weight.shape, strict=True)
        )
        for which in (1, 0)
    )
    rows, others = (tuple(map(torch.from_numpy, np.ix_(*each))) for each in (to, of))
    weight[rows] = old[others].to(weight.device)
