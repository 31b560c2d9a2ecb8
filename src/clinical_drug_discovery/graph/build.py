"""Build the graph from rows of integers: number the nodes, drop duplicate facts, sort the edges.

A row is packed into one 64-bit integer (relation, lower node, higher node, direction). Sorting puts
duplicate rows and the two directions of a fact next to each other. Integers are reused in place
because the first write to a page of memory takes twenty times as long as a later write.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from ..system.errors import InputError
from .knowledge_graph import EdgeType, GraphArrays, IntArray, KnowledgeGraph, ReadReport
from .vocabulary import recognize_vocabulary

Keys = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]

_MAX_TABLE = 2**24  # possible edge types in a table, 128 MB
MAX_EDGE_TYPES = 2**15 - 1  # the sort key has 15 bits for the edge type
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio; multiplying a hash by it mixes the bits
_MOST_COPIED = 2**24  # keys that are copied to be sorted; 16 bytes for each
_MIN_BITS = 18  # log2 of the smallest number of slots
# Least number of slots for a key. With 8, one key in sixteen finds its slot taken. For many keys,
# so many slots would take more memory than the keys.
_SLOTS_PER_KEY, _SLOTS_OF_MANY, _MANY_KEYS = 8, 2, 2**21
_INSERTED = 2**20  # keys that are given slots at a time


class Numbering:
    """A hash table that numbers distinct 64-bit hashes 0, 1, 2, ... in the order they are added.

    Nearly every look-up reads one slot. This is five times as fast as a join or a binary search. It
    also does not wait for polars' thread pool, which is busy with reading the file. A key whose
    slot is taken has the next free slot (linear probing).
    """

    def __init__(self) -> None:
        self._room: Hashes = np.empty(0, np.uint64)  # the keys, and space for more
        self._keys = self._room
        self._bits = _MIN_BITS
        self._slots: Numbers = np.full(1 << self._bits, -1, np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Hashes) -> Numbers:
        """Return the number of each key, or -1 for a key that was never added."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        slots = self._slot(keys)
        found = self._slots[slots]
        # For an empty slot, the index -1 reads the last key. It cannot equal the wanted key: the
        # wanted key would have taken the slot.
        other = np.flatnonzero(self._keys[found] != keys)
        while len(other):
            other = other[found[other] >= 0]
            slots[other] = self._after(slots[other])
            found[other] = self._slots[slots[other]]
            other = other[self._keys[found[other]] != keys[other]]
        return found

    def add(self, keys: Hashes) -> None:
        """Number new keys in the given order; they must be distinct and not yet in the table."""
        first, size = len(self), len(self) + len(keys)
        if size > len(self._room):
            room = np.empty(size + size // 4, np.uint64)
            room[:first] = self._keys
            self._room = room
        self._room[first:size] = keys
        self._keys = self._room[:size]
        per_key = _SLOTS_PER_KEY if size < _MANY_KEYS else _SLOTS_OF_MANY
        if size * per_key > len(self._slots):
            self._bits = (size * per_key * 2).bit_length()
            self._slots = np.full(1 << self._bits, -1, np.int32)
            first = 0
        for start in range(first, size, _INSERTED):
            self._insert(np.arange(start, min(start + _INSERTED, size), dtype=np.int32))

    def _insert(self, numbers: Numbers) -> None:
        slots = self._slot(self._keys[numbers])
        while len(numbers):
            free = self._slots[slots] < 0
            self._slots[slots[free]] = numbers[free]
            left = self._slots[slots] != numbers
            numbers, slots = numbers[left], self._after(slots[left])

    def _slot(self, keys: Hashes) -> Hashes:
        return keys * _MIX >> np.uint64(64 - self._bits)

    def _after(self, slots: Hashes) -> Hashes:
        return slots + np.uint64(1) & np.uint64(len(self._slots) - 1)


def node_bits(num_nodes: int) -> int:
    """Return the number of bits that a key has for a node number."""
    return max(num_nodes - 1, 1).bit_length()


def pack_rows(x: IntArray, relation: IntArray, y: IntArray, bits: int) -> Keys:
    """Pack K rows, given as three arrays, into K keys; x and y must differ in every row."""
    key = relation.astype(np.int64)
    key <<= bits
    key |= np.minimum(x, y)
    key <<= bits
    key |= np.maximum(x, y)
    key <<= 1
    key |= x > y
    return key


def distinct_facts(keys: Keys, bits: int) -> tuple[IntArray, IntArray, IntArray, dict[str, int]]:
    """Reduce directed rows to distinct undirected facts.

    Args:
        keys: shape (K,), from `pack_rows`; overwritten.
        bits: the same number as for `pack_rows`.

    Returns:
        The lower node (int32), relation (int16) and higher node (int32) of F facts, shape (F,),
        sorted by (relation, lower node, higher node); and counts for the `ReadReport`.
    """
    sort_integers(keys)
    num_distinct = int(np.count_nonzero(keys[1:] != keys[:-1])) + (len(keys) > 0)
    keys >>= 1
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    facts = keys[first]
    counts = {
        "num_duplicate_rows": len(keys) - num_distinct,
        "num_facts": len(facts),
        "num_mirrored_facts": num_distinct - len(facts),
    }
    node = (1 << bits) - 1
    higher = (facts & node).astype(np.int32)
    facts >>= bits
    lower = (facts & node).astype(np.int32)
    facts >>= bits
    return lower, facts.astype(np.int16), higher, counts


def sort_integers(keys: Keys) -> None:
    """Sort in place, without a copy of many keys.

    polars takes two thirds of the CPU time of np.sort, and uses two threads, but it needs copies.
    """
    if len(keys) > _MOST_COPIED:
        keys.sort()
    else:
        keys[:] = pl.Series(keys).sort().to_numpy()


def build_graph(
    nodes: pl.DataFrame,
    src: IntArray,
    relation: IntArray,
    dst: IntArray,
    relation_names: tuple[str, ...],
    report: ReadReport,
) -> KnowledgeGraph:
    """Build the graph from distinct undirected facts: add the reverse edges and sort them.

    One relation is sorted after the other. This takes 24 bytes for each edge of the largest
    relation, and 8 bytes for each edge of the graph.

    Args:
        nodes: N rows, sorted by (node_type, node_index).
        src: shape (F,), row number in `nodes` of one node of each fact.
        relation: shape (F,), index into `relation_names` of each fact.
        dst: shape (F,), row number in `nodes` of the other node of each fact. (a, r, b) and
            (b, r, a) are the same fact, so only one of them may appear.
        relation_names: sorted names of the relations.
        report: stored in the graph.

    Raises:
        InputError: the graph has more edge types than allowed.
    """
    type_names = tuple(nodes["node_type"].unique().sort())
    node_type = nodes["node_type"].cast(pl.Enum(type_names)).to_physical().to_numpy()
    type_ptr = np.searchsorted(node_type, np.arange(len(type_names) + 1))
    if (relation[1:] < relation[:-1]).any():
        order = np.argsort(relation, kind="stable")
        src, relation, dst = src[order], relation[order], dst[order]
    found: dict[EdgeType, tuple[Numbers, Keys]] = {}
    ends = np.searchsorted(relation, np.arange(len(relation_names) + 1))
    for name, (start, stop) in zip(relation_names, pairwise(ends.tolist()), strict=True):
        edges = _edges_of_relation(src[start:stop], dst[start:stop], node_type, type_ptr)
        for (src_type, dst_type), parts in edges.items():
            found[EdgeType(type_names[src_type], name, type_names[dst_type])] = parts
    edge_types = tuple(sorted(found))
    if len(edge_types) > MAX_EDGE_TYPES:
        raise InputError(
            f"the graph has {len(edge_types):,} edge types (source type, relation, target type); "
            f"at most {MAX_EDGE_TYPES:,} are allowed"
        )
    counts = {kind: len(found[kind][0]) for kind in edge_types}
    edge_type_ptr = np.cumsum([0, *counts.values()])
    pointers = [found[kind][1] + edge_type_ptr[r] for r, kind in enumerate(edge_types)]
    return KnowledgeGraph(
        GraphArrays(
            node_type=node_type.astype(np.int32),
            src=np.concatenate([found[kind][0] for kind in edge_types]),
            indptr=np.concatenate(pointers),
            edge_type_ptr=edge_type_ptr,
            type_ptr=type_ptr,
        ),
        node_type_names=type_names,
        edge_types=edge_types,
        nodes=nodes,
        report=report,
        vocabulary=recognize_vocabulary(counts),
    )


def _edges_of_relation(
    src: IntArray, dst: IntArray, node_type: IntArray, type_ptr: IntArray
) -> dict[tuple[int, int], tuple[Numbers, Keys]]:
    """Return the edges of one relation in both directions, by their source and target type.

    Args:
        src: shape (n,), one node of each fact.
        dst: shape (n,), the other node.
        node_type: shape (N,), the type of each node, ascending.
        type_ptr: the nodes of type t are from type_ptr[t] to type_ptr[t + 1].

    Returns:
        For each pair of types: the source of each edge, sorted by (target, source), int32; and the
        first edge of each node of the target type, and the number of edges, int64.
    """
    num_types, bits = len(type_ptr) - 1, node_bits(len(node_type))
    types = node_type.astype(np.int64)
    both = [types[a] * num_types + types[b] for a, b in ((src, dst), (dst, src))]
    pairs, key = _renumbered(np.concatenate(both), num_types * num_types)
    del both
    if len(pairs) << 2 * bits >= 2**63:
        raise InputError(
            f"a relation of the graph joins {len(pairs):,} pairs of node types; with "
            f"{len(node_type):,} nodes, less than {2**63 >> 2 * bits:,} are allowed"
        )
    # Sorting one integer per edge is faster than a lexsort of three columns.
    key <<= bits
    key |= np.concatenate([dst, src])
    key <<= bits
    key |= np.concatenate([src, dst])
    sort_integers(key)
    found = {}
    starts = np.searchsorted(key, np.arange(len(pairs) + 1) << 2 * bits)
    parts = [key[start:stop] for start, stop in pairwise(starts.tolist())]
    for number, (code, part) in enumerate(zip(pairs.tolist(), parts, strict=True)):
        edge_src = (part & ((1 << bits) - 1)).astype(np.int32)
        first, last = type_ptr[code % num_types : code % num_types + 2]
        targets = (number << bits) + np.arange(first, last + 1)
        found[divmod(code, num_types)] = edge_src, np.searchsorted(part, targets << bits)
    return found


def _renumbered(numbers: Keys, stop: int) -> tuple[Keys, Keys]:
    """Return the distinct numbers, sorted, and for each number its position among these.

    Args:
        numbers: from 0 to `stop` - 1.
        stop: up to `_MAX_TABLE`, a table is used; np.unique, which sorts, is slower.
    """
    if stop > _MAX_TABLE:
        distinct, positions = np.unique(numbers, return_inverse=True)
        return distinct, positions
    present = np.bincount(numbers, minlength=stop) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[numbers]
