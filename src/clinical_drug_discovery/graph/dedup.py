"""Rows of three integers to distinct undirected facts.

A row is packed into one integer (relation, lower end, higher end, direction); sorted, its
duplicates and its mirror are neighbours. 8 bytes a row, in place: on a fresh page a byte costs
twenty times what it costs on one that is already there.

Small numbers for 64-bit hashes, in the order in which they were first seen.

Sorting tens of millions of integers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
Keys = npt.NDArray[np.int64]


def node_bits(num_nodes: int) -> int:
    """Bits that a node's number takes in a key."""
    return max(num_nodes - 1, 1).bit_length()


def pack(x: IntArray, relation: IntArray, y: IntArray, bits: int) -> Keys:
    """The keys of rows, of which x and y differ.

    Args:
        x: shape (K,), node numbers.
        relation: shape (K,), relation numbers.
        y: shape (K,), node numbers.
        bits: see `node_bits`.
    """
    key = relation.astype(np.int64)
    key <<= bits
    key |= np.minimum(x, y)
    key <<= bits
    key |= np.maximum(x, y)
    key <<= 1
    key |= x > y
    return key


def fold(keys: Keys, bits: int) -> tuple[IntArray, IntArray, IntArray, dict[str, int]]:
    """Distinct undirected facts of directed rows, and what was dropped on the way.

    Args:
        keys: shape (K,), from `pack`; overwritten.
        bits: what they were packed with.

    Returns:
        The facts' ends and relations, shape (F,): lower end (int32), relation (int16), higher end
        (int32), in the order of (relation, lower end, higher end); and counts for the report.
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


_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: spreads whatever the hash left
_LEAST_BITS = 18
_ROOM = 8  # slots per key: one key in sixteen finds its slot taken

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]


class Numbering:
    """Distinct hashes, numbered from 0.

    A table of slots answers nearly every look-up with one gather. That is five times as fast as a
    join or a binary search, takes a few bytes a hash, and works outside of polars' thread pool,
    which is busy with the file meanwhile.
    """

    def __init__(self) -> None:
        self._keys: Hashes = np.empty(0, np.uint64)
        self._bits = _LEAST_BITS
        self._slots: Numbers = np.full(1 << self._bits, -1, np.int32)
        self._moved: Numbers = np.empty(0, np.int32)  # those whose slot was taken, by their hash

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Hashes) -> Numbers:
        """The number of each key, -1 for one that was never added."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        found = self._slots[self._slot(keys)]
        # An empty slot (-1) reads the last key, which cannot be this one: its slot is not empty.
        other = np.flatnonzero(self._keys[found] != keys)
        found[other] = -1
        if len(other) and len(self._moved):
            moved, wanted = self._keys[self._moved], keys[other]
            at = np.minimum(np.searchsorted(moved, wanted), len(moved) - 1)
            hit = moved[at] == wanted
            found[other[hit]] = self._moved[at[hit]]
        return found

    def add(self, keys: Hashes) -> None:
        """Number new keys, in their order; they must be distinct and not there yet."""
        first = len(self)
        self._keys = np.concatenate([self._keys, keys])
        if len(self) * _ROOM > len(self._slots):
            self._bits = max(self._bits, (len(self) * _ROOM * 2).bit_length())
            self._slots = np.full(1 << self._bits, -1, np.int32)
            self._moved = self._moved[:0]
            first = 0
        numbers = np.arange(first, len(self), dtype=np.int32)
        slots = self._slot(self._keys[first:])
        free = self._slots[slots] < 0
        self._slots[slots[free]] = numbers[free]
        moved = np.concatenate([self._moved, numbers[self._slots[slots] != numbers]])
        self._moved = moved[np.argsort(self._keys[moved])]

    def _slot(self, keys: Hashes) -> npt.NDArray[np.uint64]:
        return keys * _MIX >> np.uint64(64 - self._bits)


def sort_integers(keys: npt.NDArray[np.int64]) -> None:
    """Sort in place, by two threads: each sorts one side of the median.

    Takes 0.6 of the time of one thread; numpy releases the interpreter while it sorts.
    """
    middle = len(keys) // 2
    if not middle:
        return
    keys.partition(middle)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(np.ndarray.sort, (keys[:middle], keys[middle:])))
