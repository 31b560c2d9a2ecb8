"""A map: nodes with their places and colors."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...graph.knowledge_graph import KnowledgeGraph
from ...graph.node_lookup import did_you_mean
from ...system.errors import InputError, counted
from .colors import Coloring, color_nodes
from .coordinates import Places, place_nodes

ALL = "all"  #: stands for all node types


class MapChoice(NamedTuple):
    """The content of a map; see `draw_map`."""

    type: str
    color_by: str
    method: str
    features: Path | None
    feature: str | None
    seed: int


class NodeMap(NamedTuple):
    """N nodes in two dimensions."""

    nodes: pl.DataFrame  #: N rows, with the columns of the node table
    places: Places  #: shape (N, 2)
    coloring: Coloring
    choice: MapChoice
    num_without_facts: int  #: nodes that are left out, because their embeddings say nothing

    def describe(self) -> str:
        """Return in two sentences what the picture shows."""
        kind = "nodes" if self.choice.type == ALL else f"nodes of the type {self.choice.type}"
        method = {"umap": "UMAP", "pca": "principal components"}[self.choice.method]
        text = (
            f"{self.nodes.height:,} {kind}, placed by {method} of their embeddings (seed "
            f"{self.choice.seed}), in colors by {self.choice.color_by}."
        )
        if self.num_without_facts:
            left_out = counted(self.num_without_facts, "node")
            verb = "is" if self.num_without_facts == 1 else "are"
            text += f" {left_out} without facts {verb} left out."
        return text


def make_map(
    graph: KnowledgeGraph | None,
    nodes: pl.DataFrame,
    values: npt.NDArray[np.float32],
    choice: MapChoice,
) -> NodeMap:
    """Choose, color and place the nodes of a map. Colors come first, since places take minutes.

    Args:
        graph: on the CPU; None if it is missing.
        nodes: all nodes, in the order of the graph.
        values: shape (N, D), their embeddings.
        choice: what the map shows.

    Raises:
        InputError: the type does not exist or has fewer than 3 nodes with facts, or the colors need
            something that is missing.
    """
    types = sorted(nodes["node_type"].unique())
    if choice.type not in (ALL, *types):
        hint = did_you_mean(choice.type, types)
        raise InputError(
            f"type (got {choice.type!r}) must be {ALL} or one of {', '.join(types)}{hint}"
        )
    wanted = np.ones(nodes.height, bool)
    if choice.type != ALL:
        wanted = (nodes["node_type"] == choice.type).to_numpy()
    has_facts = np.ones(nodes.height, bool) if graph is None else graph.degree.numpy() > 0
    rows = np.flatnonzero(wanted & has_facts)
    shown, vectors = nodes[rows], values[rows]
    coloring = color_nodes(
        graph, rows, shown, vectors, choice.color_by, choice.features, choice.feature, choice.seed
    )
    places = place_nodes(vectors, choice.method, choice.seed)
    return NodeMap(shown, places, coloring, choice, int((wanted & ~has_facts).sum()))
