"""Repeated headers, incomplete rows and conflicting nodes: all are listed at once, none is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graphs import Fact, Node, node, to_rows, to_triples

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.system.errors import InputError

GOOD: list[Fact] = [(node("drug", i), "treats", node("disease", i % 7)) for i in range(40)]
DROP, FIRST = ReadSettings(on_missing="drop"), ReadSettings(on_conflict="first")


def lines(*, numbered: bool = True) -> list[str]:
    return to_rows(GOOD, numbered=numbered).write_csv().splitlines(keepends=True)


def write(directory: Path, parts: list[str]) -> Path:
    path = directory / "kg.csv"
    path.write_text("".join(parts), "utf-8")
    return path


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_repeated_header_is_skipped_and_counted(tmp_path: Path, bom: str) -> None:
    header, *rows = lines()
    whole = read_graph(write(tmp_path, [header, *rows]))
    again = [header, *rows[:20], bom + header, *rows[20:], header]
    graph = read_graph(write(tmp_path, again))
    assert to_triples(graph) == to_triples(whole)
    assert graph.report.num_repeated_headers == 2
    assert graph.report.num_rows == 42
    (text,) = graph.report.warnings
    assert "2 rows repeat the header and are left out (first: row 22)" in text


@pytest.mark.parametrize("form", ["{}", "\ufeff{}", '"{}"', '\ufeff"{}"', " {} ", "{} "])
@pytest.mark.parametrize("change", [str.upper, str.title])
def test_a_repeated_header_is_found_in_any_spelling(
    tmp_path: Path, form: str, change: Callable[[str], str]
) -> None:
    header, *rows = lines()
    names = [form.format(change(name)) for name in header.strip().split(",")]
    graph = read_graph(write(tmp_path, [header, *rows[:20], ",".join(names) + "\n", *rows[20:]]))
    assert graph.report.num_repeated_headers == 1
    other = ",".join(reversed(names)) + "\n"
    with pytest.raises(InputError, match=r"row 22: this row is a header with other"):
        read_graph(write(tmp_path, [header, *rows[:20], other, *rows[20:]]))


def test_a_file_of_headers_is_refused(tmp_path: Path) -> None:
    header = lines()[0]
    with pytest.raises(InputError, match=r"kg.csv: every row repeats the header"):
        read_graph(write(tmp_path, [header, header]))


def test_a_header_with_other_columns_is_refused(tmp_path: Path) -> None:
    header, *rows = lines()
    other = ",".join(reversed(header.strip().split(","))) + "\n"
    with pytest.raises(InputError, match=r"kg.csv, row 22: this row is a header with other"):
        read_graph(write(tmp_path, [header, *rows[:20], other, *rows[20:]]))


def test_all_incomplete_rows_are_listed_and_can_be_left_out(tmp_path: Path) -> None:
    header, *rows = lines()
    for at in range(5, 20):
        rows[at] = rows[at].replace(f"drug {at}", ["", '""', " "][at % 3])
    rows[30] = rows[30].replace("treats,", ",", 1)
    path = write(tmp_path, [header, *rows])
    with pytest.raises(InputError) as error:
        read_graph(path)
    text = str(error.value)
    assert "row 7: x_name is missing; row 8" in text
    assert "row 16: x_name is missing; and 6 more" in text
    assert "16 rows lack a field" in text
    assert "--on-missing drop" in text
    graph = read_graph(path, DROP)
    kept = [fact for i, fact in enumerate(GOOD) if not 5 <= i < 20 and i != 30]
    (tmp_path / "rest").mkdir()
    to_rows(kept).write_csv(tmp_path / "rest" / "kg.csv")
    assert to_triples(graph) == to_triples(read_graph(tmp_path / "rest" / "kg.csv"))
    assert graph.report.num_rows == 40
    assert graph.report.num_incomplete_rows == 16
    assert "16 rows lack a field and are left out" in graph.report.warnings[0]


def test_a_row_of_ignored_columns_alone_is_not_a_blank_line(tmp_path: Path) -> None:
    header, *rows = lines()
    path = write(tmp_path, [header, *rows[:20], ",treats,,,,,,,,,,\n", "\n", *rows[20:]])
    with pytest.raises(InputError, match=r"row 22: relation, .*y_index is missing; 1 row lacks"):
        read_graph(path)
    assert read_graph(path, DROP).report.num_rows == 41


@pytest.mark.parametrize("numbered", [True, False])
def test_all_conflicting_nodes_are_listed_and_the_first_row_can_win(
    tmp_path: Path, numbered: bool
) -> None:
    header, *rows = lines(numbered=numbered)
    for at in (10, 11, 12, 17):  # diseases 3, 4, 5 and again 3
        rows[at] = rows[at].replace(f"disease {at % 7}", f"other {at % 7}")
    path = write(tmp_path, [header, *rows])
    with pytest.raises(InputError) as error:
        read_graph(path)
    for at in (3, 4, 5):
        assert f"has name 'other {at}', but in row {at + 2} it has name 'disease {at}'" in str(
            error.value
        )
    assert "3 nodes have conflicting fields" in str(error.value)
    assert "--on-conflict first" in str(error.value)
    graph = read_graph(path, FIRST)
    assert to_triples(graph) == to_triples(read_graph(write(tmp_path, lines(numbered=numbered))))
    assert not graph.nodes["node_name"].str.contains("other").any()
    assert graph.report.num_conflicting_nodes == 3
    assert "3 nodes have conflicting fields" in graph.report.warnings[0]


def test_types_and_numbers_of_the_first_row_can_win(tmp_path: Path) -> None:
    whole = read_graph(write(tmp_path, lines(numbered=False)))
    header, *rows = lines(numbered=False)
    rows[10] = rows[10].replace(",disease,", ",phenotype,")
    graph = read_graph(write(tmp_path, [header, *rows]), FIRST)
    assert to_triples(graph) == to_triples(whole)
    header, *rows = lines()
    number = to_rows(GOOD)["y_index"][10]
    rows[10] = rows[10].replace(f",{number},", ",999,")
    assert read_graph(write(tmp_path, [header, *rows]), FIRST).num_nodes == whole.num_nodes


def test_one_number_of_two_ids_is_refused_in_any_case(tmp_path: Path) -> None:
    header, *rows = lines()
    rows[10] = rows[10].replace(",3,disease,disease 3", ",77,disease,disease 3")
    path = write(tmp_path, [header, *rows])
    for settings in (ReadSettings(), FIRST):
        with pytest.raises(InputError, match=r"row 12: the node with index .* has id '77', but"):
            read_graph(path, settings)


def test_names_that_differ_in_unicode_form_or_blanks_are_one(tmp_path: Path) -> None:
    names = ["Sjögren", "Sjo\u0308gren", "Sjögren ", "Sj\u00f6gren"]
    facts = [
        (node("drug", i), "r", Node("MONDO", "disease", "1", name)) for i, name in enumerate(names)
    ]
    to_rows(facts, numbered=False).write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv")
    assert graph.nodes.filter(node_type="disease")["node_name"].to_list() == names[:1]
    assert graph.report.num_respelled_nodes == 1
    assert "1 node has names that differ only in blanks or Unicode form" in graph.report.warnings[0]


def test_the_rows_are_all_accounted_for(tmp_path: Path) -> None:
    header, *rows = lines(numbered=False)
    rows[3] = rows[3].replace("drug 3", "")
    loop = (
        to_rows([(GOOD[0][0], "r", GOOD[0][0])], numbered=False)
        .write_csv()
        .splitlines(keepends=True)[1]
    )
    path = write(tmp_path, [header, *rows, rows[0], loop, header, "\n"])
    report = read_graph(path, DROP).report
    parts = (
        report.num_facts, report.num_mirrored_facts, report.num_duplicate_rows,
        report.num_self_loops, report.num_repeated_headers, report.num_incomplete_rows,
    )  # fmt: skip
    assert parts == (39, 0, 1, 1, 1, 1)
    assert report.num_rows == sum(parts) == 43
