"""The knowledge graph: one frozen record of flat integer tensors, with ids and names beside it.

Notation: N nodes, E directed edges, T node types, R edge types. Every fact stands in both
directions, so the graph is its own transpose: one CSR structure serves the forward and the
backward pass. Nothing here reads files (see `tables`) or computes with features (see `ops`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from clinical_drug_discovery.errors import InputError

_MAX_EDGE_TYPES = np.iinfo(np.int16).max  # 16 bits are what makes sorting by edge type fast
IntArray = npt.NDArray[np.integer]


class EdgeType(NamedTuple):
    """A relation between two node types, in one direction."""

    src_type: str
    relation: str
    dst_type: str


@dataclass(frozen=True)
class ReadReport:
    """What a file held and what was done about it; every row of the file is accounted for."""

    num_rows: int
    num_duplicate_rows: int  #: dropped: the same (x, relation, y) stood before
    num_self_loops: int  #: dropped: x and y are the same node
    num_facts: int  #: distinct undirected facts among the remaining rows
    num_mirrored_facts: int  #: facts that the file itself writes in both directions
    num_excluded_facts: int  #: left out by include_node_types or limit_nodes
    num_excluded_nodes: int  #: left out by include_node_types or limit_nodes

    @property
    def spelling(self) -> str:
        """How the file writes its facts: in both directions, once, or mixed."""
        if self.num_mirrored_facts == self.num_facts:
            return "each fact in both directions"
        if self.num_mirrored_facts == 0:
            return "each fact once (reverse edges added)"
        missing = self.num_facts - self.num_mirrored_facts
        return f"mixed ({missing:,} of {self.num_facts:,} facts once, reverse edges added)"

    def to_dict(self) -> dict[str, Any]:
        """The counts and the spelling, ready for JSON."""
        return {**asdict(self), "spelling": self.spelling}


@dataclass(frozen=True)
class KnowledgeGraph:
    """A typed multigraph in which every edge has its mirror.

    Nodes are numbered by (node type, node_index), so a node type is a contiguous range; edges are
    sorted by (dst, edge_type, src) and distinct. Both orders depend on the facts alone, never on
    the order of the file's rows.
    """

    node_type: Tensor  #: shape (N,), int32: index into `node_type_names`
    src: Tensor  #: shape (E,), int32
    dst: Tensor  #: shape (E,), int32
    edge_type: Tensor  #: shape (E,), int32: index into `edge_types`
    indptr: Tensor  #: shape (N + 1,), int64: the edges into node i are indptr[i]:indptr[i + 1]
    type_ptr: Tensor  #: shape (T + 1,), int64: the nodes of type t are type_ptr[t]:type_ptr[t + 1]
    node_type_names: tuple[str, ...]  #: sorted
    edge_types: tuple[EdgeType, ...]  #: sorted
    nodes: pl.DataFrame  #: N rows: node_index, node_id, node_type, node_name, node_source
    report: ReadReport

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return self.node_type.numel()

    @property
    def num_edges(self) -> int:
        """Number of directed edges E; every fact counts twice."""
        return self.src.numel()

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The distinct relation names, sorted."""
        return tuple(sorted({edge_type.relation for edge_type in self.edge_types}))

    @cached_property
    def edge_type_relation(self) -> Tensor:
        """For each edge type its index into `relations`, shape (R,), int64."""
        index = {relation: i for i, relation in enumerate(self.relations)}
        return torch.tensor([index[edge_type.relation] for edge_type in self.edge_types])

    @cached_property
    def edges_by_type(self) -> list[npt.NDArray[np.int32]]:
        """For each edge type the numbers of its edges, ascending; needs the graph on the CPU.

        Sorted on first use and kept, at 4 bytes an edge.
        """
        # Integers of 16 bits get a radix sort.
        order = np.argsort(self.edge_type.numpy().astype(np.int16), kind="stable")
        return np.split(order.astype(np.int32), np.cumsum(self.edge_type_counts)[:-1])

    @cached_property
    def edge_type_counts(self) -> npt.NDArray[np.int64]:
        """For each edge type the number of its edges, shape (R,)."""
        return np.bincount(self.edge_type.cpu().numpy(), minlength=len(self.edge_types))

    def to(self, device: torch.device) -> KnowledgeGraph:
        """The same graph with its tensors on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
        return KnowledgeGraph(**moved)

    def has_edges(self, src: IntArray, edge_type: IntArray, dst: IntArray) -> npt.NDArray[np.bool_]:
        """Which of the triples (src, edge_type, dst) are facts; needs the graph on the CPU.

        A binary search within the sorted edges of each target: no table beside the graph is built.

        Args:
            src: shape (K,), node numbers.
            edge_type: shape (K,), indices into `edge_types`.
            dst: shape (K,), node numbers.

        Returns:
            shape (K,), True where the edge is in the graph.
        """
        indptr, edge_src, edge_kind = self.indptr.numpy(), self.src.numpy(), self.edge_type.numpy()
        low, end = indptr[dst], indptr[dst + 1]
        high = end.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            at = np.minimum(middle, self.num_edges - 1)
            kind = edge_kind[at]
            before = (kind < edge_type) | ((kind == edge_type) & (edge_src[at] < src))
            low = np.where(open_ & before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        at = np.minimum(low, self.num_edges - 1)
        found: npt.NDArray[np.bool_] = (
            (low < end) & (edge_kind[at] == edge_type) & (edge_src[at] == src)
        )
        return found


def build_graph(
    nodes: pl.DataFrame,
    src: IntArray,
    relation: IntArray,
    dst: IntArray,
    relation_names: tuple[str, ...],
    report: ReadReport,
) -> KnowledgeGraph:
    """Build the graph from distinct undirected facts: add every mirror, sort once.

    Args:
        nodes: N rows in graph order, i.e. sorted by (node_type, node_index).
        src: shape (F,), row numbers of `nodes`; a fact (a, r, b) never stands
            again as (b, r, a).
        relation: shape (F,), indices into `relation_names`.
        dst: shape (F,), row numbers of `nodes`.
        relation_names: sorted.
        report: what was read, kept beside the graph.

    Returns:
        The graph on the CPU. Beside the result the peak is about 40 bytes an edge, while sorting.
    """
    num_nodes = nodes.height
    type_names = tuple(nodes["node_type"].unique().sort())
    node_type = nodes["node_type"].cast(pl.Enum(type_names)).to_physical().to_numpy()
    num_types, num_relations = len(type_names), len(relation_names)

    def kind(a: IntArray, b: IntArray) -> npt.NDArray[np.int64]:
        """Edge type of a -> b as one integer that sorts as (src_type, relation, dst_type)."""
        code = node_type[a].astype(np.int64) * num_relations + relation
        return np.asarray(code * num_types + node_type[b], np.int64)

    # A table over all possible edge types instead of np.unique, which would sort E integers.
    edge_type = np.concatenate([kind(src, dst), kind(dst, src)])
    present = np.bincount(edge_type, minlength=num_types * num_relations * num_types) > 0
    codes = np.flatnonzero(present)
    if len(codes) > _MAX_EDGE_TYPES:
        raise InputError(
            f"the graph has {len(codes):,} edge types (source type, relation, target type); "
            f"at most {_MAX_EDGE_TYPES:,} are allowed"
        )
    edge_type = (np.cumsum(present) - 1)[edge_type]
    # One sort of one integer per edge is several times faster than a lexsort of three columns.
    node_bits = max(num_nodes - 1, 1).bit_length()
    type_bits = len(codes).bit_length()
    key = np.concatenate([dst, src]).astype(np.int64)
    key <<= type_bits
    key |= edge_type
    del edge_type
    key <<= node_bits
    key |= np.concatenate([src, dst])
    key.sort()
    edge_src = (key & ((1 << node_bits) - 1)).astype(np.int32)
    key >>= node_bits
    edge_kind = (key & ((1 << type_bits) - 1)).astype(np.int32)
    key >>= type_bits
    edge_dst = key.astype(np.int32)
    del key
    return KnowledgeGraph(
        node_type=torch.from_numpy(node_type.astype(np.int32)),
        src=torch.from_numpy(edge_src),
        dst=torch.from_numpy(edge_dst),
        edge_type=torch.from_numpy(edge_kind),
        indptr=torch.from_numpy(np.searchsorted(edge_dst, np.arange(num_nodes + 1))),
        type_ptr=torch.from_numpy(np.searchsorted(node_type, np.arange(num_types + 1))),
        node_type_names=type_names,
        edge_types=tuple(
            EdgeType(
                type_names[code // (num_types * num_relations)],
                relation_names[code // num_types % num_relations],
                type_names[code % num_types],
            )
            for code in codes.tolist()
        ),
        nodes=nodes,
        report=report,
    )
