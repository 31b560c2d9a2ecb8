"""Which edges a layer looks at when edge types differ: one CSR structure per edge type.

Nodes and rows are numbered within their type here, so that the sources of an edge type index the
few rows that exist of it at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr
from clinical_drug_discovery.graph import KnowledgeGraph


@dataclass(frozen=True)
class TypedEdges:
    """The edges of one type into the rows of a block."""

    src_type: int
    dst_type: int
    by_target: Csr  #: rows: the block's rows of `dst_type`; entries: nodes of `src_type`
    by_source: Csr | None  #: the transpose, for the gradient; None: no backward pass


@dataclass(frozen=True)
class TypedBlock:
    """The edges of all types into M target rows, ordered by node type."""

    rows: Tensor | slice  #: the graph's nodes that are targets: shape (M,), int64, or a range
    row_ptr: tuple[int, ...]  #: the rows of type t are row_ptr[t]:row_ptr[t + 1]
    type_ptr: tuple[int, ...]  #: the nodes of type t are type_ptr[t]:type_ptr[t + 1]
    edges: tuple[TypedEdges, ...]  #: one per edge type, so in the order of their source types

    @property
    def num_rows(self) -> int:
        """Number of target rows M."""
        return self.row_ptr[-1]


class TypedGraph:
    """A graph's edges sorted by type, from which blocks are cut. 4 bytes an edge, on the host."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        """Sort the edges once.

        Args:
            graph: on the CPU.
        """
        self.type_ptr = tuple(graph.type_ptr.tolist())
        names = graph.node_type_names
        ends = [
            (names.index(kind.src_type), names.index(kind.dst_type)) for kind in graph.edge_types
        ]
        self._ends = ends
        self._mirror = [
            graph.edge_types.index(kind._replace(src_type=kind.dst_type, dst_type=kind.src_type))
            for kind in graph.edge_types
        ]
        order = np.argsort(graph.edge_type.numpy().astype(np.int16), kind="stable")
        counts = np.bincount(graph.edge_type.numpy(), minlength=len(ends))
        parts = np.split(order, np.cumsum(counts)[:-1])
        self._csr = []
        for (src_type, dst_type), edges in zip(ends, parts, strict=True):
            src = graph.src.numpy()[edges] - np.int32(self.type_ptr[src_type])
            dst = graph.dst.numpy()[edges] - self.type_ptr[dst_type]
            num_rows = self.type_ptr[dst_type + 1] - self.type_ptr[dst_type]
            indptr = np.searchsorted(dst, np.arange(num_rows + 1))
            self._csr.append(Csr(torch.from_numpy(indptr), torch.from_numpy(src)))

    def full_block(self, device: torch.device) -> TypedBlock:
        """All edges. An edge type's transpose is its mirror type, so nothing is built."""
        by_target = [csr.to(device) for csr in self._csr]
        by_source = [by_target[mirror] for mirror in self._mirror]
        return self._block(slice(0, self.type_ptr[-1]), self.type_ptr, by_target, by_source)

    def range_block(self, start: int, stop: int, device: torch.device) -> TypedBlock:
        """The edges into nodes start:stop, for inference."""
        clipped = [min(max(end, start), stop) for end in self.type_ptr]
        row_ptr = tuple(end - start for end in clipped)
        by_target = []
        for (_, dst_type), csr in zip(self._ends, self._csr, strict=True):
            first, last = (clipped[dst_type + i] - self.type_ptr[dst_type] for i in (0, 1))
            # A type that the range does not touch has an empty slice somewhere within its rows.
            first = min(max(first, 0), csr.num_rows)
            by_target.append(csr.range(first, max(last, first)).to(device))
        return self._block(slice(start, stop), row_ptr, by_target, [None] * len(by_target))

    def row_block(self, rows: Tensor, device: torch.device) -> TypedBlock:
        """The edges into the given nodes, for training on some rows of the last layer.

        Args:
            rows: shape (M,), int64, distinct and ascending.
            device: where the block is to live.
        """
        ends = np.searchsorted(rows.numpy(), self.type_ptr)
        row_ptr = tuple(ends.tolist())
        picked = [
            rows.numpy()[a:b] - start
            for a, b, start in zip(ends, ends[1:], self.type_ptr, strict=False)
        ]
        by_target, by_source = [], []
        for (_, dst_type), csr, mirror in zip(self._ends, self._csr, self._mirror, strict=True):
            by_target.append(csr.pick(picked[dst_type]).to(device))
            transposed = self._csr[mirror].keep(picked[dst_type], csr.num_rows)
            by_source.append(transposed.to(device))
        return self._block(rows.to(device), row_ptr, by_target, by_source)

    def _block(
        self,
        rows: Tensor | slice,
        row_ptr: tuple[int, ...],
        by_target: list[Csr],
        by_source: list[Csr] | list[None],
    ) -> TypedBlock:
        edges = tuple(
            TypedEdges(src_type, dst_type, forward, backward)
            for (src_type, dst_type), forward, backward in zip(
                self._ends, by_target, by_source, strict=True
            )
        )
        return TypedBlock(rows, row_ptr, self.type_ptr, edges)
