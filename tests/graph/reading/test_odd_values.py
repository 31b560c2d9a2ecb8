"""Values and rows that are probably not what they seem give a warning; the graph holds them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from graphs import Fact, node, to_rows

from clinical_drug_discovery.graph.read import read_graph

GOOD: list[Fact] = [
    (node("drug", 10 + i), "treats", node("disease", 5000 + i % 4)) for i in range(12)
]


def warnings_of(directory: Path, text: str) -> tuple[str, ...]:
    path = directory / "kg"
    path.write_text(text, "utf-8")
    every = read_graph(path).report.warnings
    return tuple(text for text in every if "no id begins with a type" not in text)


def rows() -> pl.DataFrame:
    return to_rows(GOOD, numbered=False)


@pytest.mark.parametrize("word", ["NA", "nan", "None", "<NA>", "\\N", "#N/A"])
@pytest.mark.parametrize("column", ["relation", "y_type", "y_id"])
def test_ids_and_types_such_as_na_give_a_warning(tmp_path: Path, word: str, column: str) -> None:
    # In some rows, two diseases become one; a whole column of relations or types is NA.
    here = (pl.int_range(pl.len()) < 2) | (column != "y_id")
    known = rows().with_columns(y_name=pl.lit("unknown"))
    odd = known.with_columns(pl.when(here).then(pl.lit(word)).otherwise(column).alias(column))
    (text,) = warnings_of(tmp_path, odd.write_csv())
    assert f"{column.removeprefix('y_')} {word!r}" in text
    assert "1 value is usual for a missing value" in text


def test_names_such_as_na_are_names(tmp_path: Path) -> None:
    named = rows().with_columns(y_name=pl.lit("NA"))
    assert warnings_of(tmp_path, named.write_csv()) == ()


@pytest.mark.parametrize("name", ["'one'", ' "one"', '"one"', 'so \\"one\\"'])
def test_quotes_that_are_taken_as_characters_give_a_warning(tmp_path: Path, name: str) -> None:
    odd = rows().with_columns(x_name=pl.lit(name))
    (text,) = warnings_of(tmp_path, odd.write_csv())
    assert text.count(repr(name)) == 3
    assert "12 values have quotes around" in text


def test_a_header_in_other_words_gives_a_warning(tmp_path: Path) -> None:
    triples = rows().select("x_id", "relation", "y_id").write_csv(include_header=False)
    more = "1\tother\t2\n3\tother\t4\n"
    for at in (0, len(triples)):
        text = triples[:at] + "Kopf,Beziehung,Ende\n" + triples[at:] + more.replace("\t", ",")
        (warning,) = warnings_of(tmp_path, text)
        assert f"row {1 if at == 0 else 13}: neither the nodes nor the relation" in warning
        assert "'Kopf', 'Beziehung', 'Ende'" in warning
    header, *lines = rows().write_csv().splitlines(keepends=True)
    other = ",".join(f"spalte{i}" for i in range(len(header.split(",")))) + "\n"
    (warning,) = warnings_of(tmp_path, "".join([header, *lines[:5], other, *lines[5:], other]))
    assert "row 7: neither the nodes nor the relation" in warning


def test_triples_with_the_relation_last_give_a_warning(tmp_path: Path) -> None:
    facts = [f"drug{i},{'treats' if i % 2 else 'harms'},disease{i % 11}" for i in range(30)]
    assert warnings_of(tmp_path, "\n".join([*facts, ""])) == ()
    swapped = [",".join(line.split(",")[i] for i in (0, 2, 1)) for line in facts]
    (warning,) = warnings_of(tmp_path, "\n".join([*swapped, ""]))
    assert "second column has more different values (11) than the third (2)" in warning


def test_ids_of_triples_without_a_type_give_a_warning(tmp_path: Path) -> None:
    facts = [f"Compound::DB{i},treats,Disease:{':' * (i > 2)}{i % 5}" for i in range(9)]
    (warning,) = warnings_of(tmp_path, "\n".join([*facts, ""]))
    assert "3 of 17 ids do not name a type with ::, so that the type is 'entity'" in warning
    assert "'Disease:0' (row 1)" in warning


def test_a_column_of_weights_gives_a_warning(tmp_path: Path) -> None:
    lines = [f"drug{i},disease{i % 5},0.{i + 11}" for i in range(12)]
    (warning,) = warnings_of(tmp_path, "\n".join([*lines, ""]))
    assert "12 ids of triples are decimal numbers (0.11, 0.12, 0.13)" in warning


def test_unusual_but_good_triples_give_no_warning(tmp_path: Path) -> None:
    signs = [f"GNBR::{sign}::Compound:Gene" for sign in ("A+", "A-", "E+", "E-", "E")]
    for lines in (
        [f"Compound::DB{i},{name},Gene::{i % 7}" for i in range(20) for name in signs],
        ["aspirin,treats,headache", "ibuprofen,relieves,fever"],
        [f"/m/0{i}a,/film/x/{i % 4},/m/0{i}b" for i in range(1, 30)],
        [f"0{i:07d},_hypernym,0{i + 3:07d}" for i in range(1, 30)],
        [f"1.1.1.{i},catalyzes,R-HSA-{i + 1000}" for i in range(30)],
    ):
        assert warnings_of(tmp_path, "\n".join([*lines, ""])) == ()
