"""The row of added facts that breaks a rule, for a message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..formats.head import read_head

_ENDS = ("x_type", "y_type")


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
    first = 1  # number of the first row
    if isinstance(facts, Path):
        try:
            head = read_head(facts, facts)
            first = 1 if head.is_parquet else 2
            facts = head.scan().collect()
        except (OSError, EOFError, pl.exceptions.PolarsError):
            return ""  # such as another encoding, which the reader of graphs has converted
    if not {"relation", *_ENDS} <= set(facts.columns):
        return ""
    text = facts.select(pl.col("relation", *_ENDS).cast(pl.String))
    found = pl.lit(True) if relation is None else pl.col("relation") == relation
    for kind in types:
        found &= pl.any_horizontal(pl.col(_ENDS) == kind)
    rows = text.select(found.fill_null(False).arg_true()).to_series()
    return f", row {rows[0] + first}" if len(rows) else ""
