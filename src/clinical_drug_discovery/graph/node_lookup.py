"""Look up nodes by identifier or name, with suggestions for what is not found."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import polars as pl

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
_MOST_LETTERS = 1000  # that are searched for at once: polars cannot search for a million
_LEAST_SIMILARITY = 70  # of 100; "Atorvastain" and "Atorvastatin" have 96
_WITHOUT_INDEX = 4  # questions that look through all nodes, before the index is built
_LETTERS = re.compile("[a-z0-9]+")
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
    """Rows of a node table by identifier and name.

    The first questions look through the columns of the table, which takes some milliseconds for
    130,000 nodes. Then an index is built, each part when it is first needed. All parts together
    take about a second and 100 MB.
    """

    def __init__(
        self, nodes: pl.DataFrame, *, type: str | None = None, synonyms: Sequence[Synonym] = ()
    ) -> None:
        table = nodes.with_row_index("row")
        if type is not None:
            table = table.filter(pl.col("node_type") == type)
        self._type = type
        self._rows = table["row"]  # the others are positions in this column
        self._sources, self._ids, self._types, self._names = (
            table[f"node_{name}"].cast(pl.String) for name in ("source", "id", "type", "name")
        )
        self._given = synonyms
        self._num_questions = 0

    def find(self, query: str, *, parameter: str = "node") -> int:
        """Return the row of the node that a query names; see `find_node`."""
        if not isinstance(query, str):
            raise InputError(f"{parameter} (got {query!r}) must be text: a name or an id")
        text = query.strip()
        self._num_questions += 1
        found = next(filter(None, self._by_rules(text)), []) if text else []
        if len(found) == 1:
            return int(self._rows[found[0]])
        asked = f"{parameter} (got {query!r})"
        if found:
            raise InputError(f"{asked} is ambiguous; choose one of {self._choices(found)}")
        node = "node" if self._type is None else f"node of type {self._type}"
        hint = self._suggest(normalize_name(text))
        raise InputError(f"{asked} must be the name or id of a {node} in the graph{hint}")

    def rows_of_identifier(self, text: str) -> list[int]:
        """Return the rows that an identifier fits, by the first rule that finds any."""
        self._num_questions += 1
        rules = (rule(text) for rule in (self._exactly, self._with_id, self._with_identifier))
        return [int(self._rows[at]) for at in next(filter(None, rules), [])]

    def choices(self, rows: Collection[int]) -> str:
        """Return a list of nodes for an error message."""
        wanted = set(rows)
        return self._choices([at for at, row in enumerate(self._rows) if row in wanted])

    def _by_rules(self, text: str) -> Iterator[list[int]]:
        """Yield the positions that each rule finds, the strictest rule first."""
        plain = normalize_name(text)
        yield self._exactly(text)
        yield _union(self._with_id(text), self._at_name(text))
        yield _union(self._with_identifier(text), self._at_plain_name(plain) if plain else [])
        yield self._by_synonym.at(plain)

    def _exactly(self, text: str) -> list[int]:
        """Return the positions of source:id and type:id; each part may contain colons."""
        cuts = [cut for cut, character in enumerate(text) if character == ":"]
        return [
            at for cut in cuts for at in self._at_id(text[cut + 1 :])
            if text[:cut] in (self._sources[at], self._types[at])
        ]  # fmt: skip

    def _with_id(self, text: str) -> list[int]:
        """Return the positions with an id; a number also fits its other spellings.

        Otherwise gene 5180 would hide a group of diseases with the member 5180.
        """
        found = self._at_id(text)
        return _union(found, self._with_identifier(text)) if is_number(text) else found

    def _with_identifier(self, text: str) -> list[int]:
        """Return the positions whose identifier is equal, whatever its spelling."""
        prefix, namespace, local = parse_identifier(text)
        found = self._at_local(local)
        if not prefix:
            return found
        return [
            at for at in found
            if namespace == self._namespace(at) or prefix == self._types[at].casefold()
        ]  # fmt: skip

    def _namespace(self, at: int) -> str:
        return parse_identifier(self._ids[at], self._sources[at], self._types[at]).namespace

    @property
    def _has_index(self) -> bool:
        return self._num_questions > _WITHOUT_INDEX

    def _at_id(self, text: str) -> list[int]:
        return self._by_id.at(text) if self._has_index else _equal(self._ids, text)

    def _at_name(self, text: str) -> list[int]:
        return self._by_name.at(text) if self._has_index else _equal(self._names, text)

    def _at_local(self, local: str) -> list[int]:
        if self._has_index:
            return self._by_local.at(local)
        return [at for at in _with_letters(self._ids, local) if local in self._locals(at)]

    def _at_plain_name(self, plain: str) -> list[int]:
        if self._has_index:
            return self._by_plain_name.at(plain)
        places = _with_letters(self._names, plain)
        return [at for at in places if normalize_name(self._names[at]) == plain]

    @cached_property
    def _by_id(self) -> _Positions:
        return _Positions(enumerate(self._ids.to_list()))

    @cached_property
    def _by_name(self) -> _Positions:
        return _Positions(enumerate(self._names.to_list()))

    @cached_property
    def _by_local(self) -> _Positions:
        columns = (column.to_list() for column in (self._ids, self._sources, self._types))
        every = enumerate(zip(*columns, strict=True))
        return _Positions((at, key) for at, node in every for key in _locals_of(*node))

    def _locals(self, at: int) -> list[str]:
        return _locals_of(self._ids[at], self._sources[at], self._types[at])

    @cached_property
    def _plain_names(self) -> list[str]:
        return [normalize_name(name) for name in self._names.to_list()]

    @cached_property
    def _by_plain_name(self) -> _Positions:
        return _Positions(enumerate(self._plain_names))

    @cached_property
    def _synonyms(self) -> list[tuple[str, int]]:
        """Normalized synonyms with their positions."""
        wanted = {synonym[1:] for synonym in self._given}
        if not wanted:
            return []
        columns = (column.to_list() for column in (self._sources, self._types, self._ids))
        every = enumerate(zip(*columns, strict=True))
        at = {node: at for at, node in every if node in wanted}
        return [(normalize_name(one.name), at[one[1:]]) for one in self._given if one[1:] in at]

    @cached_property
    def _by_synonym(self) -> _Positions:
        return _Positions((at, name) for name, at in self._synonyms)

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
    """Positions by key. Most keys have one position, so that lists for all would waste memory."""

    def __init__(self, items: Iterable[tuple[int, str]]) -> None:
        """Take positions, each with a key."""
        self._first: dict[str, int] = {}
        self._all: dict[str, list[int]] = {}
        for at, key in items:
            first = self._first.setdefault(key, at)
            if first != at:
                others = self._all.setdefault(key, [first])
                if others[-1] != at:
                    others.append(at)

    def at(self, key: str) -> list[int]:
        """Return the positions of a key, ascending."""
        if key in self._all:
            return sorted({*self._all[key]})
        return [self._first[key]] if key in self._first else []


def _equal(column: pl.Series, text: str) -> list[int]:
    """Return the places of a text in a column, ascending."""
    found: list[int] = (column == text).arg_true().to_list()
    return found


def _with_letters(column: pl.Series, wanted: str) -> list[int]:
    """Return the places of all texts whose normalized form may be `wanted`, or a part of it.

    Among ASCII texts, these have the longest run of letters and digits of `wanted`. Other texts may
    become ASCII when they are normalized, so all of them are returned.

    Args:
        column: ids or names.
        wanted: in lower case.
    """
    runs = _LETTERS.findall(wanted)
    if not runs:
        return list(range(len(column)))
    run = max(runs, key=len)[:_MOST_LETTERS]
    found = column.str.to_lowercase().str.contains(run, literal=True)
    found |= column.str.len_bytes() != column.str.len_chars()
    places: list[int] = found.arg_true().to_list()
    return places


def _locals_of(id_: str, source: str, type_: str) -> list[str]:
    """Return the local part of an identifier, and those of the members of a group."""
    return [parse_identifier(id_).local, *group_members(id_, source, type_)]


def _union(first: list[int], second: list[int]) -> list[int]:
    return sorted({*first, *second})


def nearest_names(plain: str, names: list[str], *, limit: int = _MAX_SUGGESTIONS) -> list[int]:
    """Return the positions of the most similar normalized names, the best first.

    Words may be in another order. A longer name is also compared in part: "gene" resembles
    "gene/protein". A shorter name is not, or short gene symbols would resemble every word.
    """
    from rapidfuzz import fuzz, process  # not at the top: most questions need no suggestions

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
