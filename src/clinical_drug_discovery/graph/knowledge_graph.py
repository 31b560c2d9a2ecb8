"""The knowledge graph: a frozen record of flat integer arrays, and a table of the nodes.

Notation: N nodes, E directed edges, T node types, R edge types. Every fact has an edge in both
directions, so the reverse of an edge type is an edge type of the graph, too. The forward and the
backward pass therefore use the same arrays.

The arrays are numpy's. Models compute with tensors of the same memory, which are made when they are
first used: the import of torch takes longer than a question to a saved model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ..system.errors import InputError, counted
from ..system.processes import cached_property
from .vocabulary import Vocabulary, VocabularyChoice, recognize_vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IntArray = npt.NDArray[np.integer]


class EdgeType(NamedTuple):
    """A relation from one node type to another."""

    src_type: str
    relation: str
    dst_type: str

    @property
    def reverse(self) -> EdgeType:
        """The same relation in the other direction."""
        return EdgeType(self.dst_type, self.relation, self.src_type)


@dataclass(frozen=True)
class ReadReport:
    """Numbers of rows, facts and nodes in an edges file."""

    num_rows: int
    num_duplicate_rows: int  #: dropped: another row has the same (x, relation, y)
    num_self_loops: int  #: dropped: x and y are the same node
    num_facts: int  #: distinct undirected facts among the remaining rows
    num_mirrored_facts: int  #: facts that the file has in both directions
    num_excluded_facts: int  #: facts left out by a filter (include_node_types, ...)
    num_excluded_nodes: int  #: nodes left out by include_node_types or limit_nodes
    num_nodes_without_facts: int = 0  #: nodes that stay although no fact of theirs does
    num_unused_nodes: int = 0  #: left out: nodes of a list of nodes that no row names
    num_skipped_rows: int = 0  #: not in num_rows: blank lines, and rows of nodes among the rows
    num_repeated_headers: int = 0  #: dropped: rows that repeat the header
    num_incomplete_rows: int = 0  #: dropped: rows that lack a field (on_missing)
    num_conflicting_nodes: int = 0  #: nodes with two names, types or numbers (on_conflict)
    num_respelled_nodes: int = 0  #: nodes with names that differ in blanks or Unicode form
    formats: tuple[str, ...] = ()  #: names of the formats of the files
    warnings: tuple[str, ...] = ()  #: for the user

    @property
    def spelling(self) -> str:
        """States if the file has each fact once, each in both directions, or a mixture."""
        if self.num_mirrored_facts == self.num_facts:
            return "each fact in both directions"
        if self.num_mirrored_facts == 0:
            return "each fact once (reverse edges added)"
        missing = self.num_facts - self.num_mirrored_facts
        return f"mixed ({missing:,} of {self.num_facts:,} facts once, reverse edges added)"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, the formats and the spelling for JSON."""
        record = {**asdict(self), "formats": list(self.formats), "spelling": self.spelling}
        del record["warnings"]  # the stats have them, with the other warnings of a run
        return record


class GraphArrays(NamedTuple):
    """The arrays of a graph; see `KnowledgeGraph`."""

    node_type: npt.NDArray[np.int32]  #: shape (N,): index into `node_type_names`
    src: npt.NDArray[np.int32]  #: shape (E,): source node of each edge
    #: The pointers p of all edge types, one type after the other; see `indptr_of`. An edge type
    #: with n target nodes has n + 1 pointers. Target i has the sources src[p[i]:p[i + 1]].
    indptr: npt.NDArray[np.int64]
    edge_type_ptr: npt.NDArray[np.int64]  #: shape (R + 1,): edges of type r are [r]:[r + 1]
    type_ptr: npt.NDArray[np.int64]  #: shape (T + 1,): nodes of type t are from [t] to [t + 1]


