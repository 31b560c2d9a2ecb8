"""The distinct undirected facts of a graph, sorted, in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...system.limits.numbers import Numbers
from ..knowledge_graph import IntArray
from .keys import Keys, node_bits, pack_rows

_PIECE_FACTS = 2**21  # facts that are unpacked at a time; 24 bytes for each
Mask = npt.NDArray[np.bool_]


class Ends(NamedTuple):
    """The nodes of facts, int32: shape (n,), lower[i] < higher[i]."""

    lower: IntArray
    higher: IntArray


@dataclass(frozen=True)
class Facts:
    """F distinct undirected facts, sorted by (relation, lower node, higher node).

    Attributes:
        keys: relation, lower and higher node of each fact in 64 bits.
        bits: number of bits of a node; see `node_bits`.
        relation_ptr: the facts of relation r are from [r] to [r + 1].
        number: the new number of each node, int32, ascending; -1 for a node whose facts are left
            out; None: all nodes keep their numbers.
        excluded: relations whose facts are left out.
    """

    keys: Numbers
    bits: int
    relation_ptr: Keys
    number: IntArray | None = None
    excluded: frozenset[int] = frozenset()

    @staticmethod
    def of(src: IntArray, relation: IntArray, dst: IntArray, num_nodes: int) -> Facts:
        """Return facts that are given in any order as three arrays, shape (F,)."""
        bits = node_bits(num_nodes)
        keys = np.sort(pack_rows(src, relation, dst, bits))
        num_relations = int(relation.max(initial=0)) + 1
        return distinct_facts([keys], len(keys), bits, num_relations, None)[0]

    @property
    def num_relations(self) -> int:
        """Number of relations, with those that are left out."""
        return len(self.relation_ptr) - 1

    def of_relation(self, relation: int) -> Iterator[Ends]:
        """Yield the facts of a relation that are not left out, piece by piece, in order."""
        if relation in self.excluded:
            return
        node = (1 << self.bits) - 1
        first, end = self.relation_ptr[relation : relation + 2].tolist()
        for start in range(first, end, _PIECE_FACTS):
            keys = self.keys.read(start, min(start + _PIECE_FACTS, end))
            lower, higher = keys >> self.bits & node, keys & node
            ends = Ends(lower.astype(np.int32), higher.astype(np.int32))
            if self.number is not None:
                lower, higher = self.number[lower], self.number[higher]
                inside = (lower >= 0) & (higher >= 0)
                ends = Ends(lower[inside], higher[inside])
            yield ends

    def within(self, kept: Mask, excluded: Iterable[int]) -> Facts:
        """Return the facts without those of some nodes and relations.

        Args:
            kept: shape (N,), the nodes that stay; they are numbered anew, in their order.
            excluded: the relations that are left out.
        """
        number = None
        if not kept.all():
            number = np.cumsum(kept, dtype=np.int32) - 1
            number[~kept] = -1
        return replace(self, number=number, excluded=frozenset(excluded))

    def degrees(self, num_nodes: int) -> Keys:
        """Return the number of facts of each node that stays, shape (num_nodes,)."""
        degrees = np.zeros(num_nodes, np.int64)
        for relation in range(self.num_relations):
            for ends in self.of_relation(relation):
                for nodes in ends:
                    np.add.at(degrees, nodes, 1)
        return degrees


def distinct_facts(
    pieces: Iterable[Keys], most: int, bits: int, num_relations: int, directory: Path | None
) -> tuple[Facts, dict[str, int]]:
    """Reduce directed rows to distinct undirected facts.

    Args:
        pieces: keys of `pack_rows` in ascending order, piece by piece; overwritten.
        most: largest number of facts.
        bits: the same number as for `pack_rows`.
        num_relations: number of relations.
        directory: of the file of the facts; None: keep them in memory.

    Returns:
        The facts, and the numbers of facts (`num_facts`) and of those with rows in both directions
        (`num_mirrored_facts`).
    """
    facts = Numbers(np.int64, most, directory)
    bounds = np.arange(num_relations + 1) << 2 * bits
    relation_ptr = np.zeros(num_relations + 1, np.int64)
    num_distinct, last = 0, -1
    for keys in pieces:
        num_distinct += int(np.count_nonzero(keys[1:] != keys[:-1])) + int(keys[0] != last)
        before, last = last >> 1, int(keys[-1])
        keys >>= 1
        first = np.ones(len(keys), bool)
        first[0] = keys[0] != before
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        found = keys[first]
        relation_ptr += np.searchsorted(found, bounds)
        facts.append(found)
    counts = {"num_facts": len(facts), "num_mirrored_facts": num_distinct - len(facts)}
    return Facts(facts, bits, relation_ptr), counts
