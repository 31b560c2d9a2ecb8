"""The answers of the explorer equal those of the model and the graph."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

import clinical_drug_discovery as cdd
from clinical_drug_discovery.graph.node_lookup import Synonym
from clinical_drug_discovery.show.explore.answers import Answers, Choice, pieces
from clinical_drug_discovery.show.explore.map import Maps, principal_plane
from clinical_drug_discovery.show.explore.new_node import add_new_node, relations_of
from clinical_drug_discovery.show.explore.open_model import OpenModel

SYNONYM = Synonym("Coumadin", "DrugBank", "drug", "DB00682")


@pytest.fixture(scope="module")
def opened(model: cdd.Model) -> OpenModel:
    return OpenModel(model, [SYNONYM])


@pytest.fixture(scope="module")
def answers(opened: OpenModel) -> Answers:
    return Answers(opened)


def number_of(opened: OpenModel, name: str) -> int:
    (number,) = opened.graph.nodes.filter(pl.col("node_name") == name)["node_index"]
    return int(number)


def test_the_page_knows_if_the_graph_lists_contraindications(model: cdd.Model) -> None:
    opened = OpenModel(model)
    assert Answers(opened).home()["contraindications"]
    words = replace(opened.graph.vocabulary, contraindicates=())
    opened.graph = replace(opened.graph, vocabulary=words)
    assert not Answers(opened).home()["contraindications"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("warf", "Warfarin"),  # the beginning of a name
        ("DB00682", "Warfarin"),
        ("drugbank:db00682", "Warfarin"),
        ("coumad", "Warfarin"),  # of a synonym
        ("DISEASE  parkinson", "Parkinson disease"),  # only a similar name
        ("asthma", "asthma"),  # the whole name comes before longer ones
    ],
)
def test_suggestions(answers: Answers, text: str, first: str) -> None:
    found = answers.search(text)
    assert found[0]["name"] == first
    assert found[0]["synonym"] == ("Coumadin" if text == "coumad" else "")
    assert len({one["node"] for one in found}) == len(found) <= 12


def test_suggestions_have_the_identifier_of_the_page(answers: Answers) -> None:
    for text, shown in (("parkinson disease", "MONDO:0005180"), ("warfarin", "DB00682")):
        found = answers.search(text)[0]
        assert found["id"] == answers.node(found["node"])["links"][0]["text"] == shown


def test_no_suggestions_for_nothing(answers: Answers) -> None:
    assert answers.search(" ") == answers.search("zzqqxx") == answers.search("a", ["planet"]) == []
    assert {one["type"] for one in answers.search("a", ["pathway"])} == {"pathway"}


def test_lists_are_those_of_the_model(answers: Answers, opened: OpenModel) -> None:
    choice = Choice(include_known=True)
    asked = answers.drugs(number_of(opened, "asthma"), 7, choice)["rows"]
    expected = opened.model.rank("asthma", 7, include_known=True)
    assert [one["node"] for one in asked] == expected["drug_index"].to_list()
    assert [one["probability"] for one in asked] == expected["probability"].to_list()
    metformin = number_of(opened, "Metformin")
    for rules in (choice, Choice(), Choice(hide_contraindicated=True, popularity=False)):
        found = answers.diseases(metformin, 7, rules)
        also = opened.model.rank_diseases("Metformin", 1000, **rules._asdict())
        assert [one["name"] for one in found["rows"]] == also["disease_name"].to_list()[:7]
        assert found["total"] == also.height


def test_facts_of_a_node_are_those_of_the_graph(answers: Answers, opened: OpenModel) -> None:
    _, edges = cdd.to_frames(opened.graph)
    for name in ("Warfarin", "asthma", "SLC6A4"):
        number = number_of(opened, name)
        found = answers.node(number)
        own = edges.filter((pl.col("x_index") == number) | (pl.col("y_index") == number))
        assert sum(group["count"] for group in found["groups"]) == found["facts"] == own.height
        for group in found["groups"]:
            asked = (group["relation"], group["type"])
            every = answers.facts(number, *asked, 0, 1000)
            assert len(every) == group["count"]
            assert every[:12] == group["nodes"]
            assert answers.facts(number, *asked, 1, 2) == every[1:2]
            rows = np.array(opened.rows([one["node"] for one in every]))
            cosines = opened.cosines(opened.row(number), rows)
            assert (np.diff(cosines) <= 0).all()


def test_reasons_are_those_of_the_model(answers: Answers, opened: OpenModel) -> None:
    drug, disease = (number_of(opened, name) for name in ("Haloperidol", "Parkinson disease"))
    found = answers.why(drug, disease, Choice())
    expected = opened.model.explain("Haloperidol", "Parkinson disease")
    sentences = found["stated"] + found["evidence"]
    texts = ["".join(piece["text"] for piece in one["pieces"]) for one in sentences]
    assert texts == expected["text"].to_list()
    assert [one["harms"] for one in found["stated"]] == [True]
    ranked = opened.model.rank("Parkinson disease", 1000)
    listed = ranked.filter(pl.col("drug_index") == drug).row(0, named=True)
    assert found["listed"]["rank"] == listed["rank"]
    assert found["candidates"] == ranked.height
    network = found["network"]
    places = {one["node"]: one["place"] for one in network["nodes"]}
    assert (places[drug], places[disease]) == (0, 1)
    assert all(0 < place < 1 for n, place in places.items() if n not in (drug, disease))
    assert {drug, disease} in [{one["source"], one["target"]} for one in network["edges"]]
    on_paths = {node["node_index"] for path in expected["nodes"] for node in path}
    assert set(places) == on_paths


def test_a_known_treatment_has_its_rank_among_all_drugs(
    answers: Answers, opened: OpenModel
) -> None:
    drug, disease = number_of(opened, "Levodopa"), number_of(opened, "Parkinson disease")
    found = answers.why(drug, disease, Choice())["listed"]
    ranked = opened.model.rank("Parkinson disease", 1000, include_known=True)
    assert found["known"]
    assert found["rank"] == ranked.filter(pl.col("drug_index") == drug)["rank"].item()


def test_similar_nodes_and_neighbors(answers: Answers, opened: OpenModel) -> None:
    number = number_of(opened, "Warfarin")
    expected = opened.model.similar("Warfarin", 5, type="disease")
    found = answers.similar(number, "disease", 5)
    assert [one["node"] for one in found] == expected["node_index"].to_list()
    assert [one["cosine"] for one in found] == expected["cosine"].to_list()
    facts = {o for ends in opened.facts_of(opened.row(number)).values() for o in ends.tolist()}
    first = answers.neighbors(number, [number], 4)
    rest = answers.neighbors(number, [number, *(one["node"] for one in first["nodes"])], 50)
    listed = [opened.row(one["node"]) for one in first["nodes"] + rest["nodes"]]
    assert len(first["nodes"]) == 4
    assert sorted(listed) == sorted(facts)
    cosines = opened.cosines(opened.row(number), np.array(listed))
    assert cosines[:4].min() >= cosines[4:].max()
    for edge in first["edges"] + rest["edges"]:
        source, target = opened.rows([edge["source"], edge["target"]])
        kinds = [kind for kind, ends in opened.facts_of(source).items() if target in ends]
        assert edge["phrase"] in [opened.phrase(kind) for kind in kinds]


def test_the_map_is_the_plane_of_the_two_largest_variances(opened: OpenModel) -> None:
    nodes, values = opened.model.embeddings("drug")
    data = Maps(opened).positions("drug")
    size = len(data) // 12
    numbers = np.frombuffer(data, "<i4", size)
    places = np.frombuffer(data, "<f4", offset=4 * size).reshape(size, 2)
    assert numbers.tolist() == nodes["node_index"].to_list()
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    left, sizes, _ = np.linalg.svd(unit - unit.mean(axis=0))
    expected = left[:, :2] * sizes[:2]
    expected /= np.abs(expected).max()
    assert np.allclose(np.abs(places), np.abs(expected), atol=1e-4)
    assert np.abs(places).max() == pytest.approx(1)


@pytest.mark.parametrize("values", [np.zeros((0, 4)), np.zeros((3, 4)), np.ones((3, 4))])
def test_the_map_of_vectors_without_differences(values: np.ndarray) -> None:
    assert (principal_plane(values.astype(np.float32)) == 0).all()


def test_a_new_drug(opened: OpenModel) -> None:
    targets = [number_of(opened, name) for name in ("DRD2", "DRD3")]
    facts = [{"relation": "drug_protein", "node": node} for node in targets]
    asked = {"name": " Newpexole ", "type": "drug", "facts": facts}
    larger, number = add_new_node(opened, asked)
    (described,) = larger.describe([larger.row(number)])
    assert (described["name"], described["facts"]) == ("Newpexole", 2)
    found = Answers(larger)
    assert found.search("newpex")[0]["node"] == number
    assert found.search("coumad")[0]["name"] == "Warfarin"
    ranked = found.drugs(number_of(larger, "Parkinson disease"), 1000, Choice())["rows"]
    assert number in [one["node"] for one in ranked]
    again, other = add_new_node(larger, {**asked, "name": "Other"})
    assert again.describe([again.row(other)])[0]["id"] == "NEW:NEW2"
    assert opened.graph.num_nodes + 2 == again.graph.num_nodes


def test_a_new_drug_has_its_facts_before_the_model_is_ready(
    model: cdd.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go = threading.Event(), threading.Event()
    on = cdd.Model._on

    def slow(self: cdd.Model, extended: Any) -> cdd.Model:
        started.set()
        assert go.wait(60)
        return on(self, extended)

    monkeypatch.setattr(cdd.Model, "_on", slow)
    opened = OpenModel(model)
    targets = [number_of(opened, name) for name in ("DRD3", "DRD2", "HMGCR")]
    facts = [{"relation": "drug_protein", "node": node} for node in targets]
    larger, number = add_new_node(opened, {"name": "Newdrug", "type": "drug", "facts": facts})
    answers, asthma = Answers(larger), number_of(opened, "asthma")
    assert started.wait(60)
    early = answers.node(number)
    assert not early["nearest"]
    assert [one["node"] for one in early["groups"][0]["nodes"]] == sorted(targets)
    rest = answers.facts(number, "drug_protein", "gene/protein", 1, 3, nearest=False)
    assert [one["node"] for one in rest] == sorted(targets)[1:]
    assert answers.search("newdr")[0]["node"] == number
    assert {one["node"] for one in answers.neighbors(number, [number], 9)["nodes"]} == set(targets)
    assert not answers.node(asthma)["nearest"]
    assert Answers(opened).drugs(asthma, 5, Choice())["rows"]  # the model before answers meanwhile
    with ThreadPoolExecutor(1) as thread:
        ranked = thread.submit(answers.diseases, number, 30, Choice())
        assert not ranked.done()
        go.set()
        found = ranked.result(60)
    expected = model.add_facts(
        {
            "relation": ["drug_protein"] * 3,
            "x_id": ["NEW1"] * 3,
            "x_type": ["drug"] * 3,
            "x_name": ["Newdrug"] * 3,
            "x_source": ["NEW"] * 3,
            **{
                f"y_{name}": opened.graph.nodes[f"node_{name}"][opened.rows(targets)].to_list()
                for name in ("id", "type", "name", "source")
            },
        }
    )
    ranks = expected.rank_diseases("NEW:NEW1", 30)
    assert [one["node"] for one in found["rows"]] == ranks["disease_index"].to_list()
    assert [one["probability"] for one in found["rows"]] == ranks["probability"].to_list()
    own, other = (m.embeddings().values for m in (larger.model, expected))
    assert np.array_equal(own, other)
    assert answers.node(number)["nearest"]


def test_an_error_of_the_thread_reaches_those_who_wait(
    model: cdd.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: cdd.Model, extended: Any) -> cdd.Model:
        raise cdd.InputError("the embeddings hold NaN")

    monkeypatch.setattr(cdd.Model, "_on", broken)
    opened = OpenModel(model)
    fact = {"relation": "drug_protein", "node": number_of(opened, "DRD2")}
    larger, number = add_new_node(opened, {"name": "New", "type": "drug", "facts": [fact]})
    again, _ = add_new_node(larger, {"name": "Next", "type": "drug", "facts": [fact]})
    for one in (larger, again):
        with pytest.raises(cdd.InputError, match="hold NaN"):
            Answers(one).diseases(number, 5, Choice())
        assert Answers(one).node(number)["name"] == "New"


FACT = {"relation": "drug_protein", "node": 1}


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ([], "new node (got []) must have name"),
        ({"name": " ", "type": "drug", "facts": [FACT]}, "name (got ' ') must be a text"),
        ({"name": "x" * 201, "type": "drug", "facts": [FACT]}, "must be a text of 1 to 200"),
        ({"name": "half an emoji \ud83d", "type": "drug", "facts": [FACT]}, "valid in UTF-8"),
        ({"name": "New", "type": "planet", "facts": [FACT]}, "type (got 'planet') must be"),
        ({"name": "New", "type": "drug", "facts": []}, "facts (got []) must be a list of 1 to"),
        ({"name": "New", "type": "drug", "facts": [7]}, "fact 1 (got 7) must have a relation"),
        ({"name": "New", "type": "drug", "facts": [FACT | {"node": "1"}]}, "fact 1 (got {"),
        ({"name": "New", "type": "drug", "facts": [FACT | {"node": 10**6}]}, "node (got 1000000)"),
        ({"name": "New", "type": "drug", "facts": [FACT | {"relation": "eats"}]}, "relation"),
    ],
)
def test_a_new_drug_that_is_wrong(opened: OpenModel, asked: Any, rule: str) -> None:
    with pytest.raises(cdd.InputError) as error:
        add_new_node(opened, asked)
    assert rule in str(error.value)


def test_the_form_offers_the_relations_of_the_type(opened: OpenModel) -> None:
    found = relations_of(opened, "drug")
    assert {"relation": "drug_protein", "type": "gene/protein", "phrase": "binds"} in found
    assert len(found) == len({(one["relation"], one["type"]) for one in found})


def test_a_sentence_is_cut_at_its_nodes() -> None:
    path = [
        {"node_index": i, "node_name": name, "node_type": "t"}
        for i, name in enumerate(["A", "binds", "<b>"])
    ]
    cut = pieces("A binds binds, which treats <b>", path)
    assert "".join(piece["text"] for piece in cut) == "A binds binds, which treats <b>"
    assert [piece.get("node") for piece in cut] == [0, None, 1, None, 2]
