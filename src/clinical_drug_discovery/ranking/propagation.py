"""Propagate vectors of drugs along the edges of a graph to diseases, with learned weights.

Vectors are computed first and propagated afterwards, as in APPNP (arXiv:1810.05997). Each step is a
weighted sum of neighbors, as in LightGCN (arXiv:2002.02126, eq. 7). There is one weight for each
edge type, step and channel, so different channels can follow different metapaths. Only edge types
with a drug or a disease at one end are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..graph.adjacency import Floats, adjacency, power, scale
from ..graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph
from .treatments import drug_disease_matrices, treatments

#: Edge types with more edges are not used, except those between drugs and diseases. In PrimeKG this
#: leaves out drug interactions: with them, a step takes 50% longer, for the same ranking quality.
MAX_EDGES = 400_000
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NormalizedAdjacency:
    """The matrix of an edge type. Its entries are (source degree * target degree)^-0.5."""

    src_type: str
    dst_type: str
    matrix: Tensor  #: shape (targets, sources), CSR
    transpose: Tensor  #: shape (sources, targets), CSR


class Propagation:
    """Propagation on one graph; drugs and diseases are numbered within their types."""

    def __init__(self, graph: KnowledgeGraph, num_steps: int) -> None:
        """Build the matrices; `adjacencies` normalizes those between drugs and diseases.

        Args:
            graph: on the CPU.
            num_steps: number of propagation steps.

        Raises:
            InputError: the graph lacks drugs, diseases, or drugs that treat a disease.
        """
        known = treatments(graph)
        by_disease = csr_array(known.T)
        by_disease.sort_indices()
        self.num_drugs, self.num_diseases = known.shape
        #: shape (K,), the drugs of the known pairs, which are sorted by disease, then by drug
        self.drug: IntArray = by_disease.indices.astype(np.int64)
        self.disease: IntArray = np.repeat(
            np.arange(self.num_diseases), np.diff(by_disease.indptr)
        ).astype(np.int64)
        words = graph.vocabulary
        self._ends = (words.drug_type, words.disease_type)
        matrices = drug_disease_matrices(graph, None)
        others = [csr_array(m.T) for r, m in matrices.items() if r not in words.treats and m.nnz]
        self._between = [by_disease, *others]  # all treating relations in one matrix
        self._known_at = [self._positions(matrix) for matrix in self._between]
        self._fixed = _fixed_adjacencies(graph)
        ends = [(a.src_type, a.dst_type) for a in self._fixed]
        ends += [self._ends, self._ends[::-1]] * len(self._between)
        self.node_types = sorted({node_type for pair in ends for node_type in pair})
        self._needed = _needed_types(*self._ends, ends, num_steps)
        self.num_steps, self.num_edge_types = num_steps, len(ends)

    def adjacencies(self, hidden: Mask | None = None) -> list[NormalizedAdjacency]:
        """Return the matrices of all edge types, without known pairs in the mask `hidden` (K,)."""
        found = list(self._fixed)
        for matrix, at in zip(self._between, self._known_at, strict=True):
            left = matrix
            if hidden is not None:
                gone = (at >= 0) & hidden[at]
                data = np.where(gone, 0, matrix.data).astype(np.float32)
                parts = (data, matrix.indices, matrix.indptr)
                left = csr_array(parts, shape=matrix.shape, copy=True)  # eliminate_zeros changes it
                left.eliminate_zeros()
            forward, backward = _normalize(left)
            drug, disease = self._ends
            found.append(NormalizedAdjacency(drug, disease, forward, backward))
            found.append(NormalizedAdjacency(disease, drug, backward, forward))
        return found

    def propagate(
        self,
        x: Tensor,
        adjacencies: Sequence[NormalizedAdjacency],
        edge_weights: Tensor,
        self_weights: Tensor,
    ) -> Tensor:
        """Propagate vectors of drugs to diseases.

        Args:
            x: shape (drugs, C), one vector per drug.
            adjacencies: result of the method `adjacencies`.
            edge_weights: shape (steps, edge types, C), weights of the messages along edges.
            self_weights: shape (steps, node types, C), weights of a node's previous vector.

        Returns:
            Shape (diseases, C), one vector per disease.
        """
        vectors: dict[str, Tensor] = {self._ends[0]: x}
        for step, needed in enumerate(self._needed):
            after = {
                t: vector * self_weights[step, self.node_types.index(t)]
                for t, vector in vectors.items()
                if t in needed
            }
            for weight, adjacency_ in zip(edge_weights[step], adjacencies, strict=True):
                if adjacency_.src_type in vectors and adjacency_.dst_type in needed:
                    message = _message(vectors[adjacency_.src_type], weight, adjacency_)
                    before = after.get(adjacency_.dst_type)
                    after[adjacency_.dst_type] = message if before is None else before + message
            vectors = after
        return vectors[self._ends[1]]

    def _positions(self, matrix: csr_array) -> IntArray:
        """Return the index of each entry (disease, drug) among the known pairs; -1: not known."""
        row = np.repeat(np.arange(self.num_diseases), np.diff(matrix.indptr))
        keys = row * self.num_drugs + matrix.indices
        known = self.disease * self.num_drugs + self.drug
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, at, -1)


def _fixed_adjacencies(graph: KnowledgeGraph) -> list[NormalizedAdjacency]:
    """Build the matrices of edge types that touch drugs or diseases, but do not join the two."""
    ends = {graph.vocabulary.drug_type, graph.vocabulary.disease_type}
    matrices: dict[EdgeType, Tensor] = {}
    for r, kind in enumerate(graph.edge_types):
        pair, backward = {kind.src_type, kind.dst_type}, kind.reverse
        count = int(graph.edge_type_counts[r])
        if not pair & ends or pair == ends or not 0 < count <= MAX_EDGES:
            continue
        if backward not in matrices or backward == kind:
            matrices[kind], matrices[backward] = _normalize(adjacency(graph, backward))
    return [
        NormalizedAdjacency(kind.src_type, kind.dst_type, m, matrices[kind.reverse])
        for kind, m in sorted(matrices.items())
    ]


def _normalize(matrix: csr_array) -> tuple[Tensor, Tensor]:
    """Divide each entry by sqrt(row sum * column sum); return the matrix and the transpose."""
    rows, columns = power(matrix.sum(axis=1), -0.5), power(matrix.sum(axis=0), -0.5)
    normalized = scale(matrix, rows, columns)
    return _to_torch(normalized), _to_torch(csr_array(normalized.T))


def _to_torch(matrix: csr_array) -> Tensor:
    matrix.sort_indices()
    indptr, indices = (
        torch.from_numpy(part.astype(np.int32)) for part in (matrix.indptr, matrix.indices)
    )
    values = torch.from_numpy(matrix.data.astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            indptr, indices, values, size=matrix.shape, check_invariants=False
        )


def _needed_types(
    drug: str, disease: str, ends: list[tuple[str, str]], num_steps: int
) -> list[set[str]]:
    """Return for each step the node types that lie on a path from drugs to diseases."""
    reached, needed = [{drug}], [{disease}]
    for _ in range(num_steps):
        reached.append(reached[-1] | {dst for src, dst in ends if src in reached[-1]})
        needed.append(needed[-1] | {src for src, dst in ends if dst in needed[-1]})
    return [r & n for r, n in zip(reached[1:], needed[-2::-1], strict=True)]


def _message(x: Tensor, weight: Tensor, adjacency_: NormalizedAdjacency) -> Tensor:
    result: Tensor = _Message.apply(x, weight, adjacency_)  # type: ignore[no-untyped-call]  # torch does not type it
    return result


class _Message(torch.autograd.Function):
    """(matrix @ x) * weight. To save memory, matrix @ x is not kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, adjacency_: NormalizedAdjacency) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transpose = adjacency_.transpose
        return (adjacency_.matrix @ x).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        product = ctx.transpose @ grad
        grad_weight: Floats = np.einsum("nc,nc->c", product.numpy(), x.numpy())
        return product.mul_(weight), torch.from_numpy(grad_weight), None
