"""Build the graph from rows of integers: number the nodes, drop duplicate facts, sort the edges.

A row is packed into one 64-bit integer (relation, lower node, higher node, direction). Sorting puts
duplicate rows and the two directions of a fact side by side. This takes 8 bytes a row and works in
place, because a first write to a page of memory costs twenty times as much as a later one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ..system.errors import InputError
from .knowledge_graph import EdgeType, IntArray, KnowledgeGraph, ReadReport

Keys = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]

_MAX_EDGE_TYPES = 2**15 - 1  # far more than any graph has; the sort key has 15 bits for them
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads the bits of any hash
_MIN_BITS = 18
_SLOTS_PER_KEY = 8  # then one key in sixteen finds its slot taken


class Numbering:
    """A hash table that numbers distinct 64-bit hashes from 0, in the order of their addition.

    Nearly every look-up takes one gather from the slots. That is five times as fast as a join or a
    binary search, takes a few bytes a hash, and does not wait for polars' thread pool, which is
    busy with the file.
    """

    def __init__(self) -> None:
        self._keys: Hashes = np.empty(0, np.uint64)
        self._bits = _MIN_BITS
        self._slots: Numbers = np.full(1 << self._bits, -1, np.int32)
        # Numbers of the keys whose slot was taken, sorted by key for a binary search.
        self._displaced: Numbers = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Hashes) -> Numbers:
        """Return the number of each key, or -1 for a key that was never added."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        found = self._slots[self._slot(keys)]
        # An empty slot (-1) reads the last key. That cannot be this key, whose slot is not empty.
        other = np.flatnonzero(self._keys[found] != keys)
        found[other] = -1
        if len(other) and len(self._displaced):
            displaced, wanted = self._keys[self._displaced], keys[other]
            at = np.minimum(np.searchsorted(displaced, wanted), len(displaced) - 1)
            hit = displaced[at] == wanted
            found[other[hit]] = self._displaced[at[hit]]
        return found

    def add(self, keys: Hashes) -> None:
        """Number new keys in their order; they must be distinct and not be in the table yet."""
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
    """Return the number of bits of a node number in a key."""
    return max(num_nodes - 1, 1).bit_length()


def pack_rows(x: IntArray, relation: IntArray, y: IntArray, bits: int) -> Keys:
    """Pack rows into keys, from three arrays of shape (K,); x and y must differ in every row."""
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
        bits: as given to `pack_rows`.

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
    """Sort in place in two threads (numpy releases the lock), which takes 0.6 of the time."""
    middle = len(keys) // 2
    if not middle:
        return
    keys.partition(middle)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(np.ndarray.sort, (keys[:middle], keys[middle:])))


def build_graph(
    nodes: pl.DataFrame,
    src: IntArray,
    relation: IntArray,
    dst: IntArray,
    relation_names: tuple[str, ...],
    report: ReadReport,
) -> KnowledgeGraph:
    """Build the graph from distinct undirected facts: add the reverse edges and sort once.

    Sorting needs about 40 bytes an edge on top of the result.

    Args:
        nodes: N rows in graph order, which is sorted by (node_type, node_index).
        src: shape (F,), row numbers of `nodes`.
        relation: shape (F,), indices into `relation_names`.
        dst: shape (F,), row numbers of `nodes`; no fact (a, r, b) may appear again as (b, r, a).
        relation_names: sorted.
        report: stored in the graph.

    Raises:
        InputError: the graph has more edge types than the sort key can hold.
    """
    type_names = tuple(nodes["node_type"].unique().sort())
    node_type = nodes["node_type"].cast(pl.Enum(type_names)).to_physical().to_numpy()
    num_types, num_relations = len(type_names), len(relation_names)

    def type_code(a: IntArray, b: IntArray) -> Keys:  # sorts by (src_type, relation, dst_type)
        code = node_type[a].astype(np.int64) * num_relations + relation
        return np.asarray(code * num_types + node_type[b], np.int64)

    # A table of all possible edge types is faster than np.unique, which would sort E integers.
    edge_type = np.concatenate([type_code(src, dst), type_code(dst, src)])
    present = np.bincount(edge_type, minlength=num_types * num_relations * num_types) > 0
    codes = np.flatnonzero(present)
    if len(codes) > _MAX_EDGE_TYPES:
        raise InputError(
            f"the graph has {len(codes):,} edge types (source type, relation, target type); "
            f"at most {_MAX_EDGE_TYPES:,} are allowed"
        )
    # Sorting one integer per edge is several times faster than a lexsort of three columns.
    bits = node_bits(nodes.height)
    key = (np.cumsum(present) - 1)[edge_type]
    del edge_type
    key <<= bits
    key |= np.concatenate([dst, src])
    key <<= bits
    key |= np.concatenate([src, dst])
    sort_integers(key)
    edge_src = (key & ((1 << bits) - 1)).astype(np.int32)
    key >>= bits  # (edge type, target)
    type_ptr = np.searchsorted(node_type, np.arange(num_types + 1))
    starts = [  # for each edge type the keys of its n target nodes, and the key after the last
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
