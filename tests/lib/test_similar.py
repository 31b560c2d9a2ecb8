"""The nearest nodes are those of all cosines, and are shown with what the graph states."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import LOOK_UP_NODES as NODES
from graphs import Fact, Node, node, to_rows

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.models.embeddings_file import write_embeddings
from clinical_drug_discovery.models.read_embeddings import read_embeddings
from clinical_drug_discovery.show.terminal.ranked_lists import show_neighbors
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_similar_nodes_against_all_cosines(
    tmp_path: Path, rng: np.random.Generator, suffix: str
) -> None:
    values = rng.standard_normal((8, 5)).astype(np.float32)
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, NODES, torch.from_numpy(values))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosine = unit @ unit[0]
    drugs = sorted((1, 6, 7), key=lambda row: -cosine[row])
    found = similar_nodes(path, "Aspirin")
    assert [record["node_index"] for record in found] == drugs
    assert [record["rank"] for record in found] == [1, 2, 3]
    assert [record["cosine"] for record in found] == pytest.approx(cosine[drugs], abs=1e-5)
    diseases = similar_nodes(path, "Aspirin", type="disease", top=2)
    assert len(diseases) == 2
    assert {record["node_type"] for record in diseases} == {"disease"}
    with pytest.raises(InputError, match=r"type \(got 'Disease'\).*did you mean 'disease'"):
        similar_nodes(path, "Aspirin", type="Disease")
    with pytest.raises(InputError, match=r"top \(got 0\)"):
        similar_nodes(path, "Aspirin", top=0)


def embed(facts: list[Fact], directory: Path, name: str) -> Path:
    """Embed a graph without the facts of its phenotypes."""
    to_rows(facts).write_csv(directory / "kg.csv")
    output = directory / f"{name}.parquet"
    generate_gnn_embeddings(
        directory / "kg.csv", output, embedding_dim=8, hidden_dim=8, num_layers=1, num_epochs=1,
        include_node_types=["drug", "disease", "gene/protein"], cache=False, ranker=False,
    )  # fmt: skip
    return output


def make_facts(name: str = "gene/protein 0") -> list[Fact]:
    gene, symptom = node("gene/protein", 0)._replace(name=name), node("effect/phenotype", 0)
    facts: list[Fact] = [(node("drug", i), "drug_protein", gene) for i in range(4)]
    facts += [(node("disease", i), "disease_protein", gene) for i in range(3)]
    facts += [(node("drug", 1), r, node("disease", 0)) for r in ("contraindication", "off-label")]
    facts += [(node("drug", 2), "indication", node("disease", 0))]
    lonely = Node("MONDO", "disease", "9", "lonely disease")
    return [*facts, (lonely, "disease_phenotype_positive", symptom)]


def test_what_the_graph_states_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings = embed(make_facts(), tmp_path, "e")
    rows = similar_nodes(embeddings, "disease 0", type="drug")
    by_name = {row["node_name"]: (row["stated"], row["contraindicated"]) for row in rows}
    assert by_name == {
        "drug 0": ("", False), "drug 1": ("contraindication; off-label", True),
        "drug 2": ("indication", False), "drug 3": ("", False),
    }  # fmt: skip
    assert not any(row["no_facts"] for row in rows)
    show_neighbors(rows)
    assert "1 of these 4 is contraindicated" in capsys.readouterr().out
    others = similar_nodes(embeddings, "disease 0")
    assert {row["node_name"] for row in others if row["no_facts"]} == {"lonely disease"}
    show_neighbors(others)
    assert "no facts" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"node \(got 'lonely disease'\) does not have facts"):
        similar_nodes(embeddings, "lonely disease")
    shutil.rmtree(tmp_path / "e_model")
    (row, *_) = rows = similar_nodes(embeddings, "disease 0", type="drug")
    assert row["stated"] is row["contraindicated"] is row["no_facts"] is None
    show_neighbors(rows)
    assert "contraindications are not marked" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, {"explain": True}, {"explain": True, "model_dir": ...}])
def test_a_graph_of_other_nodes_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    mine, other = embed(make_facts(), tmp_path, "a"), embed(make_facts("GENE"), tmp_path, "b")
    if "model_dir" in options:
        options = {**options, "model_dir": tmp_path / "b_model"}
    else:
        shutil.rmtree(tmp_path / "a_model")
        (tmp_path / "b_model").rename(tmp_path / "a_model")
    with pytest.raises(InputError, match=r"belong to different runs: .*gene/protein 0.*GENE"):
        similar_nodes(mine, "drug 1", **options)
    nodes, values = read_embeddings(other)  # the order of rows and the spelling of files may differ
    write_embeddings(tmp_path / "b.csv", nodes, torch.from_numpy(values.copy()))
    directory = options.get("model_dir", tmp_path / "a_model")
    found = similar_nodes(tmp_path / "b.csv", "drug 1", explain=True, model_dir=directory)
    assert found[0]["evidence"]


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[phosphorylase] phosphatase [/red] activity of a rather long name " * 3
    record = {"rank": 1, "cosine": 0.5, "node_name": name, "node_type": "t", "node_id": "1"}
    unknown = dict.fromkeys(("stated", "contraindicated", "no_facts"))
    show_neighbors([{**record, "node_source": "GO", **unknown}])
    assert name.strip() in capsys.readouterr().out


def test_a_node_is_found_by_a_synonym(tmp_path: Path, rng: np.random.Generator) -> None:
    values = torch.from_numpy(rng.standard_normal((8, 5)).astype(np.float32))
    write_embeddings(tmp_path / "e.parquet", NODES, values)
    (tmp_path / "s.tsv").write_text("name\tid\nASA\tDRUGBANK:db1\n")
    asked = similar_nodes(tmp_path / "e.parquet", "asa", synonyms=tmp_path / "s.tsv")
    assert asked == similar_nodes(tmp_path / "e.parquet", "Aspirin")
