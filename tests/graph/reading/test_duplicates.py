"""Duplicates are found piece by piece as polars finds them in the whole table."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clinical_drug_discovery.graph.reading import duplicates


@pytest.mark.parametrize("most", [3, 40, 10**6])
def test_duplicates_are_those_of_polars(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(duplicates, "_PIECE_ROWS", 64)
    numbers = pl.Series(rng.integers(0, most, 500)).cast(pl.String)
    table = pl.DataFrame({"a": numbers, "b": numbers.str.slice(0, 1), "c": "x"})
    table = table.with_columns(a=pl.when(pl.col("a") == "2").then(None).otherwise("a"))
    for keys in (["a"], ["b", "a"], [pl.col("a").str.len_chars(), pl.col("c")]):
        wanted = table.select(keys).is_duplicated().to_list()
        assert duplicates.duplicated(table, keys).tolist() == wanted
    assert not duplicates.duplicated(table[:0], ["a"]).any()
