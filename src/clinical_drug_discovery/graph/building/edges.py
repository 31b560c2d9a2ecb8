"""Build the graph from its facts: add the reverse edges, and sort the edges by type and target.

One relation is sorted after the other. In memory, this takes 16 bytes for each edge of the largest
relation, and 8 for each fact. With a directory, all of these lie in files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ...system.errors import InputError
from ...system.limits.numbers import Numbers
from ..knowledge_graph import EdgeType, GraphArrays, IntArray, KnowledgeGraph, ReadReport
from ..vocabulary import recognize_vocabulary
from .facts import Facts, Mask
from .keys import Keys, SortedKeys, node_bits

_MAX_TABLE = 2**24  # possible pairs of node types in a table, 128 MB
MAX_EDGE_TYPES = 2**15 - 1  # of a graph
Pair = tuple[int, int]  #: the types of the lower and the higher node of a fact


@dataclass(frozen=True)
class NodeTypes:
    """The types of N nodes that are sorted by type.

    Attributes:
        names: the names of the T types, sorted.
        code: shape (N,), index into `names`, ascending; a compact type of integers.
        ptr: shape (T + 1,), the nodes of type t are from ptr[t] to ptr[t + 1].
    """

    names: tuple[str, ...]
    code: IntArray
    ptr: Keys

    @staticmethod
    def of(nodes: pl.DataFrame) -> NodeTypes:
        """Return the types of a table of nodes."""
        column = nodes["node_type"]
        names = tuple(column.unique().sort())
        code = column.cast(pl.Enum(names)).to_physical().to_numpy()
        return NodeTypes(names, code, np.searchsorted(code, np.arange(len(names) + 1)))


@dataclass(frozen=True)
class FactCounts:
    """The numbers of facts that are not left out.

    Attributes:
        of_pair: the number of facts of each relation by the types of their nodes.
        has_facts: shape (N,), the nodes with facts.
    """

    of_pair: Sequence[dict[Pair, int]]
    has_facts: Mask

    @property
    def num_facts(self) -> int:
        """Number of facts of all relations."""
        return sum(sum(pairs.values()) for pairs in self.of_pair)


def count_facts(facts: Facts, types: NodeTypes) -> FactCounts:
    """Count facts by relation and pair of node types, in one pass over the facts."""
    has_facts = np.zeros(len(types.code), bool)
    num_types = len(types.names)
    of_pair: list[dict[Pair, int]] = []
    for relation in range(facts.num_relations):
        pairs: dict[Pair, int] = {}
        for lower, higher in facts.of_relation(relation):
            has_facts[lower] = has_facts[higher] = True
            codes = types.code[lower].astype(np.int64) * num_types + types.code[higher]
            for code, count in _counted(codes, num_types * num_types):
                pair = divmod(code, num_types)
                pairs[pair] = pairs.get(pair, 0) + count
        of_pair.append(pairs)
    return FactCounts(of_pair, has_facts)


def _counted(codes: Keys, stop: int) -> list[tuple[int, int]]:
    """Return the distinct codes and how often each occurs.

    Args:
        codes: from 0 to `stop` - 1.
        stop: up to `_MAX_TABLE`, a table is used; np.unique, which sorts, is slower.
    """
    if stop > _MAX_TABLE:
        distinct, counts = np.unique(codes, return_counts=True)
    else:
        table = np.bincount(codes, minlength=stop)
        distinct = np.flatnonzero(table)
        counts = table[distinct]
    return list(zip(distinct.tolist(), counts.tolist(), strict=True))


def build_graph(
    nodes: pl.DataFrame,
    types: NodeTypes,
    facts: Facts,
    counts: FactCounts,
    relation_names: Sequence[str],
    report: ReadReport,
    directory: Path | None = None,
) -> KnowledgeGraph:
    """Build the graph from distinct undirected facts: add the reverse edges and sort them.

    Args:
        nodes: N rows, sorted by (node_type, node_index).
        types: the types of the nodes.
        facts: their nodes are row numbers in `nodes`.
        counts: of `count_facts`.
        relation_names: sorted names of the relations.
        report: stored in the graph.
        directory: of the files of the sources, the pointers and the sort; None: keep all in memory.

    Raises:
        InputError: the graph has more edge types than allowed.
        WriteError: the disk is full.
    """
    num_edges: dict[EdgeType, int] = {}
    for relation, pairs in zip(relation_names, counts.of_pair, strict=True):
        for (a, b), count in pairs.items():
            for one, other in {(a, b), (b, a)}:
                kind = EdgeType(types.names[one], relation, types.names[other])
                num_edges[kind] = count if a != b else 2 * count
    edge_types = tuple(sorted(num_edges))
    if len(edge_types) > MAX_EDGE_TYPES:
        raise InputError(
            f"the graph has {len(edge_types):,} edge types (source type, relation, target type); "
            f"at most {MAX_EDGE_TYPES:,} are allowed"
        )
    edges = _Edges(types, edge_types, num_edges, directory)
    for number, relation in enumerate(relation_names):
        edges.add(relation, facts, number, counts.of_pair[number])
    return KnowledgeGraph(
        GraphArrays(
            node_type=types.code.astype(np.int32),
            src=edges.src.array(),
            indptr=edges.indptr.array(),
            edge_type_ptr=edges.ptr,
            type_ptr=types.ptr,
        ),
        node_type_names=types.names,
        edge_types=edge_types,
        nodes=nodes,
        report=report,
        vocabulary=recognize_vocabulary({kind: num_edges[kind] for kind in edge_types}),
    )


class _Edges:
    """The edges of a graph, which are written to their places one relation after the other."""

    def __init__(
        self,
        types: NodeTypes,
        edge_types: Sequence[EdgeType],
        num_edges: dict[EdgeType, int],
        directory: Path | None,
    ) -> None:
        self._types, self._directory = types, directory
        self._rank = {kind: r for r, kind in enumerate(edge_types)}
        self.ptr = np.cumsum([0, *(num_edges[kind] for kind in edge_types)])
        sizes = dict(zip(types.names, np.diff(types.ptr).tolist(), strict=True))
        self._indptr_ptr = np.cumsum([0, *(sizes[kind.dst_type] + 1 for kind in edge_types)])
        self.src = Numbers(np.int32, int(self.ptr[-1]), directory)
        self.indptr = Numbers(np.int64, int(self._indptr_ptr[-1]), directory)

    def add(self, name: str, facts: Facts, relation: int, pairs: dict[Pair, int]) -> None:
        """Sort the edges of a relation, in both directions, and write them."""
        if not pairs:
            return
        types, bits = self._types, node_bits(len(self._types.code))
        num_types = len(types.names)
        directed = sorted({pair for both in pairs for pair in (both, both[::-1])})
        if len(directed) << 2 * bits >= 2**63:
            raise InputError(
                f"a relation of the graph joins {len(directed):,} pairs of node types; with "
                f"{len(types.code):,} nodes, less than {2**63 >> 2 * bits:,} are allowed"
            )
        codes = np.array([a * num_types + b for a, b in directed])
        position = _positions(codes, num_types * num_types)
        # Sorting one integer per edge is faster than a lexsort of three columns.
        keys = SortedKeys(2 * sum(pairs.values()), self._directory)
        for lower, higher in facts.of_relation(relation):
            for src, dst in ((lower, higher), (higher, lower)):
                code = types.code[src].astype(np.int64) * num_types + types.code[dst]
                key = position[code] if position is not None else np.searchsorted(codes, code)
                key <<= bits
                key |= dst
                key <<= bits
                key |= src
                keys.add(key)
        writers = [self._writer(name, a, b, bits) for a, b in directed]
        bounds = np.arange(len(directed) + 1) << 2 * bits
        for piece in keys.pieces():
            starts = np.searchsorted(piece, bounds)
            for number in np.flatnonzero(np.diff(starts)).tolist():
                edges = piece[starts[number] : starts[number + 1]]
                edges -= bounds[number]
                writers[number].add(edges)
        for writer in writers:
            writer.finish()

    def _writer(self, relation: str, src_type: int, dst_type: int, bits: int) -> _Writer:
        names = self._types.names
        r = self._rank[EdgeType(names[src_type], relation, names[dst_type])]
        first, stop = self._types.ptr[dst_type : dst_type + 2].tolist()
        at, pointer = int(self.ptr[r]), int(self._indptr_ptr[r])
        return _Writer(self.src, self.indptr, at, pointer, first, stop, bits)


@dataclass
class _Writer:
    """Writes the sorted edges of one type.

    Attributes:
        src: receives the source of each edge.
        indptr: receives the first edge of each target, and the end.
        at: position of the next edge in `src`.
        pointer: position of the next pointer in `indptr`.
        target: the target of this pointer.
        stop: one more than the last target.
        bits: number of bits of a node in a key.
    """

    src: Numbers
    indptr: Numbers
    at: int
    pointer: int
    target: int
    stop: int
    bits: int

    def add(self, edges: Keys) -> None:
        """Write the next edges, as keys of target and source."""
        last = int(edges[-1]) >> self.bits
        targets = np.arange(self.target, last + 1)
        self._point(np.searchsorted(edges, targets << self.bits))
        self.src.write(self.at, edges & ((1 << self.bits) - 1))
        self.at += len(edges)

    def finish(self) -> None:
        """Write the pointers of the targets after the last edge, and the end."""
        self._point(np.zeros(self.stop + 1 - self.target, np.int64))

    def _point(self, positions: Keys) -> None:
        positions += self.at
        self.indptr.write(self.pointer, positions)
        self.pointer += len(positions)
        self.target += len(positions)


def _positions(codes: Keys, stop: int) -> npt.NDArray[np.int64] | None:
    """Return the position of each number below `stop` among sorted codes; None if too many."""
    if stop > _MAX_TABLE:
        return None
    position = np.zeros(stop, np.int64)
    position[codes] = np.arange(len(codes))
    return position
