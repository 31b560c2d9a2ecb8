"""Vectors of drugs carried along a graph's edges to its diseases, with learned weights.

Predict, then propagate (APPNP, arXiv:1810.05997), by sums alone, as LightGCN (arXiv:2002.02126) has
them, eq. 7; here every edge type and step has a weight of its own for each number of a vector, so
that other numbers travel by other metapaths.

Only edge types with a drug or a disease at an end count, and of those none with very many edges.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.graph.adjacency import Floats, adjacency, power, scale
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    EdgeType,
    IntArray,
    KnowledgeGraph,
)
from clinical_drug_discovery.ranking.treatments import TREATS, drug_disease_links, treatments

_TREATS = "treats"  # all relations that say that a drug treats a disease, as one
#: Most edges of a type, in one direction. Interactions of drugs are more: with them a step takes
#: half as long again, and no more was found.
MOST_EDGES = 400_000
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Links:
    """The edges of one type, each divided by the roots of its ends' degrees within the type."""

    src_type: str
    dst_type: str
    forth: Tensor  #: shape (targets, sources), CSR
    back: Tensor  #: its transpose


class Propagation:
    """What carries vectors of drugs to diseases; drugs and diseases are numbered within types."""

    def __init__(self, graph: KnowledgeGraph, num_steps: int) -> None:
        """Form the matrices of all edge types but those between drugs and diseases.

        Args:
            graph: on the CPU.
            num_steps: how far vectors are carried.

        Raises:
            InputError: the graph has no drugs, no diseases, or no drug that treats a disease.
        """
        known = treatments(graph)
        by_disease = csr_array(known.T)
        by_disease.sort_indices()
        self.num_drugs, self.num_diseases = known.shape
        #: shape (K,), the known pairs, sorted by disease, then drug
        self.drug: IntArray = by_disease.indices.astype(np.int64)
        self.disease: IntArray = np.repeat(
            np.arange(self.num_diseases), np.diff(by_disease.indptr)
        ).astype(np.int64)
        links = drug_disease_links(graph, None)
        others = {r: csr_array(link.T) for r, link in links.items() if r not in TREATS}
        self._between = {_TREATS: by_disease, **{r: m for r, m in others.items() if m.nnz}}
        self._known_at = [self._positions(matrix) for matrix in self._between.values()]
        self._fixed = _fixed_links(graph)
        ends = [(link.src_type, link.dst_type) for link in self._fixed]
        self._ends = ends + [(DRUG, DISEASE), (DISEASE, DRUG)] * len(self._between)
        self.node_types = sorted({t for pair in self._ends for t in pair})
        self._needed = _needed(self._ends, num_steps)
        self.num_steps, self.num_links = num_steps, len(self._ends)

    def links(self, hidden: Mask | None = None) -> list[Links]:
        """The matrices of all edge types as if some pairs stood under no relation at all.

        Args:
            hidden: shape (K,), of the known pairs.
        """
        found = list(self._fixed)
        for matrix, at in zip(self._between.values(), self._known_at, strict=True):
            left = matrix
            if hidden is not None:
                gone = (at >= 0) & hidden[at]
                data = np.where(gone, 0, matrix.data).astype(np.float32)
                parts = (data, matrix.indices, matrix.indptr)
                left = csr_array(parts, shape=matrix.shape, copy=True)  # changed in place
                left.eliminate_zeros()
            forth, back = _both_ways(left)
            found += [Links(DRUG, DISEASE, forth, back), Links(DISEASE, DRUG, back, forth)]
        return found

    def carry(self, x: Tensor, links: list[Links], weights: Tensor, own: Tensor) -> Tensor:
        """Carry vectors of drugs to diseases.

        Args:
            x: shape (drugs, C).
            links: see `links`.
            weights: shape (steps, edge types, C), of what comes along an edge.
            own: shape (steps, node types, C), of what a node had before.

        Returns:
            Shape (diseases, C).
        """
        at: dict[str, Tensor] = {DRUG: x}
        for step, needed in enumerate(self._needed):
            after = {t: h * own[step, self.node_types.index(t)] for t, h in at.items()}
            after = {t: h for t, h in after.items() if t in needed}
            for weight, link in zip(weights[step], links, strict=True):
                if link.src_type in at and link.dst_type in needed:
                    carried = _carry(at[link.src_type], weight, link)
                    before = after.get(link.dst_type)
                    after[link.dst_type] = carried if before is None else before + carried
            at = after
        return at[DISEASE]

    def _positions(self, matrix: csr_array) -> IntArray:
        """Which known pair each entry is, or -1; (diseases, drugs)."""
        row = np.repeat(np.arange(self.num_diseases), np.diff(matrix.indptr))
        keys = row * self.num_drugs + matrix.indices
        known = self.disease * self.num_drugs + self.drug
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, at, -1)


def _fixed_links(graph: KnowledgeGraph) -> list[Links]:
    """Those of all edge types that count and do not join drugs and diseases."""
    ends = {DRUG, DISEASE}
    forth: dict[EdgeType, Tensor] = {}
    for r, kind in enumerate(graph.edge_types):
        pair = {kind.src_type, kind.dst_type}
        count = int(graph.edge_type_counts[r])
        if not pair & ends or pair == ends or not 0 < count <= MOST_EDGES:
            continue
        mirror = EdgeType(kind.dst_type, kind.relation, kind.src_type)
        if mirror in forth and mirror != kind:
            continue
        forth[kind], forth[mirror] = _both_ways(adjacency(graph, mirror))
    return [
        Links(k.src_type, k.dst_type, m, forth[EdgeType(k.dst_type, k.relation, k.src_type)])
        for k, m in sorted(forth.items())
    ]


def _both_ways(matrix: csr_array) -> tuple[Tensor, Tensor]:
    """A matrix, each entry over the roots of its row's and column's sums; and its transpose."""
    rows, columns = power(matrix.sum(axis=1), -0.5), power(matrix.sum(axis=0), -0.5)
    normed = scale(matrix, rows, columns)
    return _to_torch(normed), _to_torch(csr_array(normed.T))


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


def _needed(ends: list[tuple[str, str]], num_steps: int) -> list[set[str]]:
    """For each step the node types that drugs' vectors reach by it and that diseases then need."""
    reached, needed = [{DRUG}], [{DISEASE}]
    for _ in range(num_steps):
        reached.append(reached[-1] | {dst for src, dst in ends if src in reached[-1]})
        needed.append(needed[-1] | {src for src, dst in ends if dst in needed[-1]})
    return [r & n for r, n in zip(reached[1:], needed[-2::-1], strict=True)]


def _carry(x: Tensor, weight: Tensor, link: Links) -> Tensor:
    result: Tensor = _Carry.apply(x, weight, link)  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


class _Carry(torch.autograd.Function):
    """(links x) weight. Of all that it computes, nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, link: Links) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.link = link
        return (link.forth @ x).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        carried = ctx.link.back @ grad
        by_weight: Floats = np.einsum("nc,nc->c", carried.numpy(), x.numpy())
        return carried.mul_(weight), torch.from_numpy(by_weight), None
