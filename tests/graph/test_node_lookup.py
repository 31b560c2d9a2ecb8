"""A node is found by id or name, and a failed search says what to choose from."""

from __future__ import annotations

import polars as pl
import pytest
from graphs import LOOK_UP_NODES as NODES

from clinical_drug_discovery.graph import node_lookup
from clinical_drug_discovery.graph.node_lookup import did_you_mean, find_node, find_nodes
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("DB1", 0),
        ("aspirin", 0),
        (" ASPIRIN ", 0),
        ("MONDO:1234", 3),
        ("NCBI:1234", 2),
        ("cold", 5),
    ],
)
def test_finds_by_name_id_or_source_and_id(query: str, row: int) -> None:
    assert find_node(NODES, query) == row


def test_type_narrows_the_search() -> None:
    assert find_node(NODES, "asthma", type="disease") == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("1234", r"ambiguous; choose one of NCBI:1234 \(gene/protein 'ASP'\), MONDO:1234"),
        ("asthma", r"ambiguous.*MONDO:1234 .*DrugBank:7"),
        ("COLD", r"ambiguous.*MONDO:5 .*MONDO:6"),
        ("Atorvastain", r"did you mean DrugBank:DB2 \(drug 'Atorvastatin'\)"),
        ("statin", r"names that contain it: DrugBank:DB2.*DrugBank:DB9"),
        ("", r"''"),
        ("zzzzzz", r"'zzzzzz'.* must be the name or id of a node in the graph$"),
    ],
)
def test_what_is_not_found_or_ambiguous_is_explained(query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_node(NODES, query)


def test_long_choices_are_cut() -> None:
    many = pl.concat(
        [NODES.filter(node_id="5").with_columns(node_id=pl.lit(str(i))) for i in range(11)]
    )
    with pytest.raises(InputError, match=r"choose one of MONDO:0 .*, MONDO:7 .* and 3 more$"):
        find_node(many, "Cold")


def test_errors_name_the_parameter_and_the_type() -> None:
    with pytest.raises(
        InputError, match=r"^disease \(got 'x'\) must be .* of a node of type disease "
    ):
        find_node(NODES, "x", type="disease", parameter="disease")


def test_many_are_found_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    diseases = NODES.filter(node_type="disease")
    asked = ["1234", " MONDO:5", "cold", "Cold ", "asthma", "ASTHMA", "6"]
    alone = [find_node(diseases, query, type="disease") for query in asked]
    calls = []

    def count(nodes: pl.DataFrame, query: str, *, type: str, parameter: str) -> int:
        calls.append(query)
        return find_node(nodes, query, type=type, parameter=parameter)

    monkeypatch.setattr(node_lookup, "find_node", count)
    assert find_nodes(diseases, [("", query) for query in asked], type="disease") == alone
    assert calls == ["ASTHMA"]  # the others are in the index of all names
    with pytest.raises(InputError, match=r"^line 2 \(got 'COLD'\) is ambiguous"):
        find_nodes(diseases, [("line 1", "cold"), ("line 2", "COLD")], type="disease")


def test_suggestions_for_a_word() -> None:
    assert did_you_mean("drgu", ["drug", "disease"]) == "; did you mean 'drug'?"
    assert did_you_mean("xyz", ["drug", "disease"]) == ""
