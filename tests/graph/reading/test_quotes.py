"""Malformed quotes are found even where polars reads the file without an error."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from graphs import Fact, Node, node, to_rows

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.reading import quotes
from clinical_drug_discovery.graph.reading.quotes import has_line_break_in_quotes, scan_quotes
from clinical_drug_discovery.system.errors import InputError

NAMES = ("dry lesion, called X", 'a "dry" lesion', "C:\\", 'ends with "quotes"', "two\nlines")
GOOD: list[Fact] = [
    (Node("S", "drug", str(i), name), "r", node("disease", i)) for i, name in enumerate(NAMES)
]


def test_well_formed_fields_are_read_as_they_are(tmp_path: Path) -> None:
    to_rows(GOOD).write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    assert set(graph.nodes.filter(node_type="drug")["node_name"]) == set(NAMES)


@pytest.mark.parametrize(
    "bad",
    [
        r'"so-called \"dry\" lesion"', '"so-called "dry" lesion"', r'"a \"b\""',
        '"open, ""quote"" "here"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_quotes_inside_of_a_field_are_refused(tmp_path: Path, bad: str, packed: bool) -> None:
    lines = to_rows(GOOD[:1] * 3).write_csv().splitlines(keepends=True)
    lines[2] = lines[2].replace('"dry lesion, called X"', bad)
    path = tmp_path / "kg.csv"
    text = "".join(lines).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(InputError, match=r"kg.csv, row 3: .*quote"):
        read_graph(path)


def test_a_quote_left_open_in_a_column_that_is_not_used(tmp_path: Path) -> None:
    lines = to_rows([(node("drug", i), "r", node("disease", i)) for i in range(9)]).write_csv()
    rows = [line.split(",") for line in lines.splitlines()]
    for at in (3, 6):  # polars takes the rows in between as one field
        rows[at][1] = '"' + rows[at][1] if at == 3 else rows[at][1] + '"'
    (tmp_path / "kg.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    (warning,) = read_graph(tmp_path / "kg.csv").report.warnings
    assert "1 row has a line break between quotes (first: row 4)" in warning


def test_the_scan_agrees_with_a_parser_of_quotes(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text that the strict parser refuses, or that has a line break in a field, is odd."""
    path, found = tmp_path / "text.csv", 0
    for size in rng.integers(1, 9, 600):
        monkeypatch.setattr(quotes, "_BLOCK", int(size))
        text = "".join(rng.choice(list('ab,"\n'), 12).tolist()) + "\n"
        path.write_text(text)
        try:
            broken = any(
                "\n" in field for row in csv.reader(io.StringIO(text), strict=True) for field in row
            )
        except csv.Error:
            broken = True
        if broken:
            found += 1
            is_odd = scan_quotes(path, ",", Event()).is_odd
            assert is_odd or has_line_break_in_quotes(path), text
    assert found > 100