@dataclass(frozen=True)
class KnowledgeGraph:
    """A typed multigraph in which every edge has a reverse edge.

    Nodes are numbered by (node type, node_index), so a node type is a contiguous range. Edges are
    distinct and sorted by (edge_type, dst, src). Edges of one type therefore read the features of
    one node type, which stay in the CPU's cache. Neither order depends on the order of rows in the
    file. The type and target of each edge follow from the pointers and are not stored.

    Example:
        >>> graph = cdd.sample_graph()
        >>> graph.num_nodes, graph.num_edges, graph.relations[:2]
        (820, 5462, ('anatomy_protein_present', 'bioprocess_protein'))
    """

    is_data: ClassVar[bool] = True  #: for `system.arguments.plain`
    arrays: GraphArrays
    node_type_names: tuple[str, ...]  #: sorted
    edge_types: tuple[EdgeType, ...]  #: sorted
    nodes: pl.DataFrame  #: columns node_index, node_id, node_type, node_name, node_source
    report: ReadReport
    vocabulary: Vocabulary  #: the node types and relations that drug ranking needs

    def __repr__(self) -> str:
        types = counted(len(self.node_type_names), "type")
        relations = counted(len(self.relations), "relation")
        size = f"{self.num_nodes:,} nodes of {types}, {self.num_edges:,} edges of {relations}"
        return f"<KnowledgeGraph: {size}>"

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.arrays.node_type)

    @property
    def num_edges(self) -> int:
        """Number of directed edges E, two for each fact."""
        return len(self.arrays.src)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors on the CPU; `to` puts those of another device here."""
        import torch

        return {name: torch.from_numpy(array) for name, array in self.arrays._asdict().items()}

    @property
    def node_type(self) -> Tensor:
        """The type of each node."""
        return self._tensors["node_type"]

    @property
    def src(self) -> Tensor:
        """The source of each edge."""
        return self._tensors["src"]

    @property
    def indptr(self) -> Tensor:
        """The pointers of all edge types."""
        return self._tensors["indptr"]

    @property
    def type_ptr(self) -> Tensor:
        """The pointers of the node types."""
        return self._tensors["type_ptr"]

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.src.device

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The distinct relation names, sorted."""
        return tuple(sorted({edge_type.relation for edge_type in self.edge_types}))

    @cached_property
    def edge_type_relation(self) -> Tensor:
        """The index into `relations` for each edge type, shape (R,), int64."""
        import torch

        index = {relation: i for i, relation in enumerate(self.relations)}
        return torch.tensor([index[kind.relation] for kind in self.edge_types])

    @cached_property
    def type_offsets(self) -> tuple[int, ...]:
        """`type_ptr` as Python integers."""
        return tuple(self.arrays.type_ptr.tolist())

    @property
    def host(self) -> KnowledgeGraph:
        """The same graph on the CPU; reading from it does not wait for a GPU."""
        host: KnowledgeGraph = self.__dict__.get("_host", self)
        return host

    def node_range(self, node_type: int) -> tuple[int, int]:
        """Return (first, stop): the nodes of the type are first, first + 1, ..., stop - 1."""
        return self.type_offsets[node_type], self.type_offsets[node_type + 1]

    @cached_property
    def endpoint_types(self) -> tuple[tuple[int, int], ...]:
        """The source and target type of each edge type, as indices into `node_type_names`."""
        index = self.node_type_names.index
        return tuple((index(kind.src_type), index(kind.dst_type)) for kind in self.edge_types)

    @cached_property
    def reverse_edge_type(self) -> tuple[int, ...]:
        """The index of the reverse edge type, for each edge type."""
        index = {kind: r for r, kind in enumerate(self.edge_types)}
        return tuple(index[kind.reverse] for kind in self.edge_types)

    @cached_property
    def edge_type_counts(self) -> npt.NDArray[np.int64]:
        """The number of edges of each type, shape (R,)."""
        return np.diff(self.arrays.edge_type_ptr)

    @cached_property
    def indptr_ptr(self) -> list[int]:
        """The start in `indptr` of each edge type's pointers, and the end: R + 1 numbers."""
        sizes = np.diff(self.type_offsets)[[dst for _, dst in self.endpoint_types]] + 1
        return [0, *np.cumsum(sizes).tolist()]

    def indptr_of(self, edge_type: int) -> Tensor:
        """Return the pointers of one edge type with n target nodes, shape (n + 1,)."""
        return self.indptr[self.indptr_ptr[edge_type] : self.indptr_ptr[edge_type + 1]]

    def pointers_of(self, edge_type: int) -> npt.NDArray[np.int64]:
        """Return `indptr_of` as an array."""
        return self.arrays.indptr[self.indptr_ptr[edge_type] : self.indptr_ptr[edge_type + 1]]

    @cached_property
    def degrees(self) -> npt.NDArray[np.int64]:
        """The number of edges into each node, shape (N,)."""
        degrees = np.zeros(self.num_nodes, np.int64)
        for r, (_, dst) in enumerate(self.endpoint_types):
            degrees[slice(*self.node_range(dst))] += np.diff(self.pointers_of(r))
        return degrees

    @cached_property
    def degree(self) -> Tensor:
        """`degrees` as a tensor."""
        import torch

        return torch.from_numpy(self.host.degrees).to(self.device)

    @cached_property
    def sources(self) -> tuple[Tensor, ...]:
        """The distinct source nodes of each edge type, sorted; int64, numbered within the type."""
        if self.host is not self:
            return tuple(nodes.to(self.device) for nodes in self.host.sources)
        degrees = (self.indptr_of(r).diff() for r in self.reverse_edge_type)
        return tuple(degree.nonzero()[:, 0] for degree in degrees)

    @cached_property
    def reverse_edges(self) -> Tensor:
        """The number of the reverse edge of each edge, shape (E,), int32.

        The graph must be on the CPU. The result is kept and takes 4 bytes per edge.
        """
        import torch

        return torch.from_numpy(_reverse_edges(self))

    @property
    def edge_type(self) -> Tensor:
        """The type of each edge, shape (E,), int32; computed again at each access."""
        import torch

        kinds = torch.arange(len(self.edge_types), dtype=torch.int32, device=self.device)
        return kinds.repeat_interleave(self._tensors["edge_type_ptr"].diff())

    @property
    def dst(self) -> Tensor:
        """The target of each edge, shape (E,), int32; computed again at each access."""
        import torch

        return torch.cat([self.dst_of(r) for r in range(len(self.edge_types))])

    def src_of(self, edge_type: int) -> Tensor:
        """Return the source of each edge of a type, int32; a view of `src`."""
        start, stop = self.arrays.edge_type_ptr[edge_type : edge_type + 2].tolist()
        return self.src[start:stop]

    def sources_of(self, edge_type: int) -> npt.NDArray[np.int32]:
        """Return `src_of` as an array."""
        return self.arrays.src[slice(*self.arrays.edge_type_ptr[edge_type : edge_type + 2])]

    def targets_of(self, edge_type: int) -> npt.NDArray[np.int32]:
        """Compute `dst_of` as an array."""
        nodes = np.arange(*self.node_range(self.endpoint_types[edge_type][1]), dtype=np.int32)
        return np.repeat(nodes, np.diff(self.pointers_of(edge_type)))

    def dst_of(self, edge_type: int) -> Tensor:
        """Compute the target of each edge of a type, int32."""
        import torch

        first, stop = self.node_range(self.endpoint_types[edge_type][1])
        nodes = torch.arange(first, stop, dtype=torch.int32, device=self.device)
        return nodes.repeat_interleave(self.indptr_of(edge_type).diff())

    def to(self, device: torch.device) -> KnowledgeGraph:
        """Return the graph with all tensors on `device`; this graph if they are already there."""
        if device == self.device:
            return self
        if device == self.host.device:
            return self.host
        graph = replace(self)
        # Not fields: saving a graph must skip them.
        moved = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        graph.__dict__.update(_tensors=moved, _host=self.host)
        return graph

    def has_edges(self, src: IntArray, edge_type: IntArray, dst: IntArray) -> npt.NDArray[np.bool_]:
        """Return which triples (src, edge_type, dst) are edges; the graph must be on the CPU.

        The sources of each target are sorted, so a binary search finds a triple.

        Args:
            src: shape (K,), node numbers.
            edge_type: shape (K,), indices into `edge_types`.
            dst: shape (K,), node numbers, each of the target type of its edge type.

        Returns:
            shape (K,), True for triples that are edges.
        """
        indptr, edge_src = self.arrays.indptr, self.arrays.src
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


