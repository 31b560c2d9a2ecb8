"""The network of a model directory: what the run computed, and damage that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import planted_facts, to_rows
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clinical_drug_discovery.lib._model.network import read_network
from clinical_drug_discovery.lib._run.model_dir import read_model_graph
from clinical_drug_discovery.lib._run.saved_model import SavedModel
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.errors import InputError

Generate = Callable[..., dict[str, Any]]
GENERATE: dict[str, Generate] = {
    "graphsage": generate_gnn_embeddings, "hgt": generate_hgt_embeddings,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("models")
    to_rows(planted_facts()).write_csv(directory / "kg.csv")
    sizes: dict[str, Any] = {"embedding_dim": 8, "hidden_dim": 16, "num_epochs": 1}
    return {
        name: Path(
            generate(
                directory / "kg.csv", directory / f"{name}.npy", cache=False, ranker=False, **sizes
            )["model_dir"]
        )
        for name, generate in GENERATE.items()
    }


@pytest.mark.parametrize("name", GENERATE)
def test_the_network_computes_the_embeddings_of_the_run(models: dict[str, Path], name: str) -> None:
    saved = SavedModel.read(models[name], None)
    assert saved.embeddings is not None
    network = read_network(models[name], saved.graph)
    assert torch.allclose(network.embed(saved.graph), saved.embeddings, atol=1e-5)
    again = network.transferred(saved.graph, np.arange(saved.graph.num_nodes))[0]
    assert torch.equal(again.node_embedding, network.node_embedding)


def change_config(name: str, value: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


def change_weight(name: str, value: torch.Tensor | None) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "weights.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        weights = load_file(path)
        del weights[name]
        save_file(weights if value is None else {**weights, name: value}, path, metadata)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_config("hidden_dim", 32), r"its sizes differ from config\.json"),
        (change_config("num_layers", 7), r"weights\.safetensors is damaged: .*Missing key"),
        (change_config("num_layers", "two"), r"config\.json is damaged: num_layers"),
        (
            change_config("model", "gat"),
            r"config\.json is of model 'gat', which is not among graphsage, hgt",
        ),
        (change_weight("model.node_embedding", None), r"its sizes differ from config\.json"),
        (change_weight("decoder.relation", torch.ones(3, 8)), r"decoder.relation must have shape"),
        (change_weight("decoder.relation", None), r"weights\.safetensors is damaged"),
        (
            change_weight("model.layers.0.bias", torch.full((16,), torch.nan)),
            r"model\.layers\.0\.bias must be finite numbers in float32",
        ),
        (change_weight("model.layers.0.bias", torch.empty(0)), r"weights\.safetensors is damaged"),
    ],
)
def test_damage_is_refused_with_the_file_and_the_rule(
    models: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    directory = shutil.copytree(models["graphsage"], tmp_path / "m")
    damage(directory)
    graph = read_model_graph(directory)
    with pytest.raises(InputError, match=message):
        read_network(directory, graph)
