"""The order of the columns of a ranked list.

polars and pandas show the first and the last columns of a wide table, so these have what a reader
looks for.
"""

from __future__ import annotations

import polars as pl

_LAST = ("known", "contraindicated", "stated")


def best_first(table: pl.DataFrame, one: str) -> pl.DataFrame:
    """Return a ranked list with rank, name, score and probability as its first columns.

    Args:
        table: in the columns of `Ranking.drugs_for`.
        one: "drug" or "disease", whichever is ranked.

    Example:
        >>> model.rank("asthma", top=1).columns[:4]
        ['rank', 'drug_name', 'score', 'probability']
    """
    other = "disease" if one == "drug" else "drug"
    first = ("rank", f"{one}_name", "score", "probability", "probability_treats", f"{one}_id")
    rest = (f"{one}_index", f"{other}_index", f"{other}_id", f"{other}_name")
    return table.select(*first, *rest, *_LAST)
