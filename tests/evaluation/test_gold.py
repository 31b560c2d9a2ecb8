"""An outside list: how rows are read, matched and filtered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from graphs import Node, node, read_facts

from clinical_drug_discovery.evaluation.gold import (
    above_metrics,
    gold_task,
    match_gold,
    outcome_table,
    parse_date,
    read_gold,
)
from clinical_drug_discovery.evaluation.metrics import bootstrap_interval
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.node_lookup import Synonym
from clinical_drug_discovery.system.errors import InputError

LIST = """drug_id\tdrug_name\tdisease_id\tdisease_name\tdate\tlabel\tnote
1\t\t0\t\t2001-05\tapproved\tknown in the graph
2\t\tMONDO:0000000\tany name\t2010\tapproved\tid in another spelling
\tDRUG 3\t0\t\t1999\tapproved\tby name, early
9999\tdrug 4\t\tdisease  0\t2011-02-03\tapproved\tby name, because the id is unknown
2\t\t0\t\t2005-01-01\tapproved\tthe same pair as above, earlier
5\t\t0\t\t2012\tfailed\t
6\t\t0\t\t2012\tcontraindicated\t
7\t\t0\t\t2012\tapproved\tand failed
7\t\t0\t\t2013\tfailed\t
8\t\t2\t\t2012\tfailed\tno approved drug
8\t\t1\t\t\tapproved\twithout a date
77\t\t1\t\t2012\tapproved\tno such drug
\tmy pill\t1\t\t2020-01-01\tapproved\tby a synonym
"""


@pytest.fixture
def graph(tmp_path: Path) -> KnowledgeGraph:
    facts: list[tuple[Node, str, Node]] = [
        (node("drug", 1), "indication", node("disease", 0)),
        (node("drug", 0), "palliation", node("disease", 1)),
        (node("drug", 2), "contraindication", node("disease", 0)),
    ]
    facts += [(node("drug", i), "drug_drug", node("drug", i + 1)) for i in range(11)]
    facts += [(node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(3)]
    return read_facts(tmp_path, facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gold.tsv"
    path.write_text(LIST, encoding="utf-8")
    return path


SYNONYMS = [Synonym("My Pill", "DrugBank", "drug", "9")]


@pytest.mark.parametrize("since", [None, "2010-01-01"])
def test_each_row_has_an_outcome(graph: KnowledgeGraph, path: Path, since: str | None) -> None:
    table = match_gold(graph, read_gold(path), since=since, synonyms=SYNONYMS)
    outcomes = [
        "known", "ranked", "ranked", "ranked", "duplicate", "compared", "compared", "conflict",
        "conflict", "alone", "ranked", "not found", "ranked",
    ]  # fmt: skip
    if since:  # the first date of drug 2 is 2005
        outcomes[1] = outcomes[2] = "earlier"
        outcomes[10] = "no date"
    assert table["outcome"].to_list() == outcomes
    reasons = table["reason"].to_list()
    assert reasons[4] == "row 3 has the same pair"
    assert reasons[7] == "rows of this pair have the labels approved and failed"
    assert reasons[11] == "drug_id '77' is not the id of a drug in the graph"
    if since:
        assert reasons[1] == "2005-01-01 is before 2010-01-01"
    shown = outcome_table(graph, table)
    assert shown["row"].to_list() == list(range(2, 15))
    assert shown["found_drug"].to_list()[1:4] == ["drug 2", "drug 3", "drug 4"]
    assert shown["found_disease"].to_list()[:4] == ["disease 0"] * 4
    assert shown["found_drug"][11] is None
    names = graph.nodes["node_name"].to_list()
    by_index = dict(zip(graph.nodes["node_index"], names, strict=True))
    for index, name in shown.select("drug_index", "found_drug").drop_nulls().iter_rows():
        assert by_index[index] == name


def test_known_and_listed_drugs_are_left_out(graph: KnowledgeGraph, path: Path) -> None:
    table = match_gold(graph, read_gold(path), since="2010-01-01", synonyms=SYNONYMS)
    found = gold_task(graph, table)
    first = node_range_of(graph, "drug")[0]
    names = graph.nodes["node_name"].to_list()
    ranked = [
        (names[a], names[b]) for a, b in zip(found.pairs.drug, found.pairs.disease, strict=True)
    ]
    assert sorted(ranked) == [("drug 4", "disease 0"), ("drug 9", "disease 1")]
    assert [names[d] for d in found.task.diseases] == ["disease 0", "disease 1"]
    np.testing.assert_array_equal(found.task.candidate + first, found.pairs.drug)
    known = [
        {names[first + i] for i in np.flatnonzero(row)} for row in found.task.known
    ]  # drug 7 has conflicting labels; the failed drug 5 stays a candidate
    assert known[0] == {"drug 1", "drug 2", "drug 3", "drug 4", "drug 7"}
    assert known[1] == {"drug 0", "drug 8", "drug 9"}
    row, column = found.others["failed"]
    assert [(int(i), names[first + j]) for i, j in zip(row, column, strict=True)] == [(0, "drug 5")]
    with pytest.raises(InputError, match=r"an approved pair to rank.*earlier: "):
        gold_task(graph, match_gold(graph, read_gold(path), since="2030-01-01"))


def test_the_order_of_rows_does_not_matter(graph: KnowledgeGraph, path: Path) -> None:
    rows = read_gold(path)
    tasks = [
        gold_task(graph, match_gold(graph, some, synonyms=SYNONYMS)) for some in (rows, rows[::-1])
    ]
    for name in ("diseases", "known", "row", "candidate"):
        np.testing.assert_array_equal(*(getattr(one.task, name) for one in tasks))


@pytest.mark.parametrize("seed", range(3))
def test_comparisons_against_loops(seed: int, graph: KnowledgeGraph, path: Path) -> None:
    table = match_gold(graph, read_gold(path), synonyms=SYNONYMS)
    task = gold_task(graph, table).task
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, task.known.shape).astype(float)
    row = rng.integers(0, len(task.diseases), 9)
    column = rng.integers(0, scores.shape[1], 9)
    won, disease = [], []
    for i, j in zip(task.row, task.candidate, strict=True):
        for k, other in zip(row, column, strict=True):
            if i == k:
                mine, its = scores[i, j], scores[i, other]
                won.append(1.0 if mine > its else 0.5 if mine == its else 0.0)
                disease.append(i)
    found = above_metrics("failed", scores, task, row, column)
    assert found["num_comparisons_failed"] == len(won)
    assert found["approved_above_failed"] == pytest.approx(np.mean(won))
    ends = bootstrap_interval(np.array(won), np.array(disease))
    assert (found["approved_above_failed_low"], found["approved_above_failed_high"]) == ends
    none = above_metrics("failed", scores, task, row[:0], column[:0])
    assert none["approved_above_failed"] is None
    assert none["num_comparisons_failed"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drug_id,disease\n1,2\n", "header with drug_id or drug_name, and with disease_id"),
        ("drug_id,drug_id,disease_id\n1,1,2\n", "each once; the header has 'drug_id', 'drug_id'"),
        ("drug_id,disease_id\n", "at least one row"),
        ("", "the header has no columns"),
        ("drug_id,disease_id\n1,2\n1\n", "row 3 of .*: 1 field, but the header has 2"),
        ("drug_id,disease_id\n1,\n", "row 2 of .*: the drug and the disease need an id or a name"),
        ("drug_id,disease_id,label\n1,2,Approved\n", r"row 2 .*: label \(got 'Approved'\) must be"),
        ("drug_id,disease_id,label\n1,2,\n", r"label \(got ''\) must be one of approved, failed"),
        ("drug_id,disease_id,date\n1,2,30.6.2015\n", r"row 2 .*: date \(got '30.6.2015'\) must be"),
        ("drug_id,disease_id,date\n1,2,2015-02-30\n", r"date \(got '2015-02-30'\)"),
    ],
)
def test_invalid_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gold.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_gold(path)


def test_dates(graph: KnowledgeGraph, tmp_path: Path) -> None:
    assert [parse_date("since", text) for text in ("2015", "2015-06", "2015-06-30")] == [
        "2015-01-01", "2015-06-01", "2015-06-30"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"since \(got '15'\) must be a date such as 2015"):
        parse_date("since", "15")
    path = tmp_path / "gold.csv"
    path.write_text("drug_id,disease_id\n2,0\n", encoding="utf-8")
    rows = read_gold(path)
    assert match_gold(graph, rows)["label"].to_list() == ["approved"]
    with pytest.raises(InputError, match=r"since \(got '2015-01-01'\) needs dates"):
        match_gold(graph, rows, since="2015-01-01")
    assert isinstance(match_gold(graph, rows), pl.DataFrame)
