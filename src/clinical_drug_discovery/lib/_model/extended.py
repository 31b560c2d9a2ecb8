"""A model with added facts: the graph, the embeddings and the drug ranker, without training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from ...graph.frames.added_facts import (
    NAME,
    ExtendedGraph,
    add_facts,
    described,
    known_nodes,
    read_facts,
)
from ...graph.frames.shared_types import with_types_of
from ...graph.knowledge_graph import KnowledgeGraph
from ...ranking.drug_ranker import DrugRanker, Vectors
from ...ranking.neighbors import Neighbors
from ...system import log
from ...system.errors import InputError
from .network import Network


@dataclass(frozen=True)
class ExtendedModel:
    """A model of a graph with added facts."""

    graph: KnowledgeGraph
    network: Network
    embeddings: Tensor  #: shape (N, D), in the order of the graph
    ranker: DrugRanker | None
    new_nodes: pl.DataFrame  #: the rows of the node table that the facts have added


def extend_model(
    graph: KnowledgeGraph,
    network: Network,
    ranker: DrugRanker | None,
    facts: pl.DataFrame | Path,
    parameter: str = NAME,
) -> ExtendedModel | None:
    """Add facts to the graph of a model, embed all nodes, and adapt the ranker.

    New nodes get input vectors from their neighbors. Then the layers compute all embeddings. The
    ranker keeps its weights; it reads the paths of the new graph.

    Args:
        graph: the graph of the model.
        network: the network with the input vectors of this graph.
        ranker: the ranker of the model, if it has one.
        facts: the rows, or a file, in the columns of kg.csv.
        parameter: name of the parameter that holds the facts, for messages.

    Returns:
        The model; None if the graph has all facts already.

    Raises:
        InputError: the facts are invalid, or contradict the graph.
    """
    extended = extend_graph(graph, facts, parameter)
    return None if extended is None else embed_extended(extended, network, ranker)


def extend_graph(
    graph: KnowledgeGraph, facts: pl.DataFrame | Path, parameter: str = NAME
) -> ExtendedGraph | None:
    """Add facts to the graph of a model, with all checks; see `extend_model`."""
    added = read_facts(facts, parameter)
    if added is None:
        return None
    name = f"{parameter} (got {facts})" if isinstance(facts, Path) else parameter
    for text in added.report.warnings:
        if "the sources are empty" not in text:  # the graph has the sources
            log.warning(text)
    extended = add_facts(graph, added, name, facts)
    log.milestone(described(extended))
    return extended if extended.num_new_facts else None


def embed_extended(
    extended: ExtendedGraph, network: Network, ranker: DrugRanker | None
) -> ExtendedModel:
    """Embed all nodes of a graph with added facts, and adapt the ranker; see `extend_model`."""
    larger, embeddings = network.transferred(extended.graph, extended.number)
    if ranker is not None and ranker.vectors is not None:  # the paths need no change
        neighbors = Neighbors.of(extended.graph, embeddings)
        ranker = replace(ranker, vectors=Vectors.of(neighbors))
    return ExtendedModel(extended.graph, larger, embeddings, ranker, extended.new_nodes)


def embed_other(graph: KnowledgeGraph, network: Network, other: KnowledgeGraph) -> Tensor:
    """Embed the nodes of another graph; shared nodes keep their input vectors.

    Args:
        graph: the graph of the network.
        network: the network with the input vectors of this graph.
        other: a graph whose node types and edge types the first graph has.

    Returns:
        Shape (N, D), in the order of the other graph.

    Raises:
        InputError: it is not a graph, has a type of its own, or does not share a node.
    """
    if not isinstance(other, KnowledgeGraph):
        raise InputError(f"graph (got {type(other).__name__}) must be a KnowledgeGraph")
    other = with_types_of(other, graph)
    old, new = known_nodes(graph, other)
    if not len(old):
        raise InputError("graph must share at least one node with the model's graph")
    vectors = network.node_embedding[torch.from_numpy(old)]
    return replace(network, node_embedding=vectors).transferred(other, new)[1]
