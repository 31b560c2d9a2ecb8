"""The rows of added facts that break a rule, for a message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..formats.head import read_head

_ENDS = ("x_type", "y_type")
_ROW = "#row"


def row_of_fact(
    facts: pl.DataFrame | Path, *, relation: str | None = None, types: Sequence[str] = ()
) -> str:
    """Return text such as ", row 3" about the first fact with a relation and types of its nodes.

    The header of a file is row 1, as in the messages about files. The text is empty if the row is
    not found, which is so for columns other than those of kg.csv.

    Args:
        facts: the rows, or the file.
        relation: the relation of the fact; None: any.
        types: each of them is the type of one of the two nodes.
    """
    text = _numbered(facts, ("relation", *_ENDS))
    found = pl.lit(True) if relation is None else pl.col("relation") == relation
    for kind in types:
        found &= pl.any_horizontal(pl.col(_ENDS) == kind)
    rows = text.filter(found)[_ROW]
    return f", row {rows[0]}" if len(rows) else ""


def rows_of_nodes(facts: pl.DataFrame | Path) -> dict[tuple[str, str], str]:
    """Return text such as ", row 3" about the first fact of each node, by type and id.

    The text is missing where `row_of_fact` returns an empty text.
    """
    table = _numbered(facts, ("x_type", "x_id", "y_type", "y_id"))
    found: dict[tuple[str, str], str] = {}
    for row, *ends in table.iter_rows():
        for node in (tuple(ends[:2]), tuple(ends[2:])):
            found.setdefault(node, f", row {row}")
    return found


def _numbered(facts: pl.DataFrame | Path, names: Sequence[str]) -> pl.DataFrame:
    """Return some columns of facts as text, behind the numbers of the rows.

    It does not have rows if the facts cannot be read again or lack a column.
    """
    first = 1  # number of the first row
    if isinstance(facts, Path):
        try:
            head = read_head(facts, facts)
            first = 1 if head.is_parquet else 2
            facts = head.scan().collect()
        except (OSError, EOFError, pl.exceptions.PolarsError):
            facts = pl.DataFrame()  # such as another encoding, which the reader has converted
    if not set(names) <= set(facts.columns):
        facts = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return facts.select(pl.col(names).cast(pl.String)).with_row_index(_ROW, offset=first)
