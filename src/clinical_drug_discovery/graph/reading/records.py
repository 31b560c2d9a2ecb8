"""Check rows and records, and find the records that are one node.

A record is a distinct combination of all fields of a node. Each function looks at all records, and
its message lists the first ten faults, so that one attempt shows all of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ...system.errors import InputError, counted
from ..formats.table import AROUND_WORDS, FIELDS, KEY, Table, header_word
from ..knowledge_graph import IntArray
from ..source import ERROR
from .duplicates import duplicated
from .rows import ROW, TABLE, Mask, Place, Rows

IDENTITY = ("source", "type", "id")
_MAX_LISTED = 10
_MAX_NUMBERS = 3  # node numbers that a message lists: each takes a look at all rows
_ENDS = ("relation", "x_id", "y_id")
_INDEX_RULE = r"^(0|[1-9][0-9]{0,17})$"


@dataclass
class Findings:
    """Counts for the report, and warnings for the user."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def place_of(tables: Sequence[Table], table: int, row: int) -> str:
    """Return the place of a row for a message: the row, and the file if there are several."""
    return f"row {row}" if len(tables) == 1 else f"{tables[table].path}, row {row}"


def listed(texts: Iterable[str], limit: int = _MAX_LISTED, total: int | None = None) -> str:
    """Join texts for one line, and count those beyond the limit.

    Args:
        texts: all texts, or the first of them.
        limit: largest number of texts to show.
        total: number of all texts; None: all are given.
    """
    every = list(texts)
    more = (len(every) if total is None else total) - min(len(every), limit)
    return "; ".join(every[:limit]) + (f"; and {more:,} more" if more > 0 else "")


