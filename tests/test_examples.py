"""The examples run. The new model has the layer of the paper, and all commands work with it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
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


#: Each example, the modules that it needs, and words that it prints.
SCRIPTS = {
    "optuna_search.py": (("optuna",), "once on test pairs: 0."),
    "dagster_asset.py": (("dagster",), "psoriasis"),
    "kedro_node.py": (("kedro",), "psoriasis"),
    "faiss_search.py": (("faiss",), "Sertraline: "),
}
NOTEBOOK = EXAMPLES / "first_steps.ipynb"


def skip_without(modules: tuple[str, ...]) -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (make examples installs them)")


def test_each_example_is_run() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert found == {*SCRIPTS, NOTEBOOK.name, "rgcn.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    modules, words = SCRIPTS[name]
    skip_without(modules)
    # Without DO_NOT_TRACK, Dagster and Kedro report their use.
    quiet = {**os.environ, "DO_NOT_TRACK": "1", "DAGSTER_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


@pytest.mark.slow
def test_the_notebook_runs_again(tmp_path: Path) -> None:
    skip_without(("nbclient", "ipykernel"))
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    program = str(EXAMPLES.parent / ".ci" / "run_notebook.py")
    command = [sys.executable, program, str(NOTEBOOK), "again.ipynb"]
    subprocess.run(command, cwd=tmp_path, check=True)
    again = json.loads((tmp_path / "again.ipynb").read_text(encoding="utf-8"))
    for before, after in zip(notebook["cells"], again["cells"], strict=True):
        assert kinds_of_outputs(before) == kinds_of_outputs(after)


def kinds_of_outputs(cell: dict[str, Any]) -> list[list[str]]:
    """Return the formats of each answer of a cell, without the log."""
    return [sorted(one["data"]) for one in cell.get("outputs", []) if "data" in one]


def test_the_notebook_is_stored_with_small_answers() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(kinds_of_outputs(cell) for cell in cells)
    assert len(text) < 50_000
    assert str(Path.home()) not in text
    assert ".venv" not in text
