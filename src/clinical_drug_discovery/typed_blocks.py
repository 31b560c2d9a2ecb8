"""Which edges a layer looks at when edge types differ: one CSR structure per edge type.

Nodes and rows are numbered within their type here, so that the sources of an edge type index the
few rows that exist of it at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr
from clinical_drug_discovery.graph import KnowledgeGraph


@dataclass(frozen=True)
class TypedEdges:
    """The edges of one type into the rows of a block.

    Only nodes that have such an edge take part, numbered by their places in `sources` and
    `targets`: of PrimeKG's edge types most touch a small part of their node types.
    """

    src_type: int
    dst_type: int
    sources: Tensor  #: nodes of `src_type`, numbered within their type: int64, ascending
    targets: Tensor  #: the block's rows of `dst_type`, numbered from their first: int64, ascending
    by_target: Csr  #: rows: places in `targets`; entries: places in `sources`
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
        self._ends = [
            (names.index(kind.src_type), names.index(kind.dst_type)) for kind in graph.edge_types
        ]
        self._mirror = [
            graph.edge_types.index(kind._replace(src_type=kind.dst_type, dst_type=kind.src_type))
            for kind in graph.edge_types
        ]
        # Per edge type its targets, where their edges start and end, and all sources.
        targets, ends, sources = [], [], []
        for (src_type, dst_type), edges in zip(self._ends, graph.edges_by_type, strict=True):
            dst = graph.dst.numpy()[edges] - np.int32(self.type_ptr[dst_type])
            first = np.flatnonzero(np.diff(dst, prepend=-1))
            targets.append(dst[first].astype(np.int64))
            ends.append(np.append(first, len(dst)))
            sources.append(graph.src.numpy()[edges] - np.int32(self.type_ptr[src_type]))
        self._targets = targets
        self._csr = []
        for mirror, indptr, src in zip(self._mirror, ends, sources, strict=True):
            # What is a target of the mirror type is a source of this one.
            place = np.zeros(targets[mirror][-1] + 1, np.int32)
            place[targets[mirror]] = np.arange(len(targets[mirror]), dtype=np.int32)
            self._csr.append(Csr(torch.from_numpy(indptr), torch.from_numpy(place[src])))

    def full_block(self, device: torch.device) -> TypedBlock:
        """All edges. An edge type's transpose is its mirror type, so nothing is built."""
        by_target = [csr.to(device) for csr in self._csr]
        by_source = [by_target[mirror] for mirror in self._mirror]
        rows = slice(0, self.type_ptr[-1])
        return self._block(rows, self.type_ptr, self._targets, by_target, by_source)

    def range_block(self, start: int, stop: int, device: torch.device) -> TypedBlock:
        """The edges into nodes start:stop, for inference."""
        row_ptr = tuple(min(max(end, start), stop) - start for end in self.type_ptr)
        targets, by_target = [], []
        for (_, dst_type), csr, whole in zip(self._ends, self._csr, self._targets, strict=True):
            begin = start + row_ptr[dst_type] - self.type_ptr[dst_type]
            end = start + row_ptr[dst_type + 1] - self.type_ptr[dst_type]
            first, last = np.searchsorted(whole, (begin, end))
            targets.append(whole[first:last] - begin)
            by_target.append(csr.range(first, last).to(device))
        return self._block(slice(start, stop), row_ptr, targets, by_target, [None] * len(by_target))

    def row_block(self, rows: Tensor, device: torch.device) -> TypedBlock:
        """The edges into the given nodes, for training on some rows of the last layer.

        Args:
            rows: shape (M,), int64, distinct and ascending.
            device: where the block is to live.
        """
        row_ptr = tuple(np.searchsorted(rows.numpy(), self.type_ptr).tolist())
        targets, by_target, by_source = [], [], []
        for (_, dst_type), csr, whole, mirror in zip(
            self._ends, self._csr, self._targets, self._mirror, strict=True
        ):
            wanted = rows.numpy()[row_ptr[dst_type] : row_ptr[dst_type + 1]]
            _, at, places = np.intersect1d(
                wanted - self.type_ptr[dst_type], whole, assume_unique=True, return_indices=True
            )
            targets.append(at)
            by_target.append(csr.pick(places).to(device))
            by_source.append(self._csr[mirror].keep(places, len(whole)).to(device))
        return self._block(rows.to(device), row_ptr, targets, by_target, by_source)

    def _block(
        self,
        rows: Tensor | slice,
        row_ptr: tuple[int, ...],
        targets: list[npt.NDArray[np.int64]],
        by_target: list[Csr],
        by_source: list[Csr] | list[None],
    ) -> TypedBlock:
        place = by_target[0].indptr.device
        edges = tuple(
            TypedEdges(
                *ends,
                torch.from_numpy(self._targets[mirror]).to(place),
                torch.from_numpy(at).to(place),
                forward,
                backward,
            )
            for ends, mirror, at, forward, backward in zip(
                self._ends, self._mirror, targets, by_target, by_source, strict=True
            )
        )
        return TypedBlock(rows, row_ptr, self.type_ptr, edges)
