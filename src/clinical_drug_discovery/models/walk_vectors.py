"""Vectors of nodes from damped walks along the hierarchy of their type.

The walk matrix is W = sum over k = 1 to 8 of (0.7 P)^k, where P goes from a node to each of its
neighbors with the same probability. The vectors are the leading eigenvectors of its positive
pointwise mutual information, scaled by the roots of the eigenvalues. DeepWalk factorizes such a
matrix ("Network Embedding as Matrix Factorization", arXiv:1710.02971). Two steps of random
projection (`initialisation.structural_vectors`) do not see relatives that are further away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import qr
from scipy.sparse import coo_array, csr_array, vstack
from torch import Tensor

from ..graph.adjacency import Floats, power, scale
from ..system.machine import one_thread

_STEPS, _DAMPING = 8, 0.7
_LEAST = 0.003  # smaller entries of a step are left out; with 0.0001 the vectors are as good
_ROWS = 2048  # rows of W computed at a time
_MORE_COLUMNS, _ROUNDS = 32, 2  # of subspace iteration
# Bytes for each number of the basis: in float64, in which it is made orthogonal, and three copies.
_NUMBER = 20
# Bytes for each node, with 60 entries of W: while W is computed, and of the information.
_WALKS, _INFORMATION = 4000, 1000


@one_thread(True)  # the result does not depend on the number of threads
def walk_vectors(links: csr_array, dim: int, generator: torch.Generator) -> Tensor:
    """Return a vector for each node such that near nodes have similar vectors.

    It takes 3 s on one core for the 23,213 diseases of PrimeKG. The eigenvectors come from subspace
    iteration (Halko et al., arXiv:0909.4061, algorithm 4.4).

    Args:
        links: shape (n, n), symmetric 0/1 adjacency matrix.
        dim: length of a vector.
        generator: draws the start of the iteration.

    Returns:
        shape (n, dim), float32. Nodes without links, and columns beyond n, have 0.
    """
    information = _information(_walks(links))
    width = min(dim + _MORE_COLUMNS, len(links.indptr) - 1)
    basis = torch.randn(links.shape[0], width, generator=generator).numpy()
    for _ in range(_ROUNDS):
        basis = _orthogonal(np.asfortranarray(information @ basis, np.float64))
    inner = basis.T @ (information @ basis)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    leading = np.argsort(-values)[:dim]
    scaled = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0))
    result = torch.zeros(links.shape[0], dim)
    result[:, : len(leading)] = torch.from_numpy(basis @ scaled)
    return result


def _orthogonal(basis: npt.NDArray[np.float64]) -> Floats:
    """Return a basis of orthogonal columns of length 1, with the bits of `np.linalg.qr`.

    That function makes three copies in float64 in addition.

    Args:
        basis: by column; overwritten.
    """
    orthogonal, _ = qr(basis, mode="economic", overwrite_a=True, check_finite=False)
    return np.asarray(orthogonal, np.float32, order="C")


def walk_bytes(num_nodes: int, dim: int) -> int:
    """Predict the bytes that `walk_vectors` takes for a type with so many nodes."""
    return num_nodes * max(_WALKS, _INFORMATION + _NUMBER * (dim + _MORE_COLUMNS))


def _walks(links: csr_array) -> csr_array:
    """Return (W + W.T) / 2 without its smallest entries."""
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
    return csr_array((walks + walks.T) / 2)


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
