"""Graphs from files, data frames and PyTorch Geometric, and back."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ..graph.cache import read_cached
from ..graph.frames.tables import frames_of, graph_of_frames, to_polars
from ..graph.knowledge_graph import KnowledgeGraph
from ..graph.node_lookup import find_node
from ..graph.read import read_graph as read_files
from ..graph.reading.room import ReadingMemory
from ..graph.source import EdgesPath, ReadSettings, Source
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.limits.memory import parse_memory
from ..system.limits.scratch import check_scratch
from ..system.log import part, warning
from ..system.processes import alone, use_threads
from .optional import optional_package

_NODE_LISTS = ("node_index", "node_id", "node_name", "node_source")
_REVERSED = "rev_"  # begins the relations that PyTorch Geometric's ToUndirected adds


@plain_arguments
@alone()
@part("Reading the graph")
def read_graph(
    edges_csv: EdgesPath,
    nodes: str | Path | None = None,
    *,
    limit_nodes: int | None = None,
    include_node_types: Sequence[str] | None = None,
    exclude_relations: Sequence[str] | None = None,
    on_conflict: str = "error",
    on_missing: str = "error",
    max_unpacked_gib: float | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    memory_budget: str | int | None = None,
    scratch_dir: str | Path | None = None,
) -> KnowledgeGraph:
    """Read a knowledge graph from files of any format of the page "Formats".

    Args:
        edges_csv: the file, such as PrimeKG's kg.csv; a list of files, or a folder.
        nodes: node table, for formats that keep the nodes in a file of their own.
        limit_nodes: keep at most this many nodes: the same fraction of every node type, namely the
            nodes with the most edges.
        include_node_types: keep only nodes of these types.
        exclude_relations: leave out the facts of these relations.
        on_conflict: error or first: what to do if a node has two names, types or numbers.
        on_missing: error or drop: what to do if a row lacks a field.
        max_unpacked_gib: largest size of a compressed file after decompression, in GiB (default:
            200 times its size, but at least 0.25 and at most 64).
        cache: save the graph in a file that is read faster, until the files change.
        cache_dir: directory of this file (default: the user's cache directory).
        memory_budget: only with scratch_dir: largest memory of the process, such as 4GiB (default:
            70% of the free memory).
        scratch_dir: directory on a disk for the rows, if they do not fit the budget. The graph is
            the same (default: keep everything in memory).

    Returns:
        The graph, on the CPU. `to_frames` shows it as tables.

    Raises:
        InputError: the files cannot be read as a graph, or a parameter is invalid.

    Example:
        >>> graph = cdd.read_graph(path)  # the bundled sample graph
        >>> graph
        <KnowledgeGraph: 820 nodes of 7 types, 5,462 edges of 15 relations>
    """
    use_threads()
    source = Source.of(edges_csv, nodes)
    settings = ReadSettings(
        include_node_types, limit_nodes, exclude_relations, on_conflict, on_missing,
        max_unpacked_gib,
    )  # fmt: skip
    scratch = None if scratch_dir is None else Path(scratch_dir)
    if scratch is None and memory_budget is not None:
        raise InputError(f"memory_budget (got {memory_budget!r}) needs scratch_dir")
    parse_memory(memory_budget)
    if scratch is not None and (text := check_scratch(scratch)):
        warning(text)
    memory = ReadingMemory(memory_budget, scratch)
    if cache and not source.has_stdin:
        graph, outcome = read_cached(source, settings, cache_dir, memory)
        warnings = outcome.warnings
    else:
        if cache_dir is not None:
            raise InputError(f"cache_dir (got {cache_dir}) must be left out if the cache is off")
        graph, warnings = read_files(source, settings, memory), ()
    for text in (*warnings, *graph.report.warnings):
        warning(text)
    return graph


def sample_graph() -> KnowledgeGraph:
    """Return the sample graph, which comes with the package.

    It was written by hand from textbook pharmacology; see the page "Sample graph".

    Returns:
        The graph: 195 drugs, 115 diseases, 2,731 facts.

    Example:
        >>> cdd.sample_graph().node_type_names[:3]
        ('anatomy', 'biological_process', 'disease')
    """
    use_threads()
    with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as path:
        return read_files(path)


@alone()
def graph_from_frames(nodes: Any, edges: Any) -> KnowledgeGraph:
    """Make a graph of two data frames, or of one with the columns of PrimeKG's kg.csv.

    The rows get the checks that files get. Messages count them from 1. A fact may be there once or
    in both directions.

    Args:
        nodes: polars or pandas DataFrame with the columns node_index (a whole number), node_id,
            node_type and, if there are any, node_name and node_source; nodes without edges are
            left out. None: `edges` has all fields of the nodes.
        edges: polars or pandas DataFrame with the columns relation, x_index and y_index, which are
            numbers of nodes; without `nodes`, the columns of any format that needs one file, such
            as relation, x_id, x_type, x_name, y_id, y_type, y_name.

    Returns:
        The graph, on the CPU.

    Raises:
        InputError: the frames are not a graph; the message names the frame, the row and the rule.

    Example:
        >>> nodes = {"node_index": [0, 1], "node_id": ["D1", "9"], "node_type": ["drug", "gene"]}
        >>> edges = {"relation": ["binds"], "x_index": [0], "y_index": [1]}
        >>> cdd.graph_from_frames(nodes, edges)
        <KnowledgeGraph: 2 nodes of 2 types, 2 edges of 1 relation>
    """
    use_threads()
    table = None if nodes is None else to_polars("nodes", nodes)
    graph = graph_of_frames(to_polars("edges", edges), table)
    for text in graph.report.warnings:
        warning(text)
    return graph


def to_frames(graph: KnowledgeGraph) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the nodes and the facts of a graph as data frames; see `graph_from_frames`.

    Args:
        graph: on the CPU.

    Returns:
        The nodes (node_index, node_id, node_type, node_name, node_source), and one row for each
        fact (relation, x_index, y_index). polars' own method `to_pandas` converts both.

    Example:
        >>> nodes, edges = cdd.to_frames(cdd.sample_graph())
        >>> nodes.height, edges.height, edges.columns
        (820, 2731, ['relation', 'x_index', 'y_index'])
    """
    return frames_of(graph)


def to_hetero_data(graph: KnowledgeGraph) -> Any:
    """Return a graph as HeteroData of PyTorch Geometric.

    Args:
        graph: on the CPU.

    Returns:
        A `torch_geometric.data.HeteroData`. Each node type has num_nodes and the lists node_index,
        node_id, node_name and node_source. Each edge type (source type, relation, target type) has
        an edge_index; every edge has its reverse.

    Raises:
        ImportError: the package torch_geometric is not installed.

    Example:
        >>> data = cdd.to_hetero_data(cdd.sample_graph())
        >>> data["drug"].num_nodes, data["drug", "indication", "disease"].edge_index.shape
        (195, torch.Size([2, 412]))
    """
    pyg = optional_package("torch_geometric.data", install="torch_geometric")
    data = pyg.HeteroData()
    for t, name in enumerate(graph.node_type_names):
        first, stop = graph.node_range(t)
        data[name].num_nodes = stop - first
        for column in _NODE_LISTS:
            data[name][column] = graph.nodes[column][first:stop].to_list()
    for r, kind in enumerate(graph.edge_types):
        src_type, dst_type = graph.endpoint_types[r]
        src = graph.src_of(r).long() - graph.node_range(src_type)[0]
        dst = graph.dst_of(r).long() - graph.node_range(dst_type)[0]
        data[tuple(kind)].edge_index = torch.stack([src, dst])
    return data


@alone()
def graph_from_hetero_data(data: Any) -> KnowledgeGraph:
    """Make a graph of HeteroData of PyTorch Geometric.

    Args:
        data: `torch_geometric.data.HeteroData` with edge_index for each edge type. The lists
            node_id, node_name, node_source and node_index of a node type are optional; without
            node_id, the position within the type is the id. Edge types such as (b, "rev_likes", a),
            which PyTorch Geometric's `ToUndirected` adds to (a, "likes", b), are left out, because
            every edge of a graph has its reverse.

    Returns:
        The graph, on the CPU. Nodes without edges are left out.

    Raises:
        InputError: it is not such an object, a list has another length than the nodes, or the
            edges are not a graph.

    Example:
        >>> graph = cdd.sample_graph()
        >>> again = cdd.graph_from_hetero_data(cdd.to_hetero_data(graph))
        >>> again.nodes.equals(graph.nodes)
        True
    """
    use_threads()
    if not (hasattr(data, "node_types") and hasattr(data, "edge_types")):
        raise InputError(f"data (got {type(data).__name__}) must be HeteroData")
    tables, first, start = [], {}, 0
    for name in data.node_types:
        table = _nodes_of(name, data[name], start)
        first[name], start = table["node_index"].to_numpy(), start + table.height
        tables.append(table)
    edges = []
    kinds = set(data.edge_types)
    for src, relation, dst in data.edge_types:
        if relation.startswith(_REVERSED) and (dst, relation[len(_REVERSED) :], src) in kinds:
            continue
        ends = data[src, relation, dst].edge_index.cpu().numpy()
        for end, kind in zip(ends, (src, dst), strict=True):
            if len(end) and not 0 <= end.min() <= end.max() < len(first[kind]):
                raise InputError(f"edge_index of {(src, relation, dst)} must be nodes of {kind}")
        x, y = first[src][ends[0]], first[dst][ends[1]]
        columns = {"x_index": x, "y_index": y}
        edges.append(pl.DataFrame(columns).with_columns(pl.lit(relation).alias("relation")))
    if not edges:
        raise InputError("data must have edge types")
    return graph_of_frames(pl.concat(edges), _drop_empty_sources(pl.concat(tables)))


def _nodes_of(name: str, store: Any, start: int) -> pl.DataFrame:
    """Return the table of the nodes of one type of HeteroData; numbers begin at `start`."""
    size = int(store.num_nodes)
    given = {c: list(store[c]) for c in _NODE_LISTS if c in store}
    for column, values in given.items():
        if len(values) != size:
            raise InputError(
                f"{column} of node type {name!r} has {len(values):,} entries, but there are "
                f"{size:,} nodes"
            )
    ids = given.get("node_id", range(size))
    return pl.DataFrame(
        {
            "node_index": [int(i) for i in given.get("node_index", range(start, start + size))],
            "node_id": [str(one) for one in ids],
            "node_type": [name] * size,
            "node_name": [str(one) for one in given.get("node_name", ids)],
            "node_source": [str(one) for one in given.get("node_source", [""] * size)],
        }
    )


def _drop_empty_sources(nodes: pl.DataFrame) -> pl.DataFrame:
    """Leave out the sources if no node has one; if some nodes have one, all must."""
    return nodes if (nodes["node_source"] != "").any() else nodes.drop("node_source")


@plain_arguments
def to_networkx(
    graph: KnowledgeGraph, node: str, *, num_steps: int = 1, max_nodes: int = 1000
) -> Any:
    """Return the neighborhood of a node as a graph of networkx.

    Args:
        graph: on the CPU.
        node: the node, given by name or identifier in any spelling.
        num_steps: largest number of steps from the node.
        max_nodes: largest number of nodes; a hub has very many neighbors.

    Returns:
        A `networkx.MultiGraph`. Its nodes are the numbers node_index, with the attributes node_id,
        node_type, node_name and node_source; its edges are facts, with the relation as key and
        attribute. All facts between two of its nodes are there.

    Raises:
        InputError: the node does not exist or is ambiguous, or the neighborhood is too large.
        ImportError: the package networkx is not installed.

    Example:
        >>> near = cdd.to_networkx(cdd.sample_graph(), "Warfarin")
        >>> near.number_of_nodes()
        17
    """
    networkx = optional_package("networkx")
    at = find_node(graph.nodes, node)
    inside = np.zeros(graph.num_nodes, bool)
    inside[at] = True
    src, dst = graph.src.numpy(), graph.dst.numpy()
    for _ in range(num_steps):
        inside[dst[inside[src]]] = True
    if inside.sum() > max_nodes:
        raise InputError(
            f"max_nodes (got {max_nodes:,}) is too small: {num_steps} steps from {node!r} reach "
            f"{inside.sum():,} nodes"
        )
    index = graph.nodes["node_index"].to_numpy()
    result = networkx.MultiGraph()
    for row in graph.nodes[np.flatnonzero(inside)].iter_rows(named=True):
        result.add_node(row.pop("node_index"), **row)
    kept = np.flatnonzero(inside[src] & inside[dst] & (src < dst))
    kinds = np.searchsorted(graph.arrays.edge_type_ptr, kept, side="right") - 1
    for x, r, y in zip(index[src[kept]], kinds, index[dst[kept]], strict=True):
        relation = graph.edge_types[r].relation
        result.add_edge(int(x), int(y), key=relation, relation=relation)
    return result
