"""What the public functions promise: signature, record, files, determinism, clean refusals."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from graphs import Fact, to_rows
from safetensors.torch import load_file

from clinical_drug_discovery.blocks import full_block
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.outputs import read_embeddings
from clinical_drug_discovery.sage import GraphSage
from clinical_drug_discovery.stats import EmbeddingStats
from clinical_drug_discovery.tables import read_graph

SMALL: dict[str, Any] = {"embedding_dim": 12, "hidden_dim": 8, "num_layers": 2, "num_epochs": 3}


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts, both=True).write_csv(path)
    return path


def test_signature_is_the_seeds() -> None:
    parameters = inspect.signature(generate_gnn_embeddings).parameters
    positional = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    assert positional == {
        "edges_csv": inspect.Parameter.empty,
        "output_csv": inspect.Parameter.empty,
        "embedding_dim": 512,
        "hidden_dim": 256,
        "num_layers": 3,
        "num_epochs": 100,
        "learning_rate": 0.01,
        "device": None,
        "edge_batch_size": 10_000,
    }
    assert {"limit_nodes", "include_node_types", "seed", "memory_budget", "model_dir"} <= {
        name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY
    }


def test_record_and_files(edges: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "e.csv"
    stats = generate_gnn_embeddings(str(edges), str(output), device="cpu", seed=5, **SMALL)
    graph = read_graph(edges)
    assert list(stats) == [field.name for field in fields(EmbeddingStats)]
    assert json.loads(json.dumps(stats)) == stats
    expected = {
        "num_nodes": graph.num_nodes,
        "saved_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "num_relations": 5,
        "device": "cpu",
        "seed": 5,
        "read_report": graph.report.to_dict(),
        "output_file": str(output),
        "model_dir": str(tmp_path / "new" / "e_model"),
        **SMALL,
    }
    assert {name: stats[name] for name in expected} == expected
    assert stats["collapse"].keys() == set(graph.node_type_names)
    assert 0 < stats["final_loss"] < 10
    assert 0 < stats["peak_memory_gib"] < 64
    nodes, values = read_embeddings(output)
    assert values.shape == (graph.num_nodes, 12)
    assert nodes["node_index"].is_sorted()
    model_dir = Path(stats["model_dir"])
    assert {path.name for path in model_dir.iterdir()} == {
        "weights.safetensors", "config.json", "nodes.parquet", "history.csv", "stats.json",
    }  # fmt: skip
    assert json.loads((model_dir / "stats.json").read_text()) == stats
    history = pl.read_csv(model_dir / "history.csv")
    assert history["epoch"].to_list() == [1, 2, 3]
    assert history["loss"][-1] == stats["final_loss"]


def test_the_saved_model_gives_the_saved_embeddings(edges: Path, tmp_path: Path) -> None:
    stats = generate_gnn_embeddings(edges, tmp_path / "e.parquet", **SMALL)
    _, values = read_embeddings(tmp_path / "e.parquet")
    weights = load_file(Path(stats["model_dir"]) / "weights.safetensors")
    config = json.loads((Path(stats["model_dir"]) / "config.json").read_text())
    model = GraphSage(
        config["num_nodes"],
        config["hidden_dim"],
        config["embedding_dim"],
        config["num_layers"],
        torch.Generator(),
    )
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    )
    graph = read_graph(edges)
    with torch.no_grad():
        z = model(full_block(graph), full_block(graph)).numpy()
    saved_nodes = pl.read_parquet(Path(stats["model_dir"]) / "nodes.parquet")
    assert saved_nodes.equals(graph.nodes)
    order = saved_nodes["node_index"].arg_sort().to_numpy()
    np.testing.assert_allclose(values, z[order], rtol=1e-4, atol=1e-5)
    assert (weights["decoder.relation"] != 1).any()  # it starts as ones
    assert weights["decoder.relation"].shape == (len(config["relations"]), 12)


def test_same_seed_same_bytes_whatever_the_order_of_rows(
    edges: Path, tmp_path: Path, facts: list[Fact]
) -> None:
    shuffled = tmp_path / "shuffled.csv"
    to_rows(facts, both=True).sample(fraction=1, shuffle=True, seed=1).write_csv(shuffled)
    contents = []
    threads = torch.get_num_threads()
    for name, path, options in (
        ("a", edges, {}),
        ("b", edges, {}),
        ("c", shuffled, {}),
        ("other", edges, {"seed": 1}),
    ):
        generate_gnn_embeddings(path, tmp_path / f"{name}.parquet", **{**SMALL, **options})
        contents.append((tmp_path / f"{name}.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2] != contents[3]
    assert torch.get_num_threads() == threads


def test_nothing_global_is_touched(edges: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    generate_gnn_embeddings(edges, tmp_path / "e.npy", **SMALL)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 1}, r"embedding_dim \(got 1\) must be a whole number of at least 2"),
        ({"hidden_dim": -1}, r"hidden_dim \(got -1\)"),
        ({"num_layers": 0}, r"num_layers \(got 0\)"),
        ({"num_epochs": 0}, r"num_epochs \(got 0\)"),
        ({"edge_batch_size": 0}, r"edge_batch_size \(got 0\)"),
        ({"embedding_dim": 1.5}, r"embedding_dim \(got 1.5\)"),
        ({"learning_rate": 0.0}, r"learning_rate \(got 0.0\)"),
        ({"learning_rate": float("nan")}, r"learning_rate \(got nan\)"),
        ({"learning_rate": 1e30}, r"learning_rate \(got 1e\+30\) is too high: the loss of epoch"),
        ({"learning_rate": 1e30, "num_epochs": 1}, r"learning_rate .*NaN or infinity"),
        ({"seed": -1}, r"seed \(got -1\)"),
        ({"device": "tpu"}, r"device \(got 'tpu'\) must be one of mps, cuda, cpu"),
        ({"memory_budget": "1MiB"}, r"memory_budget .*too small"),
        ({"memory_budget": "lots"}, r"memory_budget \(got 'lots'\)"),
        ({"include_node_types": ["Drug"]}, r"include_node_types .*did you mean 'drug'"),
        ({"include_node_types": "drug"}, r"include_node_types \(got 'drug'\) must be a list"),
        ({"limit_nodes": 1.5}, r"limit_nodes \(got 1.5\)"),
        ({"seed": 2**64}, r"seed"),
        ({"limit_nodes": 0}, r"limit_nodes \(got 0\)"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    edges: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate_gnn_embeddings(edges, tmp_path / "out" / "e.csv", **{**SMALL, **options})
    assert sorted(tmp_path.iterdir()) == [edges]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_an_error(edges: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device \(got 'cuda'\) is not available here: .*: cpu"):
        generate_gnn_embeddings(edges, tmp_path / "e.csv", device="cuda")


def test_the_graph_is_never_overwritten(edges: Path, tmp_path: Path) -> None:
    content = edges.read_bytes()
    numpy_index = tmp_path / "e_index.csv"
    numpy_index.write_bytes(content)
    for source, output, model_dir in (
        (edges, edges, None),
        (numpy_index, tmp_path / "e.npy", None),
        (edges, tmp_path / "e.csv", tmp_path / "e.csv"),
    ):
        with pytest.raises(InputError, match=r"would be written, but it is"):
            generate_gnn_embeddings(source, output, model_dir=model_dir, **SMALL)
    assert edges.read_bytes() == numpy_index.read_bytes() == content
