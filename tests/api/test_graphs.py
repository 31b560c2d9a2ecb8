"""Graphs of other packages: there and back without a loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import clinical_drug_discovery as cdd
from clinical_drug_discovery.graph.cache import content_sha256
from clinical_drug_discovery.graph.reading import room

SMALL = {"embedding_dim": 8, "hidden_dim": 8, "num_epochs": 2}


@pytest.fixture(scope="module")
def sample() -> cdd.KnowledgeGraph:
    return cdd.sample_graph()


def test_a_graph_comes_back_from_frames_and_hetero_data(sample: cdd.KnowledgeGraph) -> None:
    by_frames = cdd.graph_from_frames(*cdd.to_frames(sample))
    by_hetero_data = cdd.graph_from_hetero_data(cdd.to_hetero_data(sample))
    for other in (by_frames, by_hetero_data):
        assert content_sha256(other) == content_sha256(sample)
        assert other.vocabulary == sample.vocabulary


def test_hetero_data_without_names_and_with_reversed_edges() -> None:
    pyg = pytest.importorskip("torch_geometric.data")
    data = pyg.HeteroData()
    data["drug"].num_nodes, data["gene"].num_nodes = 2, 3
    edges = torch.tensor([[0, 1, 1], [0, 0, 2]])
    data["drug", "binds", "gene"].edge_index = edges
    data["gene", "rev_binds", "drug"].edge_index = edges.flip(0)
    graph = cdd.graph_from_hetero_data(data)
    assert graph.relations == ("binds",)
    assert graph.nodes["node_id"].to_list() == ["0", "1", "0", "2"]
    assert graph.report.num_facts == 3
    data["drug"].node_id = ["a"]
    with pytest.raises(cdd.InputError, match="node_id of node type 'drug' has 1 entries, but"):
        cdd.graph_from_hetero_data(data)
    del data["drug"].node_id
    data["drug", "binds", "gene"].edge_index = edges + 2
    with pytest.raises(cdd.InputError, match=r"edge_index of \('drug', .* must be nodes of drug"):
        cdd.graph_from_hetero_data(data)


def test_a_neighborhood_has_all_facts_between_its_nodes(sample: cdd.KnowledgeGraph) -> None:
    nodes, edges = cdd.to_frames(sample)
    near = cdd.to_networkx(sample, "Warfarin")
    at = nodes.filter(pl.col("node_name") == "Warfarin")["node_index"].item()
    own = edges.filter((pl.col("x_index") == at) | (pl.col("y_index") == at))
    expected = {at, *own["x_index"], *own["y_index"]}
    assert set(near.nodes) == expected
    inside = edges.filter(pl.all_horizontal(pl.col("x_index", "y_index").is_in(list(expected))))
    assert near.number_of_edges() == inside.height > own.height
    assert near.nodes[at]["node_type"] == "drug"
    with pytest.raises(cdd.InputError, match=r"max_nodes \(got 5\) is too small: 1 steps from"):
        cdd.to_networkx(sample, "Warfarin", max_nodes=5)
    with pytest.raises(cdd.InputError, match=r"num_steps \(got 0\)"):
        cdd.to_networkx(sample, "Warfarin", num_steps=0)


def test_a_file_is_read_with_settings(
    sample: cdd.KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
    assert content_sha256(cdd.read_graph(path, cache=False)) == content_sha256(sample)
    some = cdd.read_graph(path, include_node_types=["drug", "disease"], cache_dir=tmp_path)
    assert some.node_type_names == ("disease", "drug")
    with pytest.raises(cdd.InputError, match=r"limit_nodes \(got 0\)"):
        cdd.read_graph(path, limit_nodes=0)
    monkeypatch.setattr(room, "_LEAST", 2**50)
    monkeypatch.setattr(room, "_BUFFERS", 2**50)
    scratch = tmp_path / "scratch"
    read = cdd.read_graph(path, memory_budget="64GiB", scratch_dir=scratch, cache=False)
    assert content_sha256(read) == content_sha256(sample)
    assert list(scratch.iterdir()) == []
    with pytest.raises(cdd.InputError, match=r"memory_budget \(got '4GiB'\) needs scratch_dir"):
        cdd.read_graph(path, memory_budget="4GiB")


@pytest.mark.parametrize("name", ["generate_gnn_embeddings", "generate_hgt_embeddings"])
def test_a_graph_in_memory_is_embedded_without_a_file(
    name: str, sample: cdd.KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate = getattr(cdd, name)
    found = generate(sample, None, **SMALL)
    assert os.listdir() == []
    assert found["nodes"].equals(sample.nodes)
    assert (found["output_file"], found["model_dir"], found["has_ranker"]) == ("", "", False)
    stats = generate(sample, "e.parquet", ranker=False, **SMALL)
    model = cdd.load_model(stats["model_dir"])
    nodes, values = model.embeddings()
    assert nodes.equals(found["nodes"])
    assert np.array_equal(values, found["embeddings"])
    assert np.allclose(model.embed(sample).values, values, atol=1e-5)
    assert stats["final_loss"] == found["final_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_nodes": 5}, r"limit_nodes \(got 5\) must be left out: the graph is already read"),
        ({"nodes": "n.csv"}, r"nodes \(got n.csv\) must be left out: the graph has its nodes"),
        ({"model_dir": "m"}, r"model_dir \(got m\) must be left out if output_csv is None"),
        ({"resume": True}, r"resume \(got True\) must be left out if output_csv is None"),
        ({"cache_dir": "c"}, r"cache_dir \(got c\) must be left out: the graph is already read"),
    ],
)
def test_options_that_a_graph_in_memory_does_not_take(
    sample: cdd.KnowledgeGraph, options: dict[str, object], message: str
) -> None:
    with pytest.raises(cdd.InputError, match=message):
        # mypy cannot know which parameter each option is.
        cdd.generate_hgt_embeddings(sample, None, **options)  # type: ignore[arg-type]
