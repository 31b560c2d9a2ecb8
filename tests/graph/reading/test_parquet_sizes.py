"""Sizes in a Parquet file are compared with the file; valid files of any form pass."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.reading.parquet_sizes import (
    _COLUMNS,
    _GROUPS,
    _META_DATA,
    _OFFSETS,
    _PAGE_PACKED,
    _footer,
    _Thrift,
    check_parquet,
)
from clinical_drug_discovery.system.errors import InputError

TABLE = pl.DataFrame(
    {
        "text": [f"a{i % 7}" for i in range(5000)],
        "number": range(5000),
        "list": [[float(i)] * (i % 3) for i in range(5000)],
        "none": [None if i % 2 else i for i in range(5000)],
        "record": [{"a": i, "b": {"c": "x"}} for i in range(5000)],
        "truth": [i % 3 == 0 for i in range(5000)],
    }
)


@pytest.mark.parametrize(
    "options", [{"compression": "uncompressed"}, {"row_group_size": 700, "data_page_size": 500}, {}]
)
def test_valid_files_pass(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "t.parquet"
    for table in (TABLE, TABLE.head(0), TABLE.select("list"), TABLE.drop("record").head(1)):
        table.write_parquet(path, **options)
        check_parquet(path, path)


def test_every_damaged_byte_of_the_sizes_is_refused_or_harmless(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """polars would end the process for some of these."""
    path = tmp_path / "kg.parquet"
    TABLE.select(head="text", relation=pl.lit("r"), tail=pl.col("number")).write_parquet(path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in rng.integers(footer, len(whole), 120).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_graph(path)
        except InputError:
            refused += 1
    assert refused > 20


def test_rows_of_a_damaged_page_are_not_lost_without_a_word(tmp_path: Path) -> None:
    """A wrong encoding of a page ends a thread of polars, and no exception tells."""
    path, number = tmp_path / "kg.parquet", 80_000
    words = [pl.lit(name).alias(name) for name in ("relation", "x_type", "y_type")]
    ids = [pl.format("a{}", pl.int_range(number)).alias("x_id"), pl.lit("b").alias("y_id")]
    rows = pl.select(words + ids)
    rows.write_parquet(path, row_group_size=number // 8, compression="uncompressed")
    whole = path.read_bytes()
    footer, _ = _footer(io.BytesIO(whole), len(whole))
    column = footer[_GROUPS][-1][_COLUMNS][0][_META_DATA]
    at = min(column[name] for name in _OFFSETS if column.get(name, 0) > 0)
    dictionary = _Thrift(whole[at : at + 500])
    at += dictionary.record()[_PAGE_PACKED] + dictionary.at
    messages = []
    for byte in range(at + 11, at + 14):  # the encoding is here
        damaged = bytearray(whole)
        damaged[byte] ^= 0x20
        path.write_bytes(damaged)
        try:
            assert read_graph(path).report.num_rows == number
        except InputError as error:
            messages.append(str(error))
    lost = [text for text in messages if text.endswith(f"of its {number:,} rows can be read")]
    assert lost, messages


def test_huge_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    TABLE.write_parquet(path)
    with pytest.raises(InputError, match=r"t.parquet is larger than"):
        check_parquet(path, path, 2**-20)
    pl.select(a=pl.repeat(1, 3_000_000, dtype=pl.Int8)).write_parquet(path)
    with pytest.raises(InputError, match=r"t.parquet is larger than"):
        check_parquet(path, path, 2**-9)  # one value repeated takes few bytes, but three million
    whole = path.read_bytes()
    for cut in (0, 4, 12, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"t.parquet is not a readable Parquet file: it does"):
            check_parquet(path, path)
