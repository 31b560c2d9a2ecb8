"""Rows of three integers to distinct undirected facts.

A row is packed into one integer (relation, lower end, higher end, direction); sorted, its
duplicates and its mirror are neighbours. 8 bytes a row, in place: on a fresh page a byte costs
twenty times what it costs on one that is already there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph import IntArray
from clinical_drug_discovery.sorting import sort_integers

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
