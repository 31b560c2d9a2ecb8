"""Vectors of nodes from damped walks along the hierarchy of their type.

The walk matrix is W = sum over k = 1 to 8 of (0.7 P)^k, where P goes from a node to each of its
neighbors with the same probability. The vectors are the leading eigenvectors of its positive
pointwise mutual information, scaled by the roots of the eigenvalues. DeepWalk factorizes such a
matrix ("Network Embedding as Matrix Factorization", arXiv:1710.02971). Two steps of random
projection (`initialisation.structural_vectors`) do not see relatives that are further away.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, get_index_dtype, vstack
from torch import Tensor

from ..graph.adjacency import Floats, power, scale
from ..system.machine import one_thread, trim_heap

_STEPS, _DAMPING = 8, 0.7
_LEAST = 0.003  # smaller entries of a step are left out; with 0.0001 the vectors are as good
_ROWS = 2048  # rows of W computed at a time
_PART = 512  # rows of the basis that are in float64 at a time
_MORE_COLUMNS, _ROUNDS = 32, 2  # of subspace iteration
# A direction with a smaller share of the largest sum of squares may consist of rounding errors.
_DEPENDENT = 1e-12
# Bytes for each number of the basis and of its product with the information, and for each number of
# a square matrix with as many columns. The second figure is an upper bound of measured peaks: some
# such matrices in float64, and what BLAS and LAPACK take.
_NUMBER, _SQUARE = 8, 120
# Bytes for each node, with 60 entries of W: while W is computed, and of the information.
_WALKS, _INFORMATION = 2600, 1000


@one_thread(True)  # the result does not depend on the number of threads
def walk_vectors(links: csr_array, dim: int, generator: torch.Generator) -> Tensor:
    """Return a vector for each node such that near nodes have similar vectors.

    It takes 1.2 to 1.7 s on one core for 23,213 diseases, with 256 numbers each. The eigenvectors
    come from subspace iteration (Halko et al., arXiv:0909.4061, algorithm 4.4).

    Args:
        links: shape (n, n), symmetric 0/1 adjacency matrix.
        dim: length of a vector.
        generator: draws the start of the iteration.

    Returns:
        shape (n, dim), float32. Nodes without links, and columns beyond n, have 0.
    """
    information = _information(_walks(links))
    trim_heap()  # otherwise the process keeps the memory of the walks beside the basis
    width = min(dim + _MORE_COLUMNS, links.shape[0])
    basis: Floats = torch.randn(links.shape[0], width, generator=generator).numpy()
    for _ in range(_ROUNDS):
        basis = information @ basis
        _make_orthonormal(basis)
    inner = basis.T @ (information @ basis)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    leading = np.argsort(-values)[:dim]
    scaled = np.zeros((width, dim), np.float32)
    scaled[:, : len(leading)] = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0))
    return torch.from_numpy(basis @ scaled)


def _make_orthonormal(basis: Floats) -> None:
    """Replace the columns by orthonormal ones that span the same space, or by 0.

    With the eigenvalues L and eigenvectors V of Y.T Y, the columns of Y V L^-1/2 are orthonormal.
    This is the method SVQB without its scaling of the columns (Stathopoulos and Wu, SIAM J. Sci.
    Comput. 23(6), 2002, doi:10.1137/S1064827500370883). It takes a fraction of the time of a QR
    factorization, and the basis stays in float32. If the columns are linearly dependent, some of
    the results are 0.

    Args:
        basis: shape (n, width); overwritten.
    """
    products = np.zeros((basis.shape[1], basis.shape[1]))
    for start in range(0, len(basis), _PART):
        part = basis[start : start + _PART].astype(np.float64)  # small L need the digits
        products += part.T @ part
    values, vectors = np.linalg.eigh(products)
    factors = power(np.where(values > _DEPENDENT * values.max(), values, 0), -0.5)
    change = (vectors * factors).astype(np.float32)
    for start in range(0, len(basis), _PART):
        basis[start : start + _PART] = basis[start : start + _PART] @ change


def walk_bytes(num_nodes: int, dim: int) -> int:
    """Predict the bytes that `walk_vectors` takes for a type with so many nodes."""
    width = min(dim + _MORE_COLUMNS, num_nodes)
    return num_nodes * max(_WALKS, _INFORMATION + _NUMBER * width) + _SQUARE * width**2


def _walks(links: csr_array) -> csr_array:
    """Return (W + W.T) / 2 without its smallest entries."""
    # Indices of 32 bits, if they suffice, take half the memory. The products then have such, too.
    dtype = get_index_dtype(maxval=max(*links.shape, links.nnz))
    indices, indptr = links.indices.astype(dtype), links.indptr.astype(dtype)
    links = csr_array((links.data, indices, indptr), shape=links.shape)
    every = np.ones(links.shape[1], np.float32)
    step = scale(links, power(links.sum(axis=1), -1), every)
    parts = []
    for start in range(0, links.shape[0], _ROWS):
        part = total = _kept(_DAMPING * step[start : start + _ROWS])
        for _ in range(_STEPS - 1):
            part = _kept(_DAMPING * (part @ step))
            total = total + part
        parts.append(total)
    walks = csr_array(vstack(parts))
    parts.clear()
    walks = csr_array(walks + walks.T)
    walks.data /= 2
    return walks


def _kept(matrix: csr_array) -> csr_array:
    matrix.data[matrix.data < _LEAST] = 0
    matrix.eliminate_zeros()
    return matrix


def _information(walks: csr_array) -> csr_array:
    """Return log(w sum(W) / (row sum * column sum)) for the entries w that exceed chance."""
    sums: Floats = np.asarray(walks.sum(axis=1), np.float32)
    entries = coo_array(walks)
    expected = sums[entries.coords[0]] * sums[entries.coords[1]] / max(sums.sum(), 1e-30)
    information = np.log(np.maximum(entries.data / np.maximum(expected, 1e-30), 1))
    result = csr_array((information.astype(np.float32), entries.coords), shape=walks.shape)
    result.eliminate_zeros()
    return result
