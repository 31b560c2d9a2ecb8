"""Suggest nodes for the first characters of a name, a synonym or an identifier."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from ...graph.identifiers import normalize_name
from ...graph.node_lookup import NodeIndex, Synonym, nearest_names

_LEAST_FOR_SIMILAR = 4  # characters; shorter texts resemble too many names


class Suggestion(NamedTuple):
    """A node that a text may mean."""

    node: int  #: its node_index
    synonym: str  #: the synonym that fits; "" if the name or the identifier does


class Suggestions:
    """Names, synonyms and identifiers of nodes, searched as a user types.

    A search reads all names, which takes about 10 ms for 130,000 nodes. Only if no name contains
    the text, similar names are looked for, which takes a few tenths of a second.

    Args:
        nodes: N rows of a node table.
        degree: shape (N,), number of facts of each node.
        first_types: nodes of these types come before others that fit as well.
        synonyms: other names of nodes.

    Example:
        >>> nodes = cdd.sample_graph().nodes
        >>> found = Suggestions(nodes, np.ones(nodes.height), ("drug",)).find("warf")
        >>> nodes.filter(node_index=found[0].node)["node_name"].item()
        'Warfarin'
    """

    def __init__(
        self,
        nodes: pl.DataFrame,
        degree: np.ndarray,
        first_types: Sequence[str],
        synonyms: Sequence[Synonym] = (),
    ) -> None:
        self._index = NodeIndex(nodes, synonyms=synonyms)
        self._numbers: list[int] = nodes["node_index"].to_list()
        self._types: list[str] = nodes["node_type"].to_list()
        names: list[str] = nodes["node_name"].to_list()
        self._owners = [*range(len(names))]
        self._synonyms = [""] * len(names)
        if synonyms:
            keys = nodes.select("node_source", "node_type", "node_id").rows()
            wanted = {one[1:] for one in synonyms}
            at = {key: row for row, key in enumerate(keys) if key in wanted}
            known = [one for one in synonyms if one[1:] in at]
            names = [*names, *(one.name for one in known)]
            self._owners += [at[one[1:]] for one in known]
            self._synonyms += [one.name for one in known]
        self._plain = [normalize_name(name) for name in names]
        self._degree: list[float] = degree.tolist()
        self._first = set(first_types)

    def find(
        self,
        text: str,
        limit: int = 12,
        types: Collection[str] | None = None,
        *,
        similar: bool = True,
    ) -> list[Suggestion]:
        """Return the nodes that a text may mean, the most likely first.

        These are, in this order: nodes with this identifier; names that equal the text, begin with
        it, have a word that begins with it, or contain it; and if there are none, similar names.

        Args:
            text: the first characters, in any spelling.
            limit: largest number of nodes.
            types: only nodes of these types; None: of all types.
            similar: look for similar names, too.
        """
        plain = normalize_name(text)
        if not plain:
            return []
        allowed = set(self._types) if types is None else set(types)
        rows = [
            r for r in self._index.rows_of_identifier(text.strip()) if self._types[r] in allowed
        ]
        found = [(row, "") for row in rows]
        places = self._among(allowed, [i for i, n in enumerate(self._plain) if n.startswith(plain)])
        if len({self._owners[i] for i in places}) < limit:
            places = self._among(allowed, [i for i, n in enumerate(self._plain) if plain in n])
        places.sort(key=lambda i: self._place(i, plain))
        if not (found or places) and similar and len(plain) >= _LEAST_FOR_SIMILAR:
            places = self._among(allowed, nearest_names(plain, self._plain))
        found += [(self._owners[i], self._synonyms[i]) for i in places]
        first: dict[int, str] = {}
        for row, synonym in found:
            first.setdefault(row, synonym)
        nodes = [Suggestion(self._numbers[row], synonym) for row, synonym in first.items()]
        return nodes[:limit]

    def _among(self, types: Collection[str], places: list[int]) -> list[int]:
        return [i for i in places if self._types[self._owners[i]] in types]

    def _place(self, i: int, plain: str) -> tuple[int, bool, float, str]:
        """Return how well a name that contains the text fits, for the order of the list."""
        name, row = self._plain[i], self._owners[i]
        if name == plain:
            fit = 0
        elif name.startswith(plain):
            fit = 1
        else:
            fit = 2 if f" {plain}" in name else 3
        return fit, self._types[row] not in self._first, -self._degree[row], name
