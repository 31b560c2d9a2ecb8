"""Sparse adjacency matrices of the graph, and weights that lower the influence of hubs.

Damped path counts follow Himmelstein et al., eLife 2017;6:e26726: an edge from node a to node b has
the weight (degree of a * degree of b)^-0.4. The degrees count only edges of the same edge type.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from .knowledge_graph import EdgeType, KnowledgeGraph, node_range_of

MOST_MEAN_DEGREE = 10  #: of a sparse relation
DAMPING = 0.4  # exponent of the degrees in damped path counts
_ROWS_AT_ONCE = 16  # multiplications of dense rows in the time of one of sparse rows
_TILE = 64  # rows that are transposed at a time
Floats = npt.NDArray[np.float32]


def adjacency(graph: KnowledgeGraph, edge_type: EdgeType) -> csr_array:
    """Return the 0/1 adjacency matrix of one edge type of a graph on the CPU.

    Returns:
        float32 ones, shape (nodes of the source type, nodes of the target type). Rows and columns
        are numbered within their node type; the column indices of each row are sorted.
    """
    # Edges of the reverse type are sorted by target; these targets are the sources of `edge_type`.
    r = graph.reverse_edge_type[graph.edge_types.index(edge_type)]
    first, stop = graph.node_range(graph.endpoint_types[r][0])
    indptr, targets = graph.pointers_of(r), graph.sources_of(r) - first
    entries = (np.ones(len(targets), np.float32), targets, indptr - indptr[0])
    return csr_array(entries, shape=(len(indptr) - 1, stop - first))


def neighbors_of(graph: KnowledgeGraph, node: int) -> dict[EdgeType, npt.NDArray[np.int32]]:
    """Return the neighbors of a node of a graph on the CPU, by the edge type out of the node.

    Each array is ascending. Edge types without an edge of the node are left out.
    """
    kind, found = int(graph.node_type[node]), {}
    for r, edge_type in enumerate(graph.edge_types):
        if graph.endpoint_types[r][1] == kind:
            at = node - graph.node_range(kind)[0]
            first, stop = graph.indptr_of(r)[at : at + 2].tolist()
            if stop > first:
                found[edge_type.reverse] = graph.src[first:stop].numpy()
    return found


def adjacency_between(
    graph: KnowledgeGraph, src_type: str, dst_type: str, relations: Collection[str] | None = None
) -> csr_array:
    """Return the 0/1 adjacency matrix of two node types, with the edges of several relations.

    Args:
        graph: on the CPU.
        src_type: node type of the rows.
        dst_type: node type of the columns.
        relations: names of the relations, which the graph may lack; None for all relations.

    Returns:
        float32 ones, shape (nodes of `src_type`, nodes of `dst_type`), numbered as in `adjacency`.
        Two nodes that several relations join have one entry.

    Raises:
        InputError: the graph does not have one of the node types.
    """
    ranges = (node_range_of(graph, name) for name in (src_type, dst_type))
    total = csr_array(tuple(stop - first for first, stop in ranges), dtype=np.float32)
    for kind in graph.edge_types:
        wanted = relations is None or kind.relation in relations
        if wanted and (kind.src_type, kind.dst_type) == (src_type, dst_type):
            total += adjacency(graph, kind)
    return ones(total)


def sparse_links(
    graph: KnowledgeGraph, node_type: str, least_share: float = 0.0
) -> csr_array | None:
    """Return the links along sparse relations between nodes of a type, such as disease_disease.

    A relation with more than 10 edges per node with edges is left out: such relations, for example
    interactions of drugs, say little about a node.

    Args:
        graph: on the CPU.
        node_type: a node type of the graph.
        least_share: share of the nodes of the type that must have edges of a relation.

    Returns:
        float32 ones, shape (n, n), symmetric, numbered as in `adjacency`; None without relations.
    """
    along = None
    for kind in graph.edge_types:
        if (kind.src_type, kind.dst_type) != (node_type, node_type):
            continue
        links = adjacency(graph, kind)
        with_edges = int((np.diff(links.indptr) > 0).sum())
        is_wide = with_edges >= max(least_share * links.shape[0], 1)
        if is_wide and links.nnz <= MOST_MEAN_DEGREE * with_edges:
            along = links if along is None else along + links
    return None if along is None else ones(along)


def power(degrees: npt.ArrayLike, exponent: float = -DAMPING) -> Floats:
    """Return degree^exponent for each degree, and 0 for a degree of 0."""
    degree = np.asarray(degrees, np.float32)
    result = np.zeros_like(degree)
    np.power(degree, np.float32(exponent), out=result, where=degree > 0)
    return result


def damped(matrix: csr_array) -> csr_array:
    """Divide each entry by (sum of its row * sum of its column)^0.4, for damped path counts."""
    return scale(matrix, power(matrix.sum(axis=1)), power(matrix.sum(axis=0)))


def scale(matrix: csr_array, rows: Floats, columns: Floats) -> csr_array:
    """Multiply each row i of a matrix by rows[i] and each column j by columns[j]."""
    data = matrix.data * np.repeat(rows, np.diff(matrix.indptr)) * columns[matrix.indices]
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def ones(matrix: csr_array) -> csr_array:
    """Return the matrix with all nonzero entries set to 1, and with sorted column indices."""
    result = csr_array(matrix, copy=True)
    result.eliminate_zeros()
    result.sort_indices()
    result.data = np.ones(len(result.data), np.float32)
    return result


def unit_rows(matrix: csr_array) -> csr_array:
    """Scale each nonzero row to length 1, so that products of rows are cosines."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    squares = np.bincount(rows, matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[0])
    return scale(matrix, power(squares, -0.5), np.ones(matrix.shape[1], np.float32))


def rare_columns(matrix: csr_array) -> csr_array:
    """Divide each column by (number of its entries)^0.4, then scale each row to length 1."""
    columns = power((matrix != 0).sum(axis=0))
    return unit_rows(scale(matrix, np.ones(matrix.shape[0], np.float32), columns))


def dense_product(rows: csr_array, other: csr_array) -> Floats:
    """Return rows @ other as a dense array, for a few rows of a sparse matrix.

    If many of the rows have the same columns, each row of `other` is read once for all of them,
    which takes a fraction of the time. Both ways add the same numbers in the same order.

    Args:
        rows: shape (n, K).
        other: shape (K, D).
    """
    rows = rows if rows.has_sorted_indices else rows.sorted_indices()
    lengths = np.diff(other.indptr)
    inner = np.unique(rows.indices)
    once = int(lengths[inner].sum())
    if int(lengths[rows.indices].sum()) <= once * (1 + rows.shape[0] / _ROWS_AT_ONCE):
        return np.asarray((rows @ other).toarray())
    read = other[inner] if 2 * once < other.nnz else other
    columns = rows[:, inner] if read is not other else rows
    return transposed(read.T @ np.ascontiguousarray(columns.toarray().T))


def transposed(matrix: Floats) -> Floats:
    """Return the transpose of a dense matrix, in the order of its rows.

    numpy copies it column by column, which takes several times as long if it does not fit the
    CPU's cache.
    """
    out = np.empty(matrix.T.shape, matrix.dtype)
    for start in range(0, len(matrix), _TILE):
        out[:, start : start + _TILE] = matrix[start : start + _TILE].T
    return out
