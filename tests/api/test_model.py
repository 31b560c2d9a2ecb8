"""A loaded model: the answers of the command line, and new nodes where they belong."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clinical_drug_discovery as cdd
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.system import log

COLUMNS = ["relation", "x_id", "x_type", "x_name", "y_id", "y_type", "y_name"]


def twin(model: cdd.Model, drug: str, relation: str = "drug_protein") -> pl.DataFrame:
    """The facts of a new drug that has the targets of a known drug."""
    nodes, edges = cdd.to_frames(model.graph)
    at = nodes.filter(pl.col("node_name") == drug)["node_index"].item()
    ends = pl.col("x_index"), pl.col("y_index")
    other = pl.when(ends[0] == at).then(ends[1]).otherwise(ends[0]).alias("node_index")
    mine = edges.filter(pl.col("relation") == relation, (ends[0] == at) | (ends[1] == at))
    mine = mine.select(other).join(nodes, on="node_index")
    new = (relation, "NEW1", "drug", f"New {drug}")
    rows = [(*new, *row) for row in mine.select("node_id", "node_type", "node_name").rows()]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def test_answers_are_those_of_the_command_line(model: cdd.Model, model_dir: Path) -> None:
    rows = rank_drugs(model_dir, disease="asthma", top=7, include_known=True)["drugs"]
    assert model.rank("asthma", 7, include_known=True).to_dicts() == rows
    for popularity in (True, False):
        rows = rank_drugs(model_dir, drug="Metformin", top=5, popularity=popularity)["diseases"]
        found = model.rank_diseases("Metformin", 5, popularity=popularity)
        assert found.to_dicts() == rows
    rows = similar_nodes(model_dir.with_name("e.parquet"), "Warfarin", top=4, type="disease")
    assert model.similar("Warfarin", 4, type="disease").to_dicts() == rows


def test_a_model_can_be_pickled_after_any_question(model_dir: Path) -> None:
    model = cdd.load_model(model_dir)
    explained = model.explain("Metformin", "asthma")
    model.rank_diseases("Metformin", 1)
    model.score([("Metformin", "indication", "asthma")])
    again = pickle.loads(pickle.dumps(model.add_facts(twin(model, "Atorvastatin"))))
    assert again.similar("New Atorvastatin", 1).height == 1
    again = pickle.loads(pickle.dumps(model))
    assert_frame_equal(again.explain("Metformin", "asthma"), explained)
    assert_frame_equal(again.rank("asthma", 5), model.rank("asthma", 5))


def test_synonyms_find_what_the_command_line_finds(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,id\nasthma bronchiale,MONDO:4979\nGlucophage,DrugBank:DB00331\n")
    model = cdd.load_model(model_dir, synonyms=path)
    rows = rank_drugs(model_dir, disease="Asthma Bronchiale", top=3, synonyms=path)["drugs"]
    assert model.rank("Asthma  bronchiale", 3).to_dicts() == rows
    assert model.rank_many(["asthma bronchiale"], 3).to_dicts() == rows
    assert model.rank_diseases("glucophage", 1)["drug_name"].item() == "Metformin"
    assert model.rank("asthma", drugs=["Glucophage"])["drug_name"].item() == "Metformin"
    larger = model.add_facts(twin(model, "Atorvastatin"))
    for asked in (model, larger):
        assert asked.similar("Glucophage", 1).height == 1
        assert asked.explain("Glucophage", "asthma bronchiale").columns[0] == "kind"
        assert asked.score([("Glucophage", "indication", "asthma bronchiale")]).height == 1
    with pytest.raises(cdd.InputError, match=r"synonyms \(got .*gone.csv\)"):
        cdd.load_model(model_dir, synonyms=tmp_path / "gone.csv")


def test_questions_import_only_what_they_need(model_dir: Path) -> None:
    script = (
        "import sys\n"
        "from clinical_drug_discovery.cli import make_app\n"
        "model_dir, embeddings = sys.argv[1:]\n"
        "words = ['similar', '--embeddings', embeddings, '--node', 'Warfarin', '--json']\n"
        "make_app(words)(words, standalone_mode=False)\n"
        "heavy = {'scipy', 'torch', 'rich.table', 'rapidfuzz', 'psutil'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from clinical_drug_discovery.lib.rank import rank_drugs\n"
        "from clinical_drug_discovery.lib.similar import similar_nodes\n"
        "rank_drugs(model_dir, disease='asthma', explain=True)\n"
        "rank_drugs(model_dir, drug='Metformin', popularity=False)\n"
        "similar_nodes(embeddings, 'Warfarin', explain=True)\n"
        "heavy = {'torch', 'numba', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    given = [str(model_dir), str(model_dir.with_name("e.parquet"))]
    subprocess.run([sys.executable, "-c", script, *given], check=True)


def test_many_diseases_and_few_drugs(model: cdd.Model) -> None:
    asked = ["asthma", "psoriasis"]
    both = model.rank_many(asked, top=3, hide_contraindicated=True)
    one = [model.rank(disease, top=3, hide_contraindicated=True) for disease in asked]
    assert_frame_equal(both, pl.concat(one), abs_tol=2e-4)
    every = model.rank_many(top=1)
    assert every["disease_name"].n_unique() == every.height > 100
    few = model.rank("asthma", drugs=["Warfarin", "Metformin"])
    assert set(few["drug_name"]) == {"Warfarin", "Metformin"}
    with pytest.raises(cdd.InputError, match=r"diseases, entry 2 \(got 'ASTHMA'\) is the same dis"):
        model.rank_many(["asthma", "ASTHMA"])


def test_scores_are_products_of_embeddings(model: cdd.Model) -> None:
    found = model.score(
        [("Warfarin", "drug_protein", "VKORC1"), ("VKORC1", "drug_protein", "Metformin")]
    )
    assert found["known"].to_list() == [True, False]
    nodes, values = model.embeddings()
    x, y = (values[nodes["node_name"].to_list().index(name)] for name in ("Warfarin", "VKORC1"))
    weight = model._network.decoder.relation[model.graph.relations.index("drug_protein")]
    assert found["score"][0] == pytest.approx(
        (x * weight.detach().numpy() * y).sum() / 32**0.5, rel=1e-4
    )
    assert model.score([]).height == 0
    with pytest.raises(
        cdd.InputError, match=r"row 1: relation \(got 'indication'\) must be one of"
    ):
        model.score([("Warfarin", "indication", "VKORC1")])
    with pytest.raises(cdd.InputError, match=r"must have the columns x, relation and y; they lack"):
        model.score({"x": ["Warfarin"], "y": ["VKORC1"]})


def test_an_explanation_begins_with_what_the_graph_states(model: cdd.Model) -> None:
    found = model.explain("Warfarin", "atrial fibrillation")
    assert found["kind"][0] == "stated"
    assert set(found["kind"][1:]) <= {"mechanism", "similar drug", "related disease"}
    assert found["nodes"].list.len()[0] == 2
    empty = model.explain("Metformin", "epilepsy")
    assert empty.columns == found.columns


def test_facts_that_are_known_change_nothing(model: cdd.Model) -> None:
    rows = pl.read_csv(Path(cdd.__file__).parent / "data" / "sample_kg.csv", infer_schema=False)
    for facts in (rows[:9], rows[:0]):
        same = model.add_facts(facts)
        assert same.new_nodes.is_empty()
        assert same.rank("asthma").equals(model.rank("asthma"))
        assert same.similar("Warfarin").equals(model.similar("Warfarin"))


def test_a_new_fact_about_old_nodes_is_known(model: cdd.Model) -> None:
    nodes = {row["node_name"]: row for row in model.graph.nodes.iter_rows(named=True)}
    ends = [nodes["Warfarin"], nodes["asthma"]]
    row = ["indication", *(end[f"node_{n}"] for end in ends for n in ("id", "type", "name"))]
    larger = model.add_facts(dict(zip(COLUMNS, ([value] for value in row), strict=True)))
    assert larger.new_nodes.is_empty()
    assert larger.rank("asthma", 1, drugs=["Warfarin"], include_known=True)["known"].item()
    assert larger.score([("Warfarin", "indication", "asthma")])["known"].item()
    assert not model.score([("Warfarin", "indication", "asthma")])["known"].item()


@pytest.mark.parametrize("drug", ["Atorvastatin", "Sertraline"])
def test_a_new_drug_with_known_targets_is_near_its_twin(model: cdd.Model, drug: str) -> None:
    larger = model.add_facts(twin(model, drug))
    assert larger.new_nodes["node_id"].to_list() == ["NEW1"]
    assert model.new_nodes.is_empty()
    assert model.graph.num_nodes == 820 < larger.graph.num_nodes
    nearest = larger.similar(f"New {drug}", top=15)["node_name"].to_list()
    assert drug in nearest  # of 195 drugs
    treated = larger.rank_diseases(drug, 1, include_known=True)["disease_name"][0]
    best = larger.rank(treated, top=25, include_known=True)["drug_name"].to_list()
    assert f"New {drug}" in best  # of 196


def test_neither_the_order_nor_the_form_of_facts_matters(
    model: cdd.Model, model_dir: Path, tmp_path: Path
) -> None:
    facts = twin(model, "Atorvastatin")
    extra = ("disease_protein", "N2", "disease", "New disease", *facts.row(0)[4:])
    facts = pl.concat([facts, pl.DataFrame([extra], schema=COLUMNS, orient="row")])
    one = model.add_facts(facts)
    other = model.add_facts(facts.reverse().to_dict(as_series=False))
    assert np.array_equal(one.embeddings().values, other.embeddings().values)
    assert one.new_nodes["node_name"].to_list() == ["New disease", "New Atorvastatin"]
    asked = one.rank("New disease", top=5)
    assert asked.equals(other.rank("New disease", top=5))
    path = tmp_path / "facts.csv"
    facts.write_csv(path)
    record = rank_drugs(model_dir, disease="N2", top=5, add=path)
    assert record["drugs"] == asked.to_dicts()
    assert record["new_nodes"] == ["New disease", "New Atorvastatin"]
    rows = similar_nodes(model_dir.with_name("e.parquet"), "NEW1", top=5, add=path)
    assert rows == one.similar("NEW1", top=5).to_dicts()
    with pytest.raises(cdd.InputError, match=r"^add \(got .*gone.csv\) cannot be read"):
        rank_drugs(model_dir, disease="N2", add=tmp_path / "gone.csv")
    again = one.add_facts(twin(one, "Sertraline").with_columns(x_id=pl.lit("NEW2")))
    assert again.new_nodes["node_id"].to_list() == ["NEW2"]
    assert again.graph.num_nodes == one.graph.num_nodes + 1


def test_a_new_node_with_treatments_alone_is_ranked_with_a_warning(
    model: cdd.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(log, "warning", warnings.append)
    facts = twin(model, "Metformin", "indication")
    larger = model.add_facts(facts)
    assert [text.split()[-2:] for text in warnings] == [["New", "Metformin"]]
    assert np.isfinite(larger.embeddings().values).all()
    known = larger.rank(facts["y_name"][0], top=200, include_known=True)
    assert known.filter(pl.col("drug_id") == "NEW1")["known"].to_list() == [True]


def test_another_graph_is_embedded_with_the_same_layers(model: cdd.Model) -> None:
    nodes, values = model.embed(model.graph)
    own_nodes, own = model.embeddings()
    assert nodes.equals(own_nodes)
    assert np.allclose(values, own, atol=1e-5)
    some = cdd.read_graph(
        Path(cdd.__file__).parent / "data" / "sample_kg.csv", exclude_relations=["drug_drug"]
    )
    other = model.embed(some)
    assert other.nodes.equals(own_nodes)
    drugs = (own_nodes["node_type"] == "drug").to_numpy()
    changed = ~np.isclose(other.values, own, atol=1e-5).all(axis=1)
    assert changed[drugs].mean() > 0.9
    edge = {"relation": ["likes"], "x_index": [0], "y_index": [1]}
    pets = {"node_index": [0, 1], "node_id": ["a", "b"], "node_type": ["cat", "dog"]}
    with pytest.raises(cdd.InputError, match=r"must not have the node type cat: the model lacks"):
        model.embed(cdd.graph_from_frames(pets, edge))
    with pytest.raises(cdd.InputError, match=r"graph \(got str\) must be a KnowledgeGraph"):
        model.embed("kg.csv")  # type: ignore[arg-type]  # wrong on purpose


def test_embeddings_that_are_gone_are_computed_again(
    model: cdd.Model, model_dir: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(model_dir, tmp_path / "m")
    (alone / "ranker.safetensors").unlink()
    found = cdd.load_model(alone)
    assert np.allclose(found.embeddings("drug").values, model.embeddings("drug").values, atol=1e-5)
    with pytest.raises(cdd.InputError, match="does not have a drug ranker"):
        found.rank("asthma")
    (alone / "weights.safetensors").unlink()
    with pytest.raises(cdd.InputError, match=r"must hold weights\.safetensors"):
        cdd.load_model(alone)
