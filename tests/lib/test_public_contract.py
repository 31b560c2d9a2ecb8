"""The promises of the public functions: signature, record, files, determinism, clean refusals."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from backends import TORCH
from graphs import Fact, node, to_rows
from safetensors.torch import load_file

from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib._run.results import EmbeddingStats
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.models import inference
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.read_embeddings import read_embeddings
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.blocks import full_block
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.training.objective.treatment_votes import without_treatments

SMALL: dict[str, Any] = {"embedding_dim": 12, "hidden_dim": 8, "num_layers": 2, "num_epochs": 3}
#: For tests without a ranker, whose fit takes ten times as long as such a training.
PLAIN: dict[str, Any] = {**SMALL, "ranker": False}
Generate = Callable[..., dict[str, Any]]
MODELS: dict[str, Generate] = {"graphsage": generate_gnn_embeddings, "hgt": generate_hgt_embeddings}


@pytest.fixture(params=MODELS)
def generate(request: pytest.FixtureRequest) -> Generate:
    return MODELS[request.param]


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts, both=True).write_csv(path)
    return path


def test_signatures_are_the_seeds() -> None:
    sage, hgt = (inspect.signature(function).parameters for function in MODELS.values())

    def positional(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        return {n: p.default for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}

    files = dict.fromkeys(("edges_csv", "output_csv"), inspect.Parameter.empty)
    sizes = {"embedding_dim": 512, "hidden_dim": 256}
    assert list(positional(sage).items()) == list(
        {
            **files,
            **sizes,
            "num_layers": 3,
            "num_epochs": 100,
            "learning_rate": 0.01,
            "device": None,
            "edge_batch_size": 10_000,
        }.items()
    )
    assert list(positional(hgt).items()) == list(
        {
            **files,
            **sizes,
            "num_layers": 2,
            "num_heads": 8,
            "num_epochs": 100,
            "learning_rate": 0.002,
            "device": None,
            "contrastive_weight": 0.5,
            "edge_sample_size": 1_000,
        }.items()
    )
    assert hgt["similarity_threshold"].default == 0.1
    shared = {"limit_nodes", "include_node_types", "seed", "memory_budget", "model_dir"}
    shared |= {"chunk_size", "scratch_dir"}
    for name in shared:
        assert sage[name] == hgt[name]
        assert sage[name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("model", MODELS)
def test_record_and_files(model: str, edges: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "e.csv"
    stats = MODELS[model](str(edges), str(output), device="cpu", seed=5, **SMALL)
    graph = read_graph(edges)
    assert list(stats) == [field.name for field in fields(EmbeddingStats)]
    assert json.loads(json.dumps(stats)) == stats
    expected = {
        "model": model,
        "num_nodes": graph.num_nodes,
        "saved_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "num_relations": 5,
        "device": "cpu",
        "seed": 5,
        "read_report": graph.report.to_dict(),
        "warnings": [],
        "has_ranker": True,
        "output_file": str(output),
        "model_dir": str(tmp_path / "new" / "e_model"),
        **SMALL,
    }
    assert {name: stats[name] for name in expected} == expected
    assert stats["collapse"].keys() == set(graph.node_type_names)
    figures = ["mrr", "recall@50", "walk_mrr", "walk_recall@50"]
    figures += ["num_pairs", "num_drugs", "num_diseases", "is_sample"]
    assert list(stats["probe"]) == figures
    assert 0 < stats["final_loss"] < 20
    assert 0 < stats["peak_memory_gib"] < 64
    nodes, values = read_embeddings(output)
    assert values.shape == (graph.num_nodes, 12)
    assert nodes["node_index"].is_sorted()
    model_dir = Path(stats["model_dir"])
    assert {path.name for path in model_dir.iterdir()} == {
        "weights.safetensors", "config.json", "nodes.parquet", "history.csv", "stats.json",
        "graph.safetensors", "ranker.safetensors", "checkpoint.safetensors",
    }  # fmt: skip
    # The files can be published: they have no path of this machine.
    saved = {**stats, "output_file": "e.csv", "model_dir": "e_model"}
    assert json.loads((model_dir / "stats.json").read_text()) == saved
    for name in ("stats.json", "config.json"):
        assert str(tmp_path) not in (model_dir / name).read_text()
    config = json.loads((model_dir / "config.json").read_text())
    assert config["edges_files"] == ["kg.csv"]
    assert config["edges_sha256"] == hashlib.sha256(edges.read_bytes()).hexdigest()
    history = pl.read_csv(model_dir / "history.csv")
    assert history["epoch"].to_list() == [1, 2, 3]
    assert history["loss"][-1] == stats["final_loss"]
    for name in graph.node_type_names:
        cosine, rank = (history[f"{f}.{name}"].to_list() for f in ("mean_cosine", "effective_rank"))
        for look in (0, 2):
            assert -1 < cosine[look] < 1 < rank[look] <= 12
        assert cosine[1] is rank[1] is None  # looked at in epochs 1, 10, 20, ... and the last


@pytest.mark.parametrize("model", MODELS)
def test_the_saved_model_gives_the_saved_embeddings(
    model: str, edges: Path, tmp_path: Path
) -> None:
    stats = MODELS[model](edges, tmp_path / "e.parquet", **PLAIN)
    _, values = read_embeddings(tmp_path / "e.parquet")
    weights = load_file(Path(stats["model_dir"]) / "weights.safetensors")
    config = json.loads((Path(stats["model_dir"]) / "config.json").read_text())
    graph = read_graph(edges)
    hidden_dim, dim, num_layers = (
        config[name] for name in ("hidden_dim", "embedding_dim", "num_layers")
    )
    network: GraphSage | Hgt
    if model == "hgt":
        network = Hgt(
            tuple(config["type_ptr"]), len(config["edge_types"]), hidden_dim, dim, num_layers,
            config["num_heads"], torch.Generator(),
        )  # fmt: skip
    else:
        network = GraphSage(config["num_nodes"], hidden_dim, dim, num_layers, torch.Generator())
    network.load_state_dict(
        {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    )
    block = full_block(without_treatments(graph)[0], TORCH)
    with torch.no_grad():
        z = network(block, block).numpy()
    saved_nodes = pl.read_parquet(Path(stats["model_dir"]) / "nodes.parquet")
    assert saved_nodes.equals(graph.nodes)
    order = saved_nodes["node_index"].arg_sort().to_numpy()
    np.testing.assert_allclose(values, z[order], rtol=1e-4, atol=1e-5)
    assert (weights["decoder.relation"] != 1).any()  # it starts as ones
    assert weights["decoder.relation"].shape == (len(config["relations"]), 12)


def test_same_seed_same_bytes_whatever_the_order_of_rows(
    generate: Generate, edges: Path, tmp_path: Path, facts: list[Fact]
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
        generate(path, tmp_path / f"{name}.parquet", **{**PLAIN, **options})
        contents.append((tmp_path / f"{name}.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2] != contents[3]
    assert torch.get_num_threads() == threads


def test_numbers_and_lists_of_other_packages_give_the_same_files(
    generate: Generate, edges: Path, tmp_path: Path
) -> None:
    plain = {**PLAIN, "learning_rate": 0.25, "seed": 3, "include_node_types": ["drug", "disease"]}
    odd = {
        **{name: np.int64(value) for name, value in SMALL.items()},
        "learning_rate": np.float32(0.25),
        "seed": np.uint8(3),
        "cache": np.bool_(False),
        "ranker": np.bool_(False),
    }
    generate(edges, tmp_path / "plain" / "e.npy", **plain)
    for name, types in (
        ("array", np.array(["drug", "disease"], dtype=object)),
        ("series", pl.Series(["drug", "disease"])),
        ("tuple", ("drug", "disease")),
    ):
        generate(edges, tmp_path / name / "e.npy", **{**odd, "include_node_types": types})
        for file in ("e.npy", "e_model/config.json"):
            saved = [(tmp_path / place / file).read_bytes() for place in ("plain", name)]
            assert saved[0] == saved[1]


def test_a_finished_run_is_not_replaced_silently(
    generate: Generate, edges: Path, tmp_path: Path
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    generate(edges, tmp_path / "e.csv", **PLAIN)
    before = files()
    for output, options, named in (
        ("e.csv", {}, "e.csv"),
        ("other.csv", {"model_dir": tmp_path / "e_model"}, "e_model/weights.safetensors"),
    ):
        with pytest.raises(InputError, match=rf"{named} exists already.*--overwrite"):
            generate(edges, tmp_path / output, **{**PLAIN, **options, "num_epochs": 2})
    assert files() == before
    (tmp_path / "new_model").mkdir()
    (tmp_path / "new_model" / "history.csv").write_text("of a run that was stopped")
    generate(edges, tmp_path / "new.csv", **PLAIN)
    stats = generate(edges, tmp_path / "e.csv", overwrite=True, **{**PLAIN, "num_epochs": 2})
    assert json.loads((tmp_path / "e_model" / "stats.json").read_text())["num_epochs"] == 2
    assert stats["num_epochs"] == 2


def test_warnings_in_the_files_name_no_directory(
    generate: Generate, edges: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    stats = generate(edges, tmp_path / "e.npy", cache_dir=tmp_path / "file", **PLAIN)
    (text,) = stats["warnings"]
    assert "could not be cached" in text
    assert str(tmp_path / "file") in text
    saved = (tmp_path / "e_model" / "stats.json").read_text()
    assert "could not be cached as file/kg.csv." in saved
    assert str(tmp_path) not in saved


def test_the_example_of_a_run_is_found_by_its_name(
    generate: Generate, edges: Path, tmp_path: Path
) -> None:
    with_ranker = generate(edges, tmp_path / "a.csv", **SMALL)
    row = rank_drugs(with_ranker["model_dir"], disease=with_ranker["example_node"], top=1)
    assert row
    without = generate(edges, tmp_path / "b.csv", ranker=False, **SMALL)
    assert not without["has_ranker"]
    assert similar_nodes(without["output_file"], without["example_node"], top=1)


def test_nothing_global_is_touched(generate: Generate, edges: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    generate(edges, tmp_path / "e.npy", **SMALL)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 1}, r"embedding_dim \(got 1\) must be a whole number of at least 2"),
        ({"hidden_dim": -1}, r"hidden_dim \(got -1\)"),
        ({"num_layers": 0}, r"num_layers \(got 0\)"),
        ({"num_epochs": 0}, r"num_epochs \(got 0\)"),
        ({"embedding_dim": 1.5}, r"embedding_dim \(got 1.5\)"),
        ({"learning_rate": 0.0}, r"learning_rate \(got 0.0\)"),
        ({"learning_rate": float("nan")}, r"learning_rate \(got nan\)"),
        ({"learning_rate": 100}, r"learning_rate \(got 100\) is too high: the .*loss of epoch"),
        ({"learning_rate": 1e8}, r"learning_rate \(got 100000000.0\) is too high: the .*loss of"),
        ({"learning_rate": 1e17}, r"learning_rate \(got 1e\+17\) is too high: the .*loss of epoch"),
        ({"learning_rate": 1e18, "num_epochs": 1}, r"learning_rate .*NaN or infinity"),
        ({"learning_rate": 3e38}, r"learning_rate \(got 3e\+38\) must be .* at most 1e\+18"),
        ({"seed": -1}, r"seed \(got -1\)"),
        ({"device": "tpu"}, r"device \(got 'tpu'\) must be one of cuda, mps, cpu"),
        ({"memory_budget": "1MiB"}, r"memory_budget .*too small"),
        ({"memory_budget": "lots"}, r"memory_budget \(got 'lots'\)"),
        ({"include_node_types": ["Drug"]}, r"include_node_types .*did you mean 'drug'"),
        ({"include_node_types": [1]}, r"include_node_types \(got \[1\]\) must be a list of"),
        ({"embedding_dim": np.float64(16)}, r"embedding_dim \(got 16.0\) must be a whole number"),
        ({"embedding_dim": np.bool_(True)}, r"embedding_dim \(got True\) must be a whole number"),
        ({"include_node_types": "drug"}, r"include_node_types \(got 'drug'\) must be a list"),
        ({"limit_nodes": 1.5}, r"limit_nodes \(got 1.5\)"),
        ({"seed": 2**64}, r"seed"),
        ({"limit_nodes": 0}, r"limit_nodes \(got 0\)"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    generate: Generate, edges: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate(edges, tmp_path / "out" / "e.csv", **{**SMALL, **options})
    if "num_epochs" in options and message.endswith("infinity"):
        # The end of a training is saved before the nodes are embedded.
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["e_model.run"]
        shutil.rmtree(tmp_path / "out")
    assert [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".graph"] == [edges]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("graphsage", {"edge_batch_size": 0}, r"edge_batch_size \(got 0\)"),
        ("hgt", {"edge_sample_size": 0}, r"edge_sample_size \(got 0\)"),
        ("hgt", {"num_heads": 0}, r"num_heads \(got 0\)"),
        ("hgt", {"num_heads": 3}, r"hidden_dim \(got 8\) must be divisible by num_heads \(got 3\)"),
        (
            "hgt",
            {"contrastive_weight": 1.5},
            r"contrastive_weight \(got 1.5\) .* at least 0 and at",
        ),
        ("hgt", {"contrastive_weight": -0.1}, r"contrastive_weight \(got -0.1\)"),
        ("hgt", {"contrastive_weight": "half"}, r"contrastive_weight \(got 'half'\)"),
        ("hgt", {"similarity_threshold": 0}, r"similarity_threshold \(got 0\) .* above 0 and at m"),
        ("hgt", {"similarity_threshold": 1.1}, r"similarity_threshold \(got 1.1\)"),
        ("hgt", {"temperature": 0}, r"temperature \(got 0\) must be a finite .* at least 0.001"),
        ("hgt", {"temperature": 10**400}, r"temperature \(got 1000"),
        ("hgt", {"disease_gene_relation": "has_gene"}, r"disease_gene_relation \(got 'has_gene'\)"),
        ("hgt", {"gene_type": "protein"}, r"gene_type \(got 'protein'\) must be a node type"),
        ("graphsage", {"disease_type": "Disease"}, r"disease_type \(got 'Disease'\).*'disease'\?"),
        ("graphsage", {"treats": "indication"}, r"treats \(got 'indication'\) must be a list"),
        ("graphsage", {"treats": ["cures"]}, r"treats \(got 'cures'\) must be a relation between"),
    ],
)
def test_what_one_model_alone_refuses(
    model: str, edges: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    test_what_cannot_be_done_is_refused_and_leaves_nothing(
        MODELS[model], edges, tmp_path, options, message
    )


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_loss_is_what_the_weight_says(edges: Path, tmp_path: Path, weight: float) -> None:
    stats = generate_hgt_embeddings(
        edges, tmp_path / "e.npy", contrastive_weight=weight, similarity_threshold=0.05, **PLAIN
    )
    history = pl.read_csv(Path(stats["model_dir"]) / "history.csv")
    wanted = (1 - weight) * history["link_loss"]
    if weight:
        wanted += weight * history["contrastive_loss"]
    others = sum(history[name] for name in ("near_drug_loss", "near_disease_loss", "vote_loss"))
    wanted = 0.3 * wanted + 0.5 * others
    assert history["loss"].to_list() == pytest.approx(wanted.to_list(), rel=1e-5)
    assert stats["similarity"]["num_pairs"] > 0
    assert stats["similarity"]["num_held_out_nodes"] > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"include_node_types": ["drug", "disease"]}, "gene_type 'gene/protein'"),
        ({"edge_sample_size": 1}, "the contrastive loss lacks negatives"),
    ],
)
def test_without_similar_diseases_it_says_so_and_trains_on_links(
    edges: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    reason: str,
) -> None:
    stats = generate_hgt_embeddings(edges, tmp_path / "e.npy", **{**PLAIN, **options})
    (text,) = stats["warnings"]
    assert reason in text
    assert "model is trained without" in text
    assert text in caplog.messages
    assert (stats["similarity"] is None) == ("edge_sample_size" not in options)
    history = pl.read_csv(Path(stats["model_dir"]) / "history.csv")
    assert "contrastive_loss" not in history.columns


@pytest.mark.parametrize("num_diseases", [1, 2, 9, 11])
def test_odd_graphs_go_through(generate: Generate, tmp_path: Path, num_diseases: int) -> None:
    """Few diseases that are all alike, one drug, a type that its filter leaves without an edge."""
    gene, drug = node("gene/protein", 0), node("drug", 0)
    facts: list[Fact] = [(node("disease", i), "disease_protein", gene) for i in range(num_diseases)]
    facts += [(drug, "drug_protein", gene), (node("pathway", 0), "treats", drug)]
    facts += [(gene, "protein_protein", node("gene/protein", 1))]
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    for types in (None, ["disease", "gene/protein", "pathway"], ["gene/protein"]):
        stats = generate(
            tmp_path / "kg.csv",
            tmp_path / "e.npy",
            include_node_types=types,
            overwrite=True,
            **SMALL,
        )
        assert json.loads(json.dumps(stats, allow_nan=False)) == stats
        assert np.isfinite(read_embeddings(tmp_path / "e.npy")[1]).all()
        if stats["model"] == "hgt":
            assert any("model is trained without" in text for text in stats["warnings"])


def test_a_collapse_is_warned_of(
    generate: Generate,
    edges: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = torch.ones(read_graph(edges).num_nodes, 12)
    monkeypatch.setattr(inference, "embed_all", lambda *args, **options: same)
    stats = generate(edges, tmp_path / "e.npy", **PLAIN)
    assert len(stats["warnings"]) == 3
    for text in stats["warnings"]:
        assert "have collapsed (mean_cosine 1.00" in text
        assert text in caplog.messages


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