def _reverse_edges(graph: KnowledgeGraph) -> npt.NDArray[np.int32]:
    """Return the number of the reverse edge of each edge, by sorting each edge type by source."""
    from scipy.sparse import csr_array  # its import takes as long as a question about similar nodes

    reverse = np.empty(graph.num_edges, np.int32)
    bounds = list(pairwise(graph.arrays.edge_type_ptr.tolist()))
    for r, (start, stop) in enumerate(bounds):
        first, last = graph.node_range(graph.endpoint_types[r][0])
        indptr = (graph.pointers_of(r) - start).astype(np.int32)
        entries = (np.arange(start, stop, dtype=np.int32), graph.sources_of(r) - first, indptr)
        edges = csr_array(entries, shape=(len(indptr) - 1, last - first))
        # Column by column, the edge numbers (the data) are in the order of the reverse edges.
        reverse[slice(*bounds[graph.reverse_edge_type[r]])] = edges.tocsc().data
    return reverse


def without_edges(graph: KnowledgeGraph, removed: npt.NDArray[np.bool_]) -> KnowledgeGraph:
    """Return the graph without some edges and their reverse edges.

    The nodes, the order of the remaining edges and the list of edge types do not change, even if an
    edge type loses all edges. A model that was trained on the new graph can therefore also be used
    with the old graph. Both graphs share unchanged arrays, and `report` still describes the file.

    Args:
        graph: on the CPU.
        removed: shape (E,), True for edges to remove; their reverse edges are removed, too.
    """
    gone = removed.copy()
    gone[_reverse_edges(graph)[removed]] = True
    kept = np.zeros(graph.num_edges + 1, np.int64)
    np.cumsum(~gone, out=kept[1:])
    arrays = graph.arrays._replace(
        src=graph.arrays.src[~gone],
        indptr=kept[graph.arrays.indptr],
        edge_type_ptr=kept[graph.arrays.edge_type_ptr],
    )
    return replace(graph, arrays=arrays)


def with_vocabulary(graph: KnowledgeGraph, choice: VocabularyChoice) -> KnowledgeGraph:
    """Return the graph with the words that a user has chosen; see `recognize_vocabulary`."""
    counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
    return replace(graph, vocabulary=recognize_vocabulary(counts, choice))


def node_range_of(graph: KnowledgeGraph, node_type: str) -> tuple[int, int]:
    """Return the range of the nodes of a named type; see `KnowledgeGraph.node_range`.

    Raises:
        InputError: the graph does not have this node type.
    """
    if node_type not in graph.node_type_names:
        raise InputError(
            f"the graph contains no nodes of type {node_type!r}; its node types are "
            f"{', '.join(graph.node_type_names)}"
        )
    return graph.node_range(graph.node_type_names.index(node_type))


def edges_of(graph: KnowledgeGraph, edge_types: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return the source and the target of each edge of the given types, int32."""
    none = [np.empty(0, np.int32)]
    src = np.concatenate(none + [graph.sources_of(r) for r in edge_types])
    dst = np.concatenate(none + [graph.targets_of(r) for r in edge_types])
    return src, dst
