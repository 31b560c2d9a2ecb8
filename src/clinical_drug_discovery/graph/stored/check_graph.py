"""Check that the content of a file is a graph, before compiled code computes with it.

A checksum finds damage, but anybody can compute it. So a file from a stranger may hold any numbers.
The checks follow from the definitions in `KnowledgeGraph`. They take one pass over the edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ...system.files import DamagedFileError
from ..building.edges import MAX_EDGE_TYPES
from ..knowledge_graph import GraphArrays, IntArray, KnowledgeGraph, ReadReport
from ..vocabulary import Vocabulary

#: The arrays of a graph.
ARRAYS = {
    "node_type": np.int32,
    "src": np.int32,
    "indptr": np.int64,
    "edge_type_ptr": np.int64,
    "type_ptr": np.int64,
}
NODE_TEXT = ("node_id", "node_type", "node_name", "node_source")  #: columns of text of the nodes
_MOST_NODES = 2**31
_SPARSE = 8  # numbers of nodes up to this many times their count are marked in an array
_PIECE_EDGES = 2**24  # edges that are compared at a time
MAX_TYPES = 1000  #: node types of a graph; more are a mistake in the columns of the file


def require(fits: bool | np.bool_, rule: str) -> None:
    """Raise DamagedFileError with a rule unless the content of a file fits the rule."""
    if not fits:
        raise DamagedFileError(rule)


def check_record(values: Any) -> None:
    """Check the fields of a graph that are stored as JSON.

    Raises:
        DamagedFileError: a field is missing, or has another type.
    """
    names = {field.name for field in fields(KnowledgeGraph)} - {"arrays", "nodes"}
    require(isinstance(values, dict) and values.keys() == names, "other fields of the graph")
    types, edge_types = values["node_type_names"], values["edge_types"]
    require(_are_texts(types) and 1 <= len(types) <= MAX_TYPES, "node_type_names must be texts")
    require(types == sorted(set(types)), "node_type_names must be sorted")
    is_list = isinstance(edge_types, list) and len(edge_types) <= MAX_EDGE_TYPES
    require(is_list, "edge_types must be a list")
    triples = all(_are_texts(one) and len(one) == 3 for one in edge_types)
    require(triples, "edge_types must be triples of texts")
    known = {tuple(one) for one in edge_types}
    require(edge_types == sorted(map(list, known)), "edge_types must be sorted")
    for source, relation, target in known:
        require({source, target} <= {*types}, "an edge type has an unknown node type")
        require((target, relation, source) in known, "an edge type lacks its reverse")
    _check_fields(values["report"], ReadReport, "report")
    _check_fields(values["vocabulary"], Vocabulary, "vocabulary")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _check_fields(record: Any, kind: type[ReadReport] | type[Vocabulary], name: str) -> None:
    """Check that a record has the fields of a dataclass of numbers, texts and tuples of texts."""
    types = {field.name: str(field.type) for field in fields(kind)}
    require(isinstance(record, dict) and record.keys() == types.keys(), f"other fields of {name}")
    for field, annotation in types.items():
        value = record[field]
        if annotation == "int":
            fits = type(value) is int and 0 <= value < 2**63
        elif annotation == "str":
            fits = isinstance(value, str)
        else:
            fits = _are_texts(value)
        require(fits, f"{field} of the {name} must be {annotation}")
    if kind is Vocabulary:
        require(record["treats"], "the vocabulary must have a word for treatments")


def check_types(text: bytes, num_nodes: int, names: Sequence[str], type_ptr: IntArray) -> None:
    """Check that the stored column node_type has the names of the types in their order.

    Args:
        text: the column, with NUL between two names.
        num_nodes: number of nodes.
        names: names of the node types.
        type_ptr: see `KnowledgeGraph`.

    Raises:
        DamagedFileError: the column is another one, or `type_ptr` does not rise from 0.
    """
    is_list = type_ptr.ndim == 1 and type_ptr.dtype == ARRAYS["type_ptr"]
    require(is_list, "type_ptr must be a list")
    _check_pointers("type_ptr", type_ptr, len(names), num_nodes)
    words = [name.encode() + b"\0" for name in names]
    counts = np.diff(type_ptr).tolist()
    # The length comes first: a long name, repeated for each node, could take all memory.
    length = sum(len(word) * count for word, count in zip(words, counts, strict=True)) - 1
    fits = length == len(text)
    fits = fits and text == b"".join(map(bytes.__mul__, words, counts))[:-1]
    require(fits, "the types of the nodes disagree with type_ptr")


def check_arrays(arrays: GraphArrays) -> None:
    """Check the types and the dimensions of the arrays of a graph.

    Raises:
        DamagedFileError: an array has another type or dimension.
    """
    for name, dtype in ARRAYS.items():
        array = getattr(arrays, name)
        fits = array.ndim == 1 and array.dtype == dtype
        require(fits, f"{name} must be a list of {dtype.__name__}")


def check_graph(graph: KnowledgeGraph) -> None:
    """Check the arrays and the nodes of a graph whose record and types were checked.

    Raises:
        DamagedFileError: the graph breaks a rule of `KnowledgeGraph`.
    """
    num_types = len(graph.node_type_names)
    type_ptr, edge_type_ptr = graph.arrays.type_ptr, graph.arrays.edge_type_ptr
    num_nodes, num_edges = graph.num_nodes, graph.num_edges
    require(0 < num_nodes < _MOST_NODES and num_edges > 0, "no nodes or no edges")
    _check_pointers("type_ptr", type_ptr, num_types, num_nodes)
    _check_pointers("edge_type_ptr", edge_type_ptr, len(graph.edge_types), num_edges)
    of_node = np.repeat(np.arange(num_types, dtype=np.int32), np.diff(type_ptr))
    require(np.array_equal(of_node, graph.arrays.node_type), "node_type disagrees with type_ptr")
    _check_nodes(graph)
    _check_rows(graph, edge_type_ptr)
    _check_edges(graph)


def _check_pointers(name: str, pointers: IntArray, count: int, stop: int) -> None:
    require(len(pointers) == count + 1, f"{name} has another length")
    ends = pointers[0] == 0 and pointers[-1] == stop
    require(ends and (np.diff(pointers) >= 0).all(), f"{name} must rise from 0 to {stop}")


def _check_nodes(graph: KnowledgeGraph) -> None:
    nodes = graph.nodes
    require(nodes.height == graph.num_nodes, "nodes has another length")
    index = nodes["node_index"].to_numpy()
    starts = graph.arrays.type_ptr[1:-1]
    rises = np.diff(index) > 0
    rises[starts[(starts > 0) & (starts < len(index))] - 1] = True
    require(index.min() >= 0 and rises.all(), "node_index must rise within a type")
    require(_are_distinct(index), "a node_index occurs twice")


def _are_distinct(index: IntArray) -> bool:
    """Return whether numbers, none of which is negative, are distinct."""
    if index.max() >= _SPARSE * len(index):  # sorting takes ten times as long as marking
        return len(np.unique(index)) == len(index)
    seen = np.zeros(index.max() + 1, bool)
    seen[index] = True
    return bool(np.count_nonzero(seen) == len(index))


def _check_rows(graph: KnowledgeGraph, edge_type_ptr: IntArray) -> None:
    """Check `indptr`, whose parts must join the edges of each type and each target."""
    indptr, starts = graph.arrays.indptr, np.array(graph.indptr_ptr)
    require(len(indptr) == starts[-1], "indptr has another length")
    fits = np.array_equal(indptr[starts[:-1]], edge_type_ptr[:-1])
    fits &= np.array_equal(indptr[starts[1:] - 1], edge_type_ptr[1:])
    require(fits and (indptr[1:] >= indptr[:-1]).all(), "indptr must rise within an edge type")


def _check_edges(graph: KnowledgeGraph) -> None:
    """Check the sources: their order, their types, and that every edge has a reverse edge.

    The last rule is checked by counts: each node has as many edges of a type as edges of the
    reverse type lead into it. A comparison edge by edge would take longer than loading.
    """
    src, indptr, starts = graph.arrays.src, graph.arrays.indptr, graph.indptr_ptr
    for start in range(0, len(src), _PIECE_EDGES):
        piece = src[start : start + _PIECE_EDGES]
        rises = np.empty(len(piece), bool)
        np.greater(piece[1:], piece[:-1], out=rises[1:])
        rises[0] = start == 0 or piece[0] > src[start - 1]
        first, stop = np.searchsorted(indptr, [start, start + len(piece)])
        rises[indptr[first:stop] - start] = True  # the first source of each target
        require(rises.all(), "the sources of a node must rise")
    bounds = graph.arrays.edge_type_ptr.tolist()
    for r, (kind, _) in enumerate(graph.endpoint_types):
        first, stop = graph.node_range(kind)
        other = graph.reverse_edge_type[r]
        of_type = src[bounds[r] : bounds[r + 1]]
        fits = len(of_type) == bounds[other + 1] - bounds[other]
        if len(of_type):
            fits = fits and first <= of_type.min() and of_type.max() < stop
        require(fits, "an edge lacks its reverse edge, or begins at a node of another type")
        found = np.zeros(stop - first, np.int64)
        for start in range(0, len(of_type), _PIECE_EDGES):
            piece = of_type[start : start + _PIECE_EDGES] - first
            found += np.bincount(piece, minlength=len(found))
        wanted = np.diff(indptr[starts[other] : starts[other + 1]])
        require(np.array_equal(found, wanted), "an edge lacks its reverse edge")
