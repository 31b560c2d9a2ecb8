"""A warm start takes over the weights and vectors of an earlier model, by identity."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from graphs import Fact, Node, graph_of, node, planted_facts, to_rows
from safetensors.torch import load_file
from stops import Killed, kill_after, results

import clinical_drug_discovery as cdd
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models import warm_start
from clinical_drug_discovery.ops import buffers
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.training.memory_plan import Plan

Generate = Callable[..., dict[str, Any]]
MODELS: dict[str, Generate] = {
    "graphsage": cdd.generate_gnn_embeddings,
    "hgt": cdd.generate_hgt_embeddings,
}
SMALL: dict[str, Any] = {
    "embedding_dim": 12, "hidden_dim": 8, "num_layers": 2, "num_epochs": 3, "ranker": False,
    "cache": False, "device": "cpu",
}  # fmt: skip
STILL: dict[str, Any] = {**SMALL, "num_epochs": 1, "learning_rate": 1e-30}  # no weight changes
Weights = dict[str, torch.Tensor]


def write(path: Path, facts: list[Fact], **how: Any) -> Path:
    to_rows(facts, **how).write_csv(path)
    return path


def weights_of(output: Path) -> Weights:
    return load_file(output.with_name(f"{output.stem}_model") / "weights.safetensors")


def keys_of(graph: KnowledgeGraph) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = graph.nodes.select("node_type", "node_source", "node_id").rows()
    return found


def trained(generate: Generate, graph: Any, output: Path, **settings: Any) -> Weights:
    generate(graph, output, **{**SMALL, **settings})
    return weights_of(output)


@pytest.fixture
def old_facts() -> list[Fact]:
    return planted_facts()


@pytest.fixture
def new_facts(old_facts: list[Fact]) -> list[Fact]:
    """A new release: a new disease and drug, a pair apart, a new relation and a new node type."""
    new, other = node("disease", 900), node("drug", 900)
    gene, rare = node("gene/protein", 900), node("gene/protein", 901)
    pathway = node("pathway", 902)
    added = [(new, "disease_protein", node("gene/protein", n)) for n in (1, 2)]
    added += [(other, "drug_protein", node("gene/protein", 1)), (gene, "protein_protein", rare)]
    added += [(pathway, "pathway_protein", node("gene/protein", n)) for n in (1, 2, 3)]
    gone = node("drug", 0)
    return [fact for fact in old_facts if gone not in fact and fact[1] != "drug_drug"] + added


@pytest.mark.parametrize("model", MODELS)
def test_the_same_graph_gives_the_weights_of_the_earlier_model(
    model: str, old_facts: list[Fact], tmp_path: Path
) -> None:
    edges, generate = write(tmp_path / "kg.csv", old_facts), MODELS[model]
    first = trained(generate, edges, tmp_path / "old.npy")
    stats = generate(edges, tmp_path / "e.npy", **STILL, init_from=tmp_path / "old_model", seed=5)
    found = weights_of(tmp_path / "e.npy")
    assert found.keys() == first.keys()
    for name, weight in found.items():
        if name.endswith("bias"):  # a number near 0 changes even by such a learning rate
            assert torch.allclose(weight, first[name], atol=1e-20), name
        else:
            assert torch.equal(weight, first[name]), name
    old = cdd.load_model(tmp_path / "old_model")
    assert stats["init_from"] == {
        "run": old_run(tmp_path), "num_matched_nodes": old.graph.num_nodes, "num_new_nodes": 0,
        "num_removed_nodes": 0, "num_new_node_types": 0, "num_removed_node_types": 0,
        "num_new_edge_types": 0, "num_removed_edge_types": 0,
    }  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "e.npy"), np.load(tmp_path / "old.npy"))


def old_run(place: Path) -> str:
    text = (place / "old_model" / "config.json").read_text()
    (found,) = re.findall(r'"run": "([0-9a-f]+)"', text)
    return str(found)


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_new_release_keeps_what_it_shares(
    model: str,
    numbered: bool,
    old_facts: list[Fact],
    new_facts: list[Fact],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "clinical_drug_discovery")
    generate, output = MODELS[model], tmp_path / "e.npy"
    old_graph = cdd.read_graph(write(tmp_path / "old.csv", old_facts))
    new_graph = cdd.read_graph(write(tmp_path / "new.csv", new_facts, numbered=numbered))
    first = trained(generate, old_graph, tmp_path / "old.npy")
    start = {**STILL, "init_from": tmp_path / "old_model"}
    stats = generate(new_graph, output, **start)
    assert stats["init_from"] | {"run": ""} == {
        "run": "", "num_matched_nodes": old_graph.num_nodes - 1, "num_new_nodes": 5,
        "num_removed_nodes": 1, "num_new_node_types": 1, "num_removed_node_types": 0,
        "num_new_edge_types": 3, "num_removed_edge_types": 1,
    }  # fmt: skip
    line = (
        f"{old_graph.num_nodes - 1} of {new_graph.num_nodes} nodes match, 5 are new, 1 are gone; "
        "new node types: pathway; new edge types: gene/protein - pathway_protein - pathway, "
        "gene/protein - protein_protein - gene/protein; removed edge types: drug - drug_drug - drug"
    )
    assert line in caplog.text
    found, fresh = weights_of(output), trained(generate, new_graph, tmp_path / "f.npy", **STILL)
    vectors, before = found["model.node_embedding"], first["model.node_embedding"]
    row = {key: i for i, key in enumerate(keys_of(old_graph))}
    shared = [(i, row[key]) for i, key in enumerate(keys_of(new_graph)) if key in row]
    assert all(torch.equal(vectors[i], before[j]) for i, j in shared)
    at = {key: i for i, key in enumerate(keys_of(new_graph))}

    def vector(one: Node) -> torch.Tensor:
        return vectors[at[one.type, one.source, one.id]]

    # The new drug has one neighbor: its vector is that of the target, but for the length.
    cosine = torch.cosine_similarity(vector(node("drug", 900)), vector(node("gene/protein", 1)), 0)
    assert cosine > 1 - 1e-6
    near = vector(node("gene/protein", 1)) + vector(node("gene/protein", 2))
    assert torch.cosine_similarity(vector(node("disease", 900)), near, 0) > 0.9
    # The pair that no path joins to an old node starts as in a new model, with length sqrt(C).
    for number in (900, 901):
        assert vector(node("gene/protein", number)).norm() == pytest.approx(8**0.5, rel=1e-4)
    for name, weight in found.items():
        if name == "model.node_embedding":
            continue
        old_names, new_names = (named(name, graph) for graph in (old_graph, new_graph))
        if not new_names:
            assert torch.allclose(weight, first[name], atol=1e-20, rtol=0), name
        for i, kind in enumerate(new_names):
            if kind in old_names:
                expected = first[name][old_names.index(kind)]
            elif name == "decoder.relation":
                continue  # drawn after the vectors of a new model, which are not drawn here
            else:
                expected = fresh[name][i]
            assert torch.allclose(weight[i], expected, atol=1e-20, rtol=0), (name, kind)


def named(name: str, graph: KnowledgeGraph) -> list[Any]:
    """Return the types that the rows of a weight belong to, if they do."""
    if name == "decoder.relation":
        return list(graph.relations)
    if any(part in name for part in ("attention", "message", "prior")):
        return list(graph.edge_types)
    if any(part in name for part in ("project", "kqv", ".out.", "skip")):
        return list(graph.node_type_names)
    return []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("training", [{}, {"training": "sampled", "subgraph_size": 110}])
def test_a_killed_run_continues_without_the_earlier_model(
    model: str,
    training: dict[str, Any],
    old_facts: list[Fact],
    new_facts: list[Fact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("edge_sampler", "graph_sizes"):  # else a batch has all nodes of so small a graph
        monkeypatch.setattr(f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", 4)
    generate, edges = MODELS[model], write(tmp_path / "kg.csv", new_facts)
    generate(write(tmp_path / "old.csv", old_facts), tmp_path / "old.npy", **SMALL)
    fewer = {"edge_batch_size" if model == "graphsage" else "edge_sample_size": 4}
    settings = {**SMALL, **fewer, **training, "init_from": tmp_path / "old_model"}
    first = generate(edges, tmp_path / "whole.npy", **settings)
    output, settings["checkpoint_minutes"] = tmp_path / "e.npy", 0
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 1)
        with pytest.raises(Killed):
            generate(edges, output, **settings)
    with pytest.raises(
        InputError, match=r"init_from \({'run': .* in the checkpoint, 'missing' now"
    ):
        generate(edges, output, **{**settings, "init_from": None}, resume=True)
    generate(edges, tmp_path / "other.npy", **{**SMALL, "seed": 9})
    with pytest.raises(InputError, match=r"init_from\.run \('.*' in the checkpoint, '"):
        generate(edges, output, **{**settings, "init_from": tmp_path / "other_model"}, resume=True)
    (tmp_path / "old_model").rename(tmp_path / "gone")
    stats = generate(edges, output, **settings, resume=True)
    assert results(output) == results(tmp_path / "whole.npy")
    assert stats["init_from"] == first["init_from"]
    assert stats["init_from"]["num_new_nodes"] == 5
    with pytest.raises(InputError, match=r"init_from \(got .*old_model\) must be a directory"):
        generate(edges, tmp_path / "new.npy", **settings)


def test_a_model_is_replaced_by_one_that_starts_from_it(
    old_facts: list[Fact], new_facts: list[Fact], tmp_path: Path
) -> None:
    output, other = tmp_path / "e.npy", tmp_path / "other" / "e.npy"
    cdd.generate_gnn_embeddings(graph_of(old_facts), output, **SMALL)
    settings = {**SMALL, "init_from": tmp_path / "e_model"}
    cdd.generate_gnn_embeddings(graph_of(new_facts), other, **settings)
    cdd.generate_gnn_embeddings(graph_of(new_facts), output, **settings, overwrite=True)
    assert results(output) == results(other)
    longer = {**settings, "num_epochs": 4}
    stats = cdd.generate_gnn_embeddings(graph_of(new_facts), output, **longer, resume=True)
    assert len(stats["learning_rate_cycles"]) == 2
    assert stats["init_from"]["num_removed_nodes"] == 1


def test_the_order_of_rows_and_a_scratch_directory_change_nothing(
    old_facts: list[Fact], new_facts: list[Fact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "old.csv", old_facts)
    cdd.generate_gnn_embeddings(old, tmp_path / "old.npy", **SMALL)
    new = to_rows(new_facts)
    new.write_csv(tmp_path / "new.csv")
    new.sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "shuffled.csv")
    settings = {**SMALL, "init_from": tmp_path / "old_model"}
    cdd.generate_gnn_embeddings(tmp_path / "new.csv", tmp_path / "a.npy", **settings)
    cdd.generate_gnn_embeddings(tmp_path / "shuffled.csv", tmp_path / "b.npy", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(warm_start, "_ROWS", 7)
        patch.setattr(buffers, "LEAST_IN_FILES", 64)
        patch.setattr(Plan, "bytes_needed", lambda plan: 0 if plan.scratch_dir else 2**60)
        cdd.generate_gnn_embeddings(
            tmp_path / "new.csv", tmp_path / "c.npy", **settings, scratch_dir=tmp_path / "s"
        )
    assert results(tmp_path / "a.npy")[0] == results(tmp_path / "b.npy")[0]
    assert results(tmp_path / "a.npy")[:2] == results(tmp_path / "c.npy")[:2]
    stats = cdd.generate_gnn_embeddings(tmp_path / "new.csv", None, **settings)
    assert np.array_equal(stats["embeddings"], cdd.load_model(tmp_path / "a_model").embeddings()[1])


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (
            "graphsage",
            {"hidden_dim": 16},
            r"hidden_dim \(got 16\) must be 8, the hidden_dim of the",
        ),
        ("graphsage", {"num_layers": 3}, r"num_layers \(got 3\) must be 2, the num_layers of the"),
        ("hgt", {"num_heads": 4}, r"num_heads \(got 4\) must be 8, the num_heads of the model"),
        ("hgt", {"embedding_dim": 9}, r"embedding_dim \(got 9\) must be 12, the embedding_dim of"),
    ],
)
def test_other_sizes_are_refused_before_the_graph_is_read(
    model: str, changed: dict[str, Any], message: str, old_facts: list[Fact], tmp_path: Path
) -> None:
    generate, other = MODELS[model], MODELS["hgt" if model == "graphsage" else "graphsage"]
    generate(graph_of(old_facts), tmp_path / "old.npy", **SMALL)
    start = {**SMALL, "init_from": tmp_path / "old_model"}
    (tmp_path / "kg.csv").write_text("not a graph")
    with pytest.raises(InputError, match=message + r".* \(init_from, got .*old_model\)"):
        generate(tmp_path / "kg.csv", tmp_path / "e.npy", **{**start, **changed})
    expected = rf"init_from \(got .*\) must be a model of the same kind, .*; it is '{model}'"
    with pytest.raises(InputError, match=expected):
        other(tmp_path / "kg.csv", tmp_path / "e.npy", **start)
    assert not list(tmp_path.glob("e*"))


def test_a_model_that_cannot_be_used_is_refused(old_facts: list[Fact], tmp_path: Path) -> None:
    graph, place = graph_of(old_facts), tmp_path / "old_model"
    cdd.generate_gnn_embeddings(graph, tmp_path / "old.npy", **SMALL)
    start = {**SMALL, "init_from": place}
    strange = to_rows(old_facts).with_columns(
        (pl.concat_str(pl.lit("N"), f"{end}_id")).alias(f"{end}_id") for end in "xy"
    )
    strange.write_csv(tmp_path / "strange.csv")
    with pytest.raises(
        InputError, match=r"init_from \(got .*\) must be a model whose graph shares"
    ):
        cdd.generate_gnn_embeddings(tmp_path / "strange.csv", tmp_path / "e.npy", **start)
    for name in ("weights.safetensors", "graph.safetensors", "config.json"):
        content = (place / name).read_bytes()
        for damaged in (content[:-9], content.replace(b"format_version", b"former_version")):
            if damaged != content:
                (place / name).write_bytes(damaged)
                with pytest.raises(InputError) as of_loading:
                    cdd.load_model(place)
                with pytest.raises(InputError) as of_start:
                    cdd.generate_gnn_embeddings(graph, tmp_path / "e.npy", **start)
                assert str(of_start.value) == str(of_loading.value)
        (place / name).write_bytes(content)
    assert not list(tmp_path.glob("e*"))
