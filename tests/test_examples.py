"""The example of a new model: its layer is that of the paper, and all commands work with it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from backends import TORCH
from graphs import Fact, to_rows
from test_cli import cdd

from clinical_drug_discovery.api.loading import load_model
from clinical_drug_discovery.commands import COMMANDS, embed_command
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.inference import embed_all
from clinical_drug_discovery.models.kinds.table import MODELS
from clinical_drug_discovery.ops.blocks import full_block, row_block

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def rgcn() -> Iterator[ModuleType]:
    """The example, whose model is in the table during the test."""
    sys.path.insert(0, str(EXAMPLES))
    module = importlib.reload(importlib.import_module("rgcn"))
    COMMANDS["embed", "rgcn"] = embed_command("rgcn")
    yield module
    del MODELS["rgcn"], COMMANDS["embed", "rgcn"]
    sys.path.remove(str(EXAMPLES))


def slow_layer(layer: Any, x: torch.Tensor, graph: KnowledgeGraph) -> Any:
    """The layer as in the paper, node by node."""
    out = x @ layer.own.T + layer.bias
    for r, (_, dst_type) in enumerate(graph.endpoint_types):
        weight = sum(a * basis for a, basis in zip(layer.mixture[r], layer.bases, strict=True))
        first, last = graph.node_range(dst_type)
        ranges = pairwise(graph.indptr_of(r).tolist())
        for node, (low, high) in zip(range(first, last), ranges, strict=True):
            if high > low:
                out[node] += weight @ x[graph.src[low:high].long()].mean(dim=0)
    return out


def test_the_layer_is_that_of_the_paper(rgcn: ModuleType, graph: KnowledgeGraph) -> None:
    settings = rgcn.RgcnSettings(embedding_dim=6, hidden_dim=8, num_layers=2, num_bases=3)
    generator = torch.Generator().manual_seed(1)
    model = rgcn.Rgcn(graph.num_nodes, len(graph.edge_types), settings, generator).double()
    x = model.node_embedding.detach()
    whole = full_block(graph, TORCH)
    with torch.no_grad():
        torch.testing.assert_close(model.layers[0](x, whole), slow_layer(model.layers[0], x, graph))
        z = model(whole, whole)
        rows = torch.arange(0, graph.num_nodes, 3)
        torch.testing.assert_close(model(whole, row_block(graph, rows, TORCH)), z[rows])
    torch.testing.assert_close(embed_all(model, graph, 7, TORCH), z)


def test_the_commands_take_the_new_model(
    rgcn: ModuleType, facts: list[Fact], tmp_path: Path
) -> None:
    edges, output = tmp_path / "kg.csv", tmp_path / "e.npy"
    to_rows(facts).write_csv(edges)
    sizes = ["--embedding-dim", 8, "--hidden-dim", 8, "--num-bases", 2]
    more = ["--num-epochs", 9, "--no-ranker", *sizes]
    result = cdd("embed", "rgcn", "--edges", edges, "--output", output, *more)
    assert result.exit_code == 0, result.output
    assert "9 epochs of R-GCN on cpu" in result.stdout
    history = (tmp_path / "e_model" / "history.csv").read_text().splitlines()[1:]
    losses = [float(line.split(",")[1]) for line in history]
    assert losses[-1] < losses[0]
    config = tmp_path / "e_model" / "config.json"
    again = ["--edges", edges, "--output", tmp_path / "again.npy"]
    result = cdd("embed", "--config", config, *again)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "again.npy").read_bytes() == output.read_bytes()
    loaded = load_model(tmp_path / "e_model")
    np.testing.assert_allclose(loaded.embed(loaded.graph).values, loaded.embeddings().values)


@pytest.mark.slow
@pytest.mark.usefixtures("rgcn")
def test_the_new_model_is_ranked_with_and_evaluated(facts: list[Fact], tmp_path: Path) -> None:
    edges, sizes = tmp_path / "kg.csv", ["--embedding-dim", 8, "--hidden-dim", 8, "--num-bases", 2]
    to_rows(facts).write_csv(edges)
    embedded = ["--edges", edges, "--output", tmp_path / "e.npy", "--num-epochs", 9, *sizes]
    assert cdd("embed", "rgcn", *embedded).exit_code == 0
    asked = ["--model-dir", tmp_path / "e_model", "--disease", "disease 1", "--json"]
    assert json.loads(cdd("rank", *asked).stdout)["drugs"]
    split = ["--model", "rgcn", "--split", "pair", "--output", tmp_path / "ev", "--share", 0.3]
    result = cdd("evaluate", "--edges", edges, *split, "--num-epochs", 1, *sizes, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["parameters"]["num_bases"] == 2


def test_a_new_model_has_its_own_checks(rgcn: ModuleType, tmp_path: Path) -> None:
    flags = ["--edges", tmp_path / "kg.csv", "--output", tmp_path / "e.npy"]
    result = cdd("embed", "rgcn", *flags, "--num-bases", 0)
    assert result.exit_code == 2
    assert "num_bases (got 0) must be a whole number of at least 1" in result.stderr
    result = cdd("embed", "rgcn", *flags, "--num-heads", 2)
    assert result.exit_code == 2
