"""Build the graph from rows of integers: number the nodes, drop duplicate facts, sort the edges.

A row is packed into one 64-bit integer (relation, lower node, higher node, direction). Sorting puts
duplicate rows and the two directions of a fact next to each other. Integers are reused in place
because the first write to a page of memory takes twenty times as long as a later write.
"""

from __future__ import annotations

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
_MIN_BITS = 18  # log2 of the smallest number of slots
_SLOTS_PER_KEY = 8  # minimum; with 8, about one key in sixteen finds its slot taken by another key


class Numbering:
    """A hash table that numbers distinct 64-bit hashes 0, 1, 2, ... in the order they are added.

    Nearly every look-up reads one slot. This is five times as fast as a join or a binary search. It
    also does not wait for polars' thread pool, which is busy with reading the file.
    """

    def __init__(self) -> None:
        self._keys: Hashes = np.empty(0, np.uint64)
        self._bits = _MIN_BITS
        self._slots: Numbers = np.full(1 << self._bits, -1, np.int32)
        # Numbers of the keys whose slot another key takes, sorted by key for a binary search.
        self._displaced: Numbers = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Hashes) -> Numbers:
        """Return the number of each key, or -1 for a key that was never added."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        found = self._slots[self._slot(keys)]
        # For an empty slot, the index -1 reads the last key. It cannot equal the wanted key: the
        # slot of the last key is taken, and the slot of the wanted key is empty.
        other = np.flatnonzero(self._keys[found] != keys)
        found[other] = -1
        if len(other) and len(self._displaced):
            displaced, wanted = self._keys[self._displaced], keys[other]
            at = np.minimum(np.searchsorted(displaced, wanted), len(displaced) - 1)
            hit = displaced[at] == wanted
            found[other[hit]] = self._displaced[at[hit]]
        return found

    def add(self, keys: Hashes) -> None:
        """Number new keys in the given order; they must be distinct and not yet in the table."""
        first = len(self)
        self._keys = np.concatenate([self._keys, keys])
        if len(self) * _SLOTS_PER_KEY > len(self._slots):
            self._bits = max(self._bits, (len(self) * _SLOTS_PER_KEY * 2).bit_length())
            self._slots = np.full(1 << self._bits, -1, np.int32)
            self._displaced = self._displaced[:0]
            first = 0
        numbers = np.arange(first, len(self), dtype=np.int32)
        slots = self._slot(self._keys[first:])
        free = self._slots[slots] < 0
        self._slots[slots[free]] = numbers[free]
        displaced = np.concatenate([self._displaced, numbers[self._slots[slots] != numbers]])
        self._displaced = displaced[np.argsort(self._keys[displaced])]

    def _slot(self, keys: Hashes) -> npt.NDArray[np.uint64]:
        return keys * _MIX >> np.uint64(64 - self._bits)


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
    """Sort in place; a copy of 8 bytes per key is needed.

    polars takes two thirds of the CPU time of np.sort, and uses two threads.
    """
    keys[:] = pl.Series(keys).sort().to_numpy()


def build_graph(
    nodes: pl.DataFrame,
    src: IntArray,
    relation: IntArray,
    dst: IntArray,
    relation_names: tuple[str, ...],
    report: ReadReport,
) -> KnowledgeGraph:
    """Build the graph from distinct undirected facts: add the reverse edges and sort once.

    In addition to the graph itself, sorting needs about 48 bytes per edge.

    Args:
        nodes: N rows, sorted by (node_type, node_index).
        src: shape (F,), row number in `nodes` of one node of each fact.
        relation: shape (F,), index into `relation_names` of each fact.
        dst: shape (F,), row number in `nodes` of the other node of each fact. (a, r, b) and
            (b, r, a) are the same fact, so only one of them may appear.
        relation_names: sorted names of the relations.
        report: stored in the graph.

    Raises:
        InputError: the graph has more edge types than the sort key can hold.
    """
    type_names = tuple(nodes["node_type"].unique().sort())
    node_type = nodes["node_type"].cast(pl.Enum(type_names)).to_physical().to_numpy()
    num_types, num_relations = len(type_names), len(relation_names)

    def type_code(a: IntArray, b: IntArray) -> Keys:  # ascending in (src_type, relation, dst_type)
        code = node_type[a].astype(np.int64) * num_relations + relation
        return np.asarray(code * num_types + node_type[b], np.int64)

    edge_type = np.concatenate([type_code(src, dst), type_code(dst, src)])
    codes, edge_type = _renumbered(edge_type, num_types * num_relations * num_types)
    if len(codes) > MAX_EDGE_TYPES:
        raise InputError(
            f"the graph has {len(codes):,} edge types (source type, relation, target type); "
            f"at most {MAX_EDGE_TYPES:,} are allowed"
        )
    # Sorting one integer per edge is faster than a lexsort of three columns.
    bits = node_bits(nodes.height)
    key = edge_type
    del edge_type
    key <<= bits
    key |= np.concatenate([dst, src])
    key <<= bits
    key |= np.concatenate([src, dst])
    sort_integers(key)
    edge_src = (key & ((1 << bits) - 1)).astype(np.int32)
    key >>= bits  # (edge type, target)
    type_ptr = np.searchsorted(node_type, np.arange(num_types + 1))
    # For each edge type, the keys of all nodes of its target type, then the key after the last one.
    starts = [
        (r << bits) + np.arange(type_ptr[code % num_types], type_ptr[code % num_types + 1] + 1)
        for r, code in enumerate(codes.tolist())
    ]
    edge_types = tuple(
        EdgeType(
            type_names[code // (num_types * num_relations)],
            relation_names[code // num_types % num_relations],
            type_names[code % num_types],
        )
        for code in codes.tolist()
    )
    edge_type_ptr = np.searchsorted(key, np.arange(len(codes) + 1) << bits)
    counts = dict(zip(edge_types, np.diff(edge_type_ptr).tolist(), strict=True))
    return KnowledgeGraph(
        GraphArrays(
            node_type=node_type.astype(np.int32),
            src=edge_src,
            indptr=np.searchsorted(key, np.concatenate(starts)),
            edge_type_ptr=edge_type_ptr,
            type_ptr=type_ptr,
        ),
        node_type_names=type_names,
        edge_types=edge_types,
        nodes=nodes,
        report=report,
        vocabulary=recognize_vocabulary(counts),
    )


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