def files_of(tables: Sequence[Table]) -> str:
    """Return the names of the files of some tables."""
    return " and ".join(dict.fromkeys(str(table.path) for table in tables))


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def name_key(text: str) -> str:
    """Return the text without differences of Unicode form and of blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def remove_repeated_headers(rows: Rows, findings: Findings) -> None:
    """Remove rows that repeat the header, as in shards that were joined with `cat`.

    Case, blanks, quotes and a byte order mark do not matter.

    Raises:
        InputError: a row is a header with other columns, so that the rows below it are misread; or
            no other rows are left.
    """
    count, places = 0, list[Place]()
    for header in {tuple(table.header.items()): table.header for table in rows.tables}.values():
        number, found = _take_out_headers(rows, {name: [word] for name, word in header.items()})
        count, places = count + number, places + found
    findings.counts["num_repeated_headers"] = count
    if count:
        at = place_of(rows.tables, places[0].table, places[0].row)
        many = counted(count, "row repeats", "rows repeat")
        findings.warnings.append(
            f"{files_of(rows.tables)}: {many} the header and {_are(count)} left out (first: {at})"
        )
    if not rows.num_rows:
        raise InputError(f"{files_of(rows.tables)}: every row repeats the header")
    for words in {table.header_words for table in rows.tables}:
        columns = next(table.header for table in rows.tables if table.header_words == words)
        places = _take_out_headers(rows, dict.fromkeys(columns or _ENDS, words))[1]
        if places:
            raise InputError(
                f"{rows.tables[places[0].table].path}, row {places[0].row}: this row is a header "
                "with other columns, or in another order; every part of a file must have the same "
                "columns (name the parts one by one: --edges A --edges B)"
            )


def _take_out_headers(rows: Rows, header: Mapping[str, Sequence[str]]) -> tuple[int, list[Place]]:
    """Remove the rows whose fields are all words of a header; see `Rows.take_out`.

    Args:
        rows: all rows.
        header: the words of each column of a table; other columns may have any text.
    """
    plain = {name: {header_word(word) for word in words} for name, words in header.items()}
    relations = [r for r in rows.relation_codes() if header_word(r) in plain.get("relation", ())]
    if not relations:
        return 0, []
    masks = []
    for side in "xy":
        fields = {one: plain.get(f"{side}_{one}") for one in (*FIELDS, "index")}
        conditions = [
            pl.col(one).str.strip_chars(AROUND_WORDS).str.to_lowercase().is_in(list(words))
            for one, words in fields.items()
            if words is not None and one in rows.nodes.columns
        ]
        masks.append(_mask(rows, pl.all_horizontal(pl.lit(bool(conditions)), *conditions)))
    if not all(mask.any() for mask in masks):
        return 0, []
    return rows.take_out(masks[0], masks[1], relations, every=True)


def _mask(rows: Rows, condition: pl.Expr) -> Mask:
    """Return a mask of the records for which a condition is true; null counts as false."""
    mask: Mask = rows.nodes.select(condition.fill_null(False)).to_series().to_numpy()
    return mask


def remove_incomplete_rows(rows: Rows, on_missing: str, findings: Findings) -> None:
    """Remove rows that lack a field of a node or the relation.

    Raises:
        InputError: such rows exist and on_missing is "error"; the message lists the first ten.
    """
    lacking = _lacking(rows)
    bad = np.logical_or.reduce(list(lacking.values()))
    relations: list[str | None] = [name for name in rows.relation_codes() if not name.strip()]
    findings.counts["num_incomplete_rows"] = 0
    if not (bad.any() or relations or rows.lacks_relations()):
        return
    count, places = rows.take_out(bad, bad, [None, *relations], every=False)
    findings.counts["num_incomplete_rows"] = count
    if not count:
        return
    texts = [_lack(rows, place, lacking) for place in places]
    number = f"{counted(count, 'row lacks', 'rows lack')} a field"
    if on_missing == ERROR:
        cut = " (is the file cut short?)" if _ends_with(rows, places, count) else ""
        raise InputError(
            f"{files_of(rows.tables)}, {listed(texts, total=count)}{cut}; {number}, and every row "
            "must have all fields",
            " (on_missing 'drop' leaves such rows out: --on-missing drop)",
        )
    if not rows.num_rows:
        raise InputError(f"{files_of(rows.tables)}: every row lacks a field: {texts[0]}")
    findings.warnings.append(
        f"{files_of(rows.tables)}: {number} and {'is' if count == 1 else 'are'} left out, as "
        f"on_missing 'drop' asks: {'; '.join(texts[:3])}"
    )


def _lacking(rows: Rows) -> dict[str, Mask]:
    """Return for each field a mask of the records that lack the field."""
    masks = {}
    for name in (*FIELDS, "index"):
        if name in rows.nodes.columns:
            empty = pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")
            filled = [n for n, table in enumerate(rows.tables) if name in table.filled]
            missing = pl.col(name).is_null() if filled else empty
            if filled and len(filled) < len(rows.tables):
                missing |= empty & ~pl.col(TABLE).is_in(filled)
            masks[name] = _mask(rows, missing)
    return masks


def _lack(rows: Rows, place: Place, lacking: dict[str, Mask]) -> str:
    """Return text about what a row lacks."""
    names = ["relation"] if not (place.relation or "").strip() else []
    for side, record in (("x", place.x), ("y", place.y)):
        names += [f"{side}_{name}" for name, mask in lacking.items() if mask[record]]
    table = rows.tables[place.table]
    hint, where = table.hint, place_of(rows.tables, place.table, place.row)
    if "relation" not in names and table.nodes is not None and table.nodes[KEY].dtype == pl.String:
        absent = [r for r in (place.x, place.y) if lacking["type"][r] and not lacking["id"][r]]
        if absent:  # the id of an unknown node is the text by which the edge names it
            return f"{where}: {hint} ({', '.join(repr(rows.nodes['id'][r]) for r in absent)})"
    text = f"{where}: {', '.join(names)} is missing"
    unknown = any(lacking["type"][record] for record in (place.x, place.y))
    return text + (f" ({hint})" if hint and unknown else "")


def _ends_with(rows: Rows, places: list[Place], count: int) -> bool:
    """Return True if the one incomplete row is the last row that was read."""
    return count == len(places) and rows.last_row(places[-1].table) < places[-1].row


def check_numbers(rows: Rows) -> None:
    """Check that node numbers are whole numbers."""
    if "index" not in rows.nodes.columns:
        return
    nodes = rows.only_used(rows.nodes.with_row_index("record"))
    wrong = nodes.filter(~pl.col("index").str.contains(_INDEX_RULE)).sort(TABLE, ROW)
    if wrong.is_empty():
        return
    texts = []
    for record, index in wrong.select("record", "index").head(_MAX_NUMBERS).iter_rows():
        use = rows.first_use(record)
        side = "x" if use.x == record else "y"
        texts.append(
            f"{place_of(rows.tables, use.table, use.row)}: {side}_index (got {index!r}) must be a "
            "whole number of at least 0, without leading zeros"
        )
    raise InputError(f"{files_of(rows.tables)}, {listed(texts, total=len(wrong))}")


def merge_records(rows: Rows, on_conflict: str, findings: Findings) -> IntArray:
    """Find the records that are the same node.

    Two records are one node if their source, type and id are equal. Their names may differ in
    Unicode form and blanks; the name of the first row is kept and the node counted. All other
    differences are conflicts.

    Returns:
        For each record the record that stands for its node, the one of the node's first row.

    Raises:
        InputError: records conflict and on_conflict is "error", or one number belongs to nodes of
            different ids.
    """
    merge = _Merge(rows)
    numbered = "index" in rows.nodes.columns
    merge.join(IDENTITY, ("name", "index") if numbered else ("name",))
    if numbered:
        merge.join(("index", "source", "id"), ("type", "name"))
        merge.refuse_shared(("index",), ("id", "source", "type", "name"))
    elif not all("source" in table.filled for table in rows.tables):
        merge.join(("source", "id"), ("type",))
    findings.counts["num_respelled_nodes"] = len(merge.respelled)
    findings.counts["num_conflicting_nodes"] = len(merge.conflicts)
    files = files_of(rows.tables)
    if merge.conflicts:
        texts = listed(merge.conflicts.values())
        number = len(merge.conflicts)
        nodes = counted(number, "node has", "nodes have")
        if on_conflict == ERROR:
            raise InputError(
                f"{files}, {texts}; {nodes} conflicting fields",
                " (on_conflict 'first' keeps those of the node's first row: --on-conflict first)",
            )
        findings.warnings.append(
            f"{files}: {nodes} conflicting fields; those of the first row are kept, as on_conflict "
            f"'first' asks: {listed(merge.conflicts.values(), 3)}"
        )
    if merge.respelled:
        texts = listed(merge.respelled.values(), 3)
        number = len(merge.respelled)
        nodes = counted(number, "node has names", "nodes have names")
        findings.warnings.append(
            f"{files}: {nodes} that differ only in blanks or Unicode form; the first is kept: "
            f"{texts}"
        )
    return merge.resolved()


class _Merge:
    """Records that were found to be one node, and the differences between their fields."""

    def __init__(self, rows: Rows) -> None:
        self.tables = rows.tables
        self.table = rows.only_used(rows.nodes.with_row_index("record"))
        self.node: IntArray = np.arange(len(rows.nodes))
        self.conflicts: dict[int, str] = {}  #: by the record that stands for the node
        self.respelled: dict[int, str] = {}

    def join(self, keys: Sequence[str], fields: Sequence[str]) -> None:
        """Join records that are equal in all `keys`; differences in `fields` are conflicts."""
        gone = []
        for first, other in self._pairs(keys):
            gone.append(other["record"])
            self.node[other["record"]] = first["record"]
            differing = [one for one in fields if first[one] != other[one]]
            if not differing:
                continue
            if differing == ["name"] and name_key(first["name"]) == name_key(other["name"]):
                self.respelled.setdefault(
                    first["record"], f"{first['name']!r} and {other['name']!r}"
                )
            else:
                text = self._difference(keys, differing[0], first, other)
                self.conflicts.setdefault(first["record"], text)
        if gone:  # a copy of all records takes memory
            self.table = self.table.filter(~pl.col("record").is_in(gone))

    def resolved(self) -> IntArray:
        """Return for each record the record that stands for its node."""
        node = self.node
        while (node[node] != node).any():  # a record that stands for others was joined, too
            node = node[node]
        return node

    def refuse_shared(self, keys: Sequence[str], fields: Sequence[str]) -> None:
        """Check that no two nodes are equal in all `keys`."""
        texts = [
            self._difference(keys, next(f for f in fields if first[f] != other[f]), first, other)
            for first, other in self._pairs(keys)
        ]
        if texts:
            raise InputError(f"{files_of(self.tables)}, {listed(texts)}")

    def _pairs(self, keys: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return pairs of records with equal keys: the first of them, and each further one."""
        repeated = self.table.filter(pl.Series(duplicated(self.table, keys)))
        if "source" in keys and "type" not in keys and "index" not in keys:
            filled = [n for n, table in enumerate(self.tables) if "source" in table.filled]
            repeated = repeated.filter(~pl.col(TABLE).is_in(filled))
        firsts: dict[tuple[str, ...], dict[str, Any]] = {}
        pairs = []
        for record in repeated.sort(TABLE, ROW, "record").iter_rows(named=True):
            key = tuple(record[one] for one in keys)
            first = firsts.setdefault(key, record)
            if first is not record:
                pairs.append((first, record))
        return pairs

    def _difference(
        self, keys: Sequence[str], name: str, first: dict[str, Any], other: dict[str, Any]
    ) -> str:
        node = ", ".join(f"{key} {first[key]!r}" for key in keys)
        places = [place_of(self.tables, one[TABLE], one[ROW]) for one in (first, other)]
        return (
            f"{places[1]}: the node with {node} has {name} {other[name]!r}, but in {places[0]} it "
            f"has {name} {first[name]!r}"
        )
