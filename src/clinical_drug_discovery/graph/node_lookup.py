"""Look up nodes by identifier or name, with suggestions for what is not found."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import polars as pl
from rapidfuzz import fuzz, process

from ..system.errors import InputError
from ..system.processes import cached_property
from .identifiers import (
    group_members,
    is_number,
    normalize_name,
    parse_identifier,
    shown_identifier,
)

_MAX_CHOICES = 8
_MAX_SUGGESTIONS = 5
_LEAST_SIMILARITY = 70  # of 100; "Atorvastain" and "Atorvastatin" have 96
_WITHOUT_INDEX = 4  # questions before an index of the names is built
_LARGEST_GAP = 15  # to the best; names that only share a common word with the query are left out


class Synonym(NamedTuple):
    """Another name of a node."""

    name: str
    node_source: str
    node_type: str
    node_id: str


def find_node(
    nodes: pl.DataFrame,
    query: str,
    *,
    type: str | None = None,
    parameter: str = "node",
    synonyms: Sequence[Synonym] = (),
) -> int:
    """Find the node that a query names.

    The rules are, the strictest first:

    1. source:id or type:id, exactly as in the graph.
    2. An id or a name, exactly as in the graph. A number also fits ids with leading zeros or with
       a prefix, and members of groups.
    3. Another spelling of an identifier (prefix, case, leading zeros; member of a group;
       type:id), or another spelling of a name (case, blanks, apostrophes, hyphens, Unicode).
    4. A synonym, in any spelling.

    A rule applies only if no stricter rule finds a node.

    Args:
        nodes: N rows.
        query: an identifier or a name.
        type: search only nodes of this type.
        parameter: name of the parameter that holds the query, for the error message.
        synonyms: other names of nodes. Synonyms of nodes that `nodes` lacks are ignored.

    Returns:
        The row number in `nodes`.

    Raises:
        InputError: no node matches (with suggestions), or several do (with the choices).

    Example:
        >>> nodes = pl.DataFrame({
        ...     "node_source": ["MONDO"], "node_id": ["5180"],
        ...     "node_type": ["disease"], "node_name": ["Parkinson disease"],
        ... })
        >>> find_node(nodes, "MONDO:0005180"), find_node(nodes, "parkinson  disease")
        (0, 0)
    """
    return NodeIndex(nodes, type=type, synonyms=synonyms).find(query, parameter=parameter)


def did_you_mean(wanted: str, known: list[str]) -> str:
    """Return the end of an error message that suggests the known word most similar to `wanted`."""
    near = nearest_names(normalize_name(wanted), [normalize_name(word) for word in known], limit=1)
    return f"; did you mean {known[near[0]]!r}?" if near else ""


class NodeIndex:
    """Rows of a node table by identifier and name. Each part is built when it is first needed.

    All parts together take about a second and 100 MB for 130,000 nodes.
    """

    def __init__(
        self, nodes: pl.DataFrame, *, type: str | None = None, synonyms: Sequence[Synonym] = ()
    ) -> None:
        table = nodes.with_row_index("row")
        if type is not None:
            table = table.filter(pl.col("node_type") == type)
        self._type = type
        self._rows: list[int] = table["row"].to_list()  # the others are positions in this list
        self._sources: list[str] = table["node_source"].to_list()
        self._ids: list[str] = table["node_id"].to_list()
        self._types: list[str] = table["node_type"].to_list()
        self._names: list[str] = table["node_name"].to_list()
        self._given = synonyms

    def find(self, query: str, *, parameter: str = "node") -> int:
        """Return the row of the node that a query names; see `find_node`."""
        if not isinstance(query, str):
            raise InputError(f"{parameter} (got {query!r}) must be text: a name or an id")
        text = query.strip()
        found = next(filter(None, self._by_rules(text)), []) if text else []
        if len(found) == 1:
            return self._rows[found[0]]
        asked = f"{parameter} (got {query!r})"
        if found:
            raise InputError(f"{asked} is ambiguous; choose one of {self._choices(found)}")
        node = "node" if self._type is None else f"node of type {self._type}"
        hint = self._suggest(normalize_name(text))
        raise InputError(f"{asked} must be the name or id of a {node} in the graph{hint}")

    def rows_of_identifier(self, text: str) -> list[int]:
        """Return the rows that an identifier fits, by the first rule that finds any."""
        rules = (self._exactly(text), self._with_id(text), self._with_identifier(text))
        return [self._rows[at] for at in next(filter(None, rules), [])]

    def choices(self, rows: Collection[int]) -> str:
        """Return a list of nodes for an error message."""
        wanted = set(rows)
        return self._choices([at for at, row in enumerate(self._rows) if row in wanted])

    def _by_rules(self, text: str) -> Iterator[list[int]]:
        """Yield the positions that each rule finds, the strictest rule first."""
        plain = normalize_name(text)
        yield self._exactly(text)
        yield _union(self._with_id(text), self._by_name.at(text))
        yield _union(self._with_identifier(text), self._by_plain_name.at(plain) if plain else [])
        yield _union(self._by_synonym.at(plain), [])

    def _exactly(self, text: str) -> list[int]:
        """Return the positions of source:id and type:id; each part may contain colons."""
        cuts = [cut for cut, character in enumerate(text) if character == ":"]
        return [
            at for cut in cuts for at in self._by_id.at(text[cut + 1 :])
            if text[:cut] in (self._sources[at], self._types[at])
        ]  # fmt: skip

    def _with_id(self, text: str) -> list[int]:
        """Return the positions with an id; a number also fits its other spellings.

        Otherwise gene 5180 would hide a group of diseases with the member 5180.
        """
        found = self._by_id.at(text)
        return _union(found, self._with_identifier(text)) if is_number(text) else found

    def _with_identifier(self, text: str) -> list[int]:
        """Return the positions whose identifier is equal, whatever its spelling."""
        prefix, namespace, local = parse_identifier(text)
        found = self._by_local.at(local)
        if not prefix:
            return found
        return [
            at for at in found
            if namespace == self._namespace(at) or prefix == self._types[at].casefold()
        ]  # fmt: skip

    def _namespace(self, at: int) -> str:
        return parse_identifier(self._ids[at], self._sources[at], self._types[at]).namespace

    @cached_property
    def _by_id(self) -> _Positions:
        return _Positions(self._ids)

    @cached_property
    def _by_name(self) -> _Positions:
        return _Positions(self._names)

    @cached_property
    def _by_local(self) -> _Positions:
        return _Positions(*_columns(self._locals()))

    def _locals(self) -> Iterator[tuple[str, int]]:
        columns = zip(self._ids, self._sources, self._types, strict=True)
        for at, (id_, source, type_) in enumerate(columns):
            yield parse_identifier(id_).local, at
            for member in group_members(id_, source, type_):
                yield member, at

    @cached_property
    def _plain_names(self) -> list[str]:
        return [normalize_name(name) for name in self._names]

    @cached_property
    def _by_plain_name(self) -> _Positions:
        return _Positions(self._plain_names)

    @cached_property
    def _synonyms(self) -> list[tuple[str, int]]:
        """Normalized synonyms with their positions."""
        wanted = {synonym[1:] for synonym in self._given}
        columns = zip(self._sources, self._types, self._ids, strict=True)
        at = {node: at for at, node in enumerate(columns) if node in wanted}
        return [(normalize_name(one.name), at[one[1:]]) for one in self._given if one[1:] in at]

    @cached_property
    def _by_synonym(self) -> _Positions:
        return _Positions(*_columns(self._synonyms))

    def _choices(self, found: Sequence[int], notes: Sequence[str] = ()) -> str:
        shown = found[:_MAX_CHOICES]
        labels = [self._label(at) for at in shown]
        texts = [
            f"{label if labels.count(label) == 1 else f'{self._types[at]}:{self._ids[at]}'} "
            f"({self._types[at]} {self._names[at]!r}{note})"
            for label, at, note in zip(labels, shown, notes or [""] * len(shown), strict=False)
        ]
        more = len(found) - len(shown)
        return ", ".join(texts) + (f" and {more} more" if more else "")

    def _label(self, at: int) -> str:
        return shown_identifier(self._ids[at], self._sources[at], self._types[at])

    def _suggest(self, plain: str) -> str:
        """Return a hint with names that contain the text, or else with similar names."""
        if not plain:
            return ""
        names, owners = self._plain_names, list(range(len(self._names)))
        if self._synonyms:
            extra, of = zip(*self._synonyms, strict=True)
            names, owners = [*names, *extra], [*owners, *of]
        contain = [i for i, name in enumerate(names) if plain in name]
        near = sorted(contain, key=lambda i: (len(names[i]), names[i])) or nearest_names(
            plain, names
        )
        if not near:
            return ""
        first = {owners[i]: i for i in reversed(near)}  # a node is listed once
        near = [i for i in near if first[owners[i]] == i]
        synonym = {i: f", synonym {names[i]!r}" for i in near if i >= len(self._names)}
        shown = self._choices([owners[i] for i in near], [synonym.get(i, "") for i in near])
        return f"; names that contain it: {shown}" if contain else f"; did you mean {shown}?"


class _Positions:
    """Positions by key. Most keys have one position, so that lists for all would waste memory.

    The first questions look through all keys, which takes a few ms, a twentieth of an index.
    """

    def __init__(self, keys: Sequence[str], positions: Sequence[int] | None = None) -> None:
        """Take the keys, each with its position, ascending; None: the place of the key."""
        self._keys, self._positions = keys, range(len(keys)) if positions is None else positions
        self._num_questions = 0
        self._first: dict[str, int] = {}
        self._all: dict[str, list[int]] = {}

    def at(self, key: str) -> list[int]:
        """Return the positions of a key, ascending."""
        self._num_questions += 1
        if self._num_questions <= _WITHOUT_INDEX:
            return sorted({self._positions[place] for place in self._places(key)})
        if not self._first:
            self._build()
        return self._all.get(key) or ([self._first[key]] if key in self._first else [])

    def _places(self, key: str) -> Iterator[int]:
        place = -1
        with suppress(ValueError):  # `index` is five times as fast as a loop in Python
            while True:
                place = self._keys.index(key, place + 1)
                yield place

    def _build(self) -> None:
        for key, at in zip(self._keys, self._positions, strict=True):
            first = self._first.setdefault(key, at)
            if first != at:
                others = self._all.setdefault(key, [first])
                if others[-1] != at:
                    others.append(at)


def _columns(items: Iterable[tuple[str, int]]) -> tuple[list[str], list[int]]:
    keys, positions = [], []
    for key, at in items:
        keys.append(key)
        positions.append(at)
    return keys, positions


def _union(first: list[int], second: list[int]) -> list[int]:
    return sorted({*first, *second})


def nearest_names(plain: str, names: list[str], *, limit: int = _MAX_SUGGESTIONS) -> list[int]:
    """Return the positions of the most similar normalized names, the best first.

    Words may be in another order. A longer name is also compared in part: "gene" resembles
    "gene/protein". A shorter name is not, or short gene symbols would resemble every word.
    """
    best: dict[int, float] = {}
    longer = [name if len(name) > len(plain) else None for name in names]
    for scorer, choices, factor in (
        (fuzz.token_sort_ratio, names, 1.0),
        (fuzz.partial_ratio, longer, 0.9),
    ):
        found = process.extract(
            plain, choices, scorer=scorer, limit=4 * limit, score_cutoff=_LEAST_SIMILARITY / factor
        )
        for _, score, at in found:
            best[at] = max(best.get(at, 0), factor * score)
    good = [at for at, score in best.items() if score >= max(best.values()) - _LARGEST_GAP]
    return sorted(good, key=lambda at: (-best[at], len(names[at]), names[at]))[:limit]
