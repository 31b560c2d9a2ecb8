"""Sparse matrices of single edge types, and the weighting by degree that keeps hubs from counting.

Degree-damped path counts are those of Himmelstein et al., eLife 2017;6:e26726: a step of a path
counts (degree of its start)^-w times (degree of its end)^-w, the degrees those within the step's
edge type, w = 0.4.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import scipy.sparse

from clinical_drug_discovery.graph import EdgeType, KnowledgeGraph

DAMPING = 0.4
Sparse = scipy.sparse.csr_array


def biadjacency(graph: KnowledgeGraph, kind: EdgeType) -> Sparse:
    """Which source has which target, as ones.

    Args:
        graph: on the CPU.
        kind: one of its edge types.

    Returns:
        Shape (sources, targets), float32, both numbered within their node type.
    """
    r = graph.edge_types.index(EdgeType(kind.dst_type, kind.relation, kind.src_type))
    rows, columns = graph.ends[r][1], graph.ends[r][0]
    indptr = graph.indptr_of(r).numpy()
    first, stop = graph.span(columns)
    targets = graph.src.numpy()[indptr[0] : indptr[-1]] - first
    num_rows = graph.span(rows)[1] - graph.span(rows)[0]
    return Sparse(
        (np.ones(len(targets), np.float32), targets, indptr - indptr[0]),
        shape=(num_rows, stop - first),
    )


def power(degrees: npt.ArrayLike, exponent: float = -DAMPING) -> npt.NDArray[np.float32]:
    """Degrees to a negative power, 0 where the degree is 0."""
    degree = np.asarray(degrees, np.float32)
    result = np.zeros_like(degree)
    np.power(degree, np.float32(exponent), out=result, where=degree > 0)
    return result


def damped(matrix: Sparse) -> Sparse:
    """Weight every step by the degrees of both of its ends."""
    rows, columns = power(matrix.sum(axis=1)), power(matrix.sum(axis=0))
    return scale(matrix, rows, columns)


def scale(matrix: Sparse, rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32]) -> Sparse:
    """Multiply rows and columns by weights."""
    data = matrix.data * np.repeat(rows, np.diff(matrix.indptr)) * columns[matrix.indices]
    return Sparse((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def unit_rows(matrix: Sparse) -> Sparse:
    """Rows of length 1 (or 0), so that their products are cosines."""
    squares = np.bincount(
        np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)),
        weights=matrix.data.astype(np.float64) ** 2,
        minlength=matrix.shape[0],
    )
    return scale(matrix, power(squares, -0.5), np.ones(matrix.shape[1], np.float32))


def rare_columns(matrix: Sparse) -> Sparse:
    """Rows of length 1 in which a column counts less the more rows have it."""
    columns = power((matrix != 0).sum(axis=0))
    return unit_rows(scale(matrix, np.ones(matrix.shape[0], np.float32), columns))


def word_profiles(names: list[str]) -> Sparse:
    """Which words a name holds, as `rare_columns`; the only use that is made of node names."""
    return _profiles([set(re.findall(r"[a-z]{3,}|\d+", name.lower())) for name in names])


def ending_profiles(names: list[str]) -> Sparse:
    """How a name's words begin and end: drugs of a class share a stem, such as -olol or cef-."""
    parts = []
    for name in names:
        words = re.findall(r"[a-z]{4,}", name.lower())
        ends = {word[-n:] + "$" for word in words for n in range(3, 8)}
        parts.append(ends | {"^" + word[:n] for word in words for n in range(3, 8)})
    return _profiles(parts)


def _profiles(parts: list[set[str]]) -> Sparse:
    vocabulary = {part: i for i, part in enumerate(sorted(set().union(*parts)))}
    columns = [vocabulary[part] for one in parts for part in sorted(one)]
    indptr = np.cumsum([0] + [len(one) for one in parts])
    ones = np.ones(len(columns), np.float32)
    return rare_columns(Sparse((ones, columns, indptr), shape=(len(parts), max(len(vocabulary), 1))))
