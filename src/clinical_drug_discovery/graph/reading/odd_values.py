"""Find values and rows that are probably not what they seem, such as "NA" or a line of headers.

Only the user can know. They are kept, and the user gets a warning with a count and examples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from ...system.errors import counted
from ..formats.table import FIELDS, Table
from ..formats.triples import ENTITY, Triples
from .records import files_of, listed, place_of
from .rows import ROW, TABLE, Rows

_EXAMPLES = 3
#: Words that programs write for a missing value, in lower case.
_MISSING = (
    "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "\\n", "nil", "-", "?", "#value!", "#ref!",
    "#name?", "#null!", "nat",
)  # fmt: skip
_FEW_RELATIONS = 10  # with fewer relations, the order of the columns cannot be told


def check_values(rows: Rows, nodes: pl.DataFrame) -> list[str]:
    """Return warnings about odd values and rows.

    Args:
        rows: all rows.
        nodes: the fields of each node, and where it was read first.
    """
    relations = list(rows.relation_codes())
    found = [
        _missing_words(rows.tables, nodes, relations),
        _quoted_values(rows.tables, nodes, relations),
        _nodes_without_types(rows.tables, nodes),
        _decimal_ids(rows.tables, nodes),
    ]
    return [f"{files_of(rows.tables)}: {text}" for text in found if text]


def _missing_words(tables: Sequence[Table], nodes: pl.DataFrame, relations: Sequence[str]) -> str:
    """Warn of ids, types and relations such as NA. A node may have such a name."""
    texts = [f"relation {name!r}" for name in relations if name.strip().lower() in _MISSING]
    kinds = [one for one in nodes["type"].unique().sort() if one.strip().lower() in _MISSING]
    texts += [f"type {name!r}" for name in kinds]
    odd = nodes.filter(pl.col("id").str.strip_chars().str.to_lowercase().is_in(_MISSING))
    texts += [
        f"id {one['id']!r} ({one['type']}, {place_of(tables, one[TABLE], one[ROW])})"
        for one in odd.sort(TABLE, ROW).iter_rows(named=True)
    ]
    if not texts:
        return ""
    number = counted(len(texts), "value is", "values are")
    return (
        f"{number} usual for a missing value, but {'is' if len(texts) == 1 else 'are'} taken as "
        f"text, so that all nodes with such an id are one node: {listed(texts, _EXAMPLES)}"
    )


def _quoted_values(tables: Sequence[Table], nodes: pl.DataFrame, relations: Sequence[str]) -> str:
    """Warn of values between quotes, and of quotes after a backslash, that were taken as text."""
    pattern = re.compile(r"""\s*(?:"[^"]*"|'[^']*')\s*|.*\\".*""", re.DOTALL)
    texts = [f"relation {name!r}" for name in relations if pattern.fullmatch(name)]
    ends = pl.col(FIELDS).str.contains(r"""["']\s*$""")
    inside = pl.col(FIELDS).str.contains('\\"', literal=True)
    for record in nodes.filter(pl.any_horizontal(ends | inside)).sort(TABLE, ROW).to_dicts():
        value = next((record[one] for one in FIELDS if pattern.fullmatch(record[one])), None)
        if value is not None:
            texts.append(f"{value!r} ({place_of(tables, record[TABLE], record[ROW])})")
    if not texts:
        return ""
    number = counted(len(texts), "value has", "values have")
    return (
        f"{number} quotes around or after a backslash, which are taken as characters: "
        f"{listed(texts, _EXAMPLES)}"
    )


def _nodes_without_types(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of triples in which only some ids name a type."""
    triples = [n for n, table in enumerate(tables) if table.format.startswith(Triples.name)]
    if not triples:
        return ""
    found = nodes.filter(pl.col(TABLE).is_in(triples))
    odd = found.filter(pl.col("type") == ENTITY).sort(TABLE, ROW)
    if odd.is_empty() or len(odd) == len(found):
        return ""
    texts = [
        f"{one['id']!r} ({place_of(tables, one[TABLE], one[ROW])})"
        for one in odd.head(_EXAMPLES).iter_rows(named=True)
    ]
    return (
        f"{len(odd):,} of {len(found):,} ids do not name a type with ::, so that the type is "
        f"{ENTITY!r}: {listed(texts)}"
    )


def _decimal_ids(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of triples whose ids are decimal numbers, such as (head, tail, weight)."""
    triples = [n for n, table in enumerate(tables) if table.format.startswith(Triples.name)]
    odd = nodes.filter(
        pl.col(TABLE).is_in(triples) & pl.col("id").str.contains(r"^-?[0-9]*\.[0-9]*[1-9][0-9]*$")
    )
    if len(odd) < _FEW_RELATIONS:
        return ""
    texts = odd.sort(TABLE, ROW)["id"].head(_EXAMPLES).to_list()
    return (
        f"{len(odd):,} ids of triples are decimal numbers ({', '.join(texts)}); the columns must "
        "be head, relation and tail, without a weight"
    )


def odd_rows(rows: Rows) -> list[str]:
    """Warn of rows that are probably headers, and of columns that are probably in another order."""
    warnings = []
    counts = rows.nodes["type"].value_counts() if len(rows.nodes) else None
    lone = set() if counts is None else set(counts.filter(pl.col("count") == 1)["type"])
    places = rows.lone_rows()
    if 2 * len(places) > len(rows.relation_codes()):
        places = []  # a few facts that have nothing in common
    for place in places:
        ends = [rows.nodes.row(one, named=True) for one in (place.x, place.y)]
        if all(one["type"] in lone or one["type"] == ENTITY for one in ends):
            shown = ", ".join(repr(text) for text in (ends[0]["id"], place.relation, ends[1]["id"]))
            warnings.append(
                f"{rows.tables[place.table].path}, row {place.row}: neither the nodes nor the "
                f"relation ({shown}) are in any other row; if this is a header, remove the row"
            )
    for number, table in enumerate(rows.tables):
        if table.header or not table.format.startswith(Triples.name):
            continue
        relations, ends_of = rows.count_distinct(number)
        if relations > max(ends_of, _FEW_RELATIONS):
            warnings.append(
                f"{table.path}: the second column has more different values ({relations:,}) than "
                f"the third ({ends_of:,}); the columns must be head, relation and tail, unless a "
                "header says otherwise"
            )
    return warnings
