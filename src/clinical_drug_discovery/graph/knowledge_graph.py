"""The knowledge graph: one frozen record of flat integer tensors, with ids and names beside it.

Notation: N nodes, E directed edges, T node types, R edge types. Every fact stands in both
directions, so an edge type's transpose is another edge type of the same graph: one structure serves
the forward and the backward pass. Nothing here reads files (see `tables`) or computes with features
(see `ops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse
import torch
from torch import Tensor

from clinical_drug_discovery.graph.chunks import steady_size, window_rows
from clinical_drug_discovery.graph.dedup import sort_integers
from clinical_drug_discovery.system.errors import InputError

_MAX_EDGE_TYPES = 2**15 - 1  # far more than any graph has; their sort key needs the bits
_SOURCE_CHUNK = 8_192  # of nodes whose heads are multiplied at a time
_CHUNK_COST = 1_024  # what the launches of such a chunk cost, in nodes
#: The node types that the ranking of drugs is about, as PrimeKG names them.
DRUG, DISEASE = "drug", "disease"
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
    sorted by (edge_type, dst, src) and distinct. Both orders depend on the facts alone, never on
    the order of the file's rows. Sorted so, one edge type reads the rows of one node type, which
    lie in the cache together, and neither the type nor the target of an edge has to be kept.
    """

    node_type: Tensor  #: shape (N,), int32: index into `node_type_names`
    src: Tensor  #: shape (E,), int32
    #: int64, for each edge type one after the other n + 1 numbers for the n nodes of its target
    #: type: the edges of that type into the i-th of them stand in `src` from indptr[i] to
    #: indptr[i + 1]; see `indptr_of`
    indptr: Tensor
    edge_type_ptr: Tensor  #: shape (R + 1,), int64: where in `src` the edges of each type stand
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

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.src.device

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
    def type_offsets(self) -> tuple[int, ...]:
        """`type_ptr` as plain numbers."""
        return tuple(self.host.type_ptr.tolist())

    @property
    def host(self) -> KnowledgeGraph:
        """The same graph on the CPU, from which sizes are read without waiting for a device."""
        host: KnowledgeGraph = self.__dict__.get("_host", self)
        return host

    def node_range(self, node_type: int) -> tuple[int, int]:
        """The first node of a type, and what follows its last."""
        return self.type_offsets[node_type], self.type_offsets[node_type + 1]

    @cached_property
    def room(self) -> int:
        """For how many nodes buffers of a single type have room: the largest, or a window."""
        most = max(last - first for first, last in pairwise(self.type_offsets))
        return max(most, window_rows(self.num_nodes))

    def view_of(self, node_type: int) -> slice:
        """`room` nodes, those of a type among them: for GPUs, where shapes should not differ."""
        first = min(self.type_offsets[node_type], self.num_nodes - self.room)
        return slice(first, first + self.room)

    @cached_property
    def endpoint_types(self) -> tuple[tuple[int, int], ...]:
        """For each edge type its source and its target type, as indices into `node_type_names`."""
        index = {name: t for t, name in enumerate(self.node_type_names)}
        return tuple((index[kind.src_type], index[kind.dst_type]) for kind in self.edge_types)

    @cached_property
    def reverse_edge_type(self) -> tuple[int, ...]:
        """For each edge type the one that holds its edges the other way round."""
        index = {kind: r for r, kind in enumerate(self.edge_types)}
        return tuple(
            index[EdgeType(kind.dst_type, kind.relation, kind.src_type)] for kind in self.edge_types
        )

    @cached_property
    def edge_type_counts(self) -> npt.NDArray[np.int64]:
        """For each edge type the number of its edges, shape (R,)."""
        return self.host.edge_type_ptr.diff().numpy()

    @cached_property
    def indptr_ptr(self) -> list[int]:
        """Where in `indptr` the numbers of each edge type stand."""
        sizes = [
            self.type_offsets[dst + 1] - self.type_offsets[dst] + 1
            for _, dst in self.endpoint_types
        ]
        return [0, *np.cumsum(sizes).tolist()]

    def indptr_of(self, edge_type: int) -> Tensor:
        """Where the edges of a type start and end for each node of its target type, (n + 1,)."""
        return self.indptr[self.indptr_ptr[edge_type] : self.indptr_ptr[edge_type + 1]]

    @cached_property
    def degree(self) -> Tensor:
        """For each node the number of edges into it, shape (N,), int64."""
        if self.host is not self:
            return self.host.degree.to(self.device)
        degree = np.zeros(self.num_nodes, np.int64)  # not torch's: many small sums
        for r, (_, dst) in enumerate(self.endpoint_types):
            degree[slice(*self.node_range(dst))] += np.diff(self.indptr_of(r).numpy())
        return torch.from_numpy(degree)

    @cached_property
    def sources(self) -> tuple[Tensor, ...]:
        """For each edge type the nodes with such an edge out of them, numbered within their type.

        Of PrimeKG's edge types most touch a small part of their node types. int64, ascending.
        """
        if self.host is not self:
            return tuple(nodes.to(self.device) for nodes in self.host.sources)
        degrees = (self.indptr_of(mirror).diff() for mirror in self.reverse_edge_type)
        return tuple(degree.nonzero()[:, 0] for degree in degrees)

    @cached_property
    def source_chunks(self) -> tuple[tuple[Tensor, ...], ...]:
        """`sources` for GPUs, numbered as in `view_of`: in chunks of one size, filled up."""
        size = steady_size([len(nodes) for nodes in self.host.sources], _SOURCE_CHUNK, _CHUNK_COST)
        chunks = []
        for (src, _), nodes in zip(self.endpoint_types, self.host.sources, strict=True):
            first = self.type_offsets[src] - self.view_of(src).start
            starts = range(0, len(nodes), size)
            places = [torch.arange(start, start + size) for start in starts]
            filled = [nodes[place.clamp_(max=len(nodes) - 1)] + first for place in places]
            chunks.append(tuple(chunk.to(self.device) for chunk in filled))
        return tuple(chunks)

    @cached_property
    def reverse_edges(self) -> Tensor:
        """Number of each edge's reverse edge, shape (E,), int32; needs the graph on the CPU.

        Computed on first use and kept, at 4 bytes an edge.
        """
        reverse = np.empty(self.num_edges, np.int32)
        edges = np.arange(self.num_edges, dtype=np.int32)
        ptr, src = self.edge_type_ptr.tolist(), self.src.numpy()
        for r, (src_type, _) in enumerate(self.endpoint_types):
            first, last = self.node_range(src_type)
            own, back = (slice(ptr[k], ptr[k + 1]) for k in (r, self.reverse_edge_type[r]))
            indptr = self.indptr_of(r).numpy() - ptr[r]
            by_target = scipy.sparse.csr_array(
                (edges[own], src[own] - np.int32(first), indptr.astype(np.int32)),
                shape=(len(indptr) - 1, last - first),
            )
            # Sorted by source and then by target: the order of the reverse edges.
            reverse[by_target.tocsc().data] = edges[back]
        return torch.from_numpy(reverse)

    @property
    def edge_type(self) -> Tensor:
        """Type of each edge, shape (E,), int32; made anew, 4 bytes an edge."""
        kinds = torch.arange(len(self.edge_types), dtype=torch.int32, device=self.device)
        return kinds.repeat_interleave(self.edge_type_ptr.diff())

    @property
    def dst(self) -> Tensor:
        """Target of each edge, shape (E,), int32; made anew, 4 bytes an edge."""
        return torch.cat([self.dst_of(r) for r in range(len(self.edge_types))])

    def src_of(self, edge_type: int) -> Tensor:
        """Source of each edge of a type, int32; a view."""
        start, stop = self.edge_type_ptr[edge_type : edge_type + 2].tolist()
        return self.src[start:stop]

    def dst_of(self, edge_type: int) -> Tensor:
        """Target of each edge of a type, int32; made anew."""
        first, stop = self.node_range(self.endpoint_types[edge_type][1])
        nodes = torch.arange(first, stop, dtype=torch.int32, device=self.device)
        return nodes.repeat_interleave(self.indptr_of(edge_type).diff())

    def to(self, device: torch.device) -> KnowledgeGraph:
        """The same graph with its tensors on `device`; itself if they are there."""
        if device == self.device:
            return self
        if device == self.host.device:
            return self.host
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
        graph = KnowledgeGraph(**moved)
        object.__setattr__(graph, "_host", self.host)  # no field: it is the same graph
        return graph

    def has_edges(self, src: IntArray, edge_type: IntArray, dst: IntArray) -> npt.NDArray[np.bool_]:
        """Which of the triples (src, edge_type, dst) are facts; needs the graph on the CPU.

        A binary search within the sorted sources of each target: no table beside the graph is
        built.

        Args:
            src: shape (K,), node numbers.
            edge_type: shape (K,), indices into `edge_types`.
            dst: shape (K,), node numbers, each of its edge type's target type.

        Returns:
            shape (K,), True where the edge is in the graph.
        """
        indptr, edge_src = self.indptr.numpy(), self.src.numpy()
        first = np.array([self.type_offsets[t] for _, t in self.endpoint_types])
        at_dst = np.array(self.indptr_ptr)[edge_type] + dst - first[edge_type]
        low, end = indptr[at_dst], indptr[at_dst + 1]
        high = end.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = edge_src[np.minimum(middle, self.num_edges - 1)] < src
            low = np.where(open_ & before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        found: npt.NDArray[np.bool_] = low < end
        found &= edge_src[np.minimum(low, self.num_edges - 1)] == src
        return found


def without_edges(graph: KnowledgeGraph, removed: npt.NDArray[np.bool_]) -> KnowledgeGraph:
    """The same nodes with fewer edges; an edge leaves together with its mirror.

    Node numbers, the order of the edges and the list of edge types stay, even of a type that loses
    all its edges: a model of what is left is also one of the whole. `report` still tells of the
    file that was read.

    Args:
        graph: on the CPU.
        removed: shape (E,), True for the edges to remove, of which one direction is enough.

    Returns:
        A graph of its own edges that shares what has not changed.
    """
    gone = removed.copy()
    bounds = list(pairwise(graph.edge_type_ptr.tolist()))
    for (start, stop), mirror in zip(bounds, graph.reverse_edge_type, strict=True):
        if removed[start:stop].any():
            # Those that leave a node arrive in the order that its mirror type has.
            order = np.argsort(graph.src[start:stop].numpy(), kind="stable")
            gone[slice(*bounds[mirror])] |= removed[start:stop][order]
    kept = np.zeros(graph.num_edges + 1, np.int64)
    np.cumsum(~gone, out=kept[1:])
    return replace(
        graph,
        src=torch.from_numpy(graph.src.numpy()[~gone]),
        indptr=torch.from_numpy(kept[graph.indptr.numpy()]),
        edge_type_ptr=torch.from_numpy(kept[graph.edge_type_ptr.numpy()]),
    )


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
    bits = max(num_nodes - 1, 1).bit_length()
    key = edge_type.astype(np.int64)
    del edge_type
    key <<= bits
    key |= np.concatenate([dst, src])
    key <<= bits
    key |= np.concatenate([src, dst])
    sort_integers(key)
    edge_src = (key & ((1 << bits) - 1)).astype(np.int32)
    key >>= bits
    type_ptr = np.searchsorted(node_type, np.arange(num_types + 1))
    starts = [  # of each edge type, the keys of its target type's nodes and of what follows them
        (r << bits) + np.arange(type_ptr[code % num_types], type_ptr[code % num_types + 1] + 1)
        for r, code in enumerate(codes.tolist())
    ]
    return KnowledgeGraph(
        node_type=torch.from_numpy(node_type.astype(np.int32)),
        src=torch.from_numpy(edge_src),
        indptr=torch.from_numpy(np.searchsorted(key, np.concatenate(starts))),
        edge_type_ptr=torch.from_numpy(np.searchsorted(key, np.arange(len(codes) + 1) << bits)),
        type_ptr=torch.from_numpy(type_ptr),
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


def node_range_of(graph: KnowledgeGraph, node_type: str) -> tuple[int, int]:
    """The first node of a type, and what follows its last.

    Raises:
        InputError: the graph has no such nodes.
    """
    if node_type not in graph.node_type_names:
        raise InputError(
            f"the graph has no nodes of type {node_type!r}, only {', '.join(graph.node_type_names)}"
        )
    return graph.node_range(graph.node_type_names.index(node_type))


def edges_of(graph: KnowledgeGraph, edge_types: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Sources and targets of all edges of some types, int32; of none where there are no types."""
    none = [np.empty(0, np.int32)]
    src = np.concatenate(none + [graph.src_of(r).numpy() for r in edge_types])
    dst = np.concatenate(none + [graph.dst_of(r).numpy() for r in edge_types])
    return src, dst
