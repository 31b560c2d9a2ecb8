"""The file of --config: it repeats a run, flags win over it, and its mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphs import Fact, to_rows
from test_cli import cdd

from clinical_drug_discovery.config import read_config
from clinical_drug_discovery.system.errors import InputError

FLAGS = ["--embedding-dim", 8, "--hidden-dim", 8, "--num-layers", 2, "--num-epochs", 2]


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_the_file_of_a_model_directory_repeats_the_run(
    model: str, edges: Path, tmp_path: Path
) -> None:
    more = ["--seed", 3, "--include-node-types", "drug", "--include-node-types", "disease"]
    more += ["--treats", "indication", "--no-ranker", *(["--num-heads", 2] * (model == "hgt"))]
    first = tmp_path / "first.npy"
    result = cdd("embed", model, "--edges", edges, "--output", first, *FLAGS, *more)
    assert result.exit_code == 0, result.output
    config = tmp_path / "first_model" / "config.json"
    again = tmp_path / "again.npy"
    result = cdd("embed", "--config", config, "--edges", edges, "--output", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == first.read_bytes()
    assert (tmp_path / "again_model" / "config.json").read_bytes() == config.read_bytes()


def test_flags_win_over_the_file_and_the_run_says_which(
    edges: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, output = tmp_path / "run.toml", tmp_path / "e.npy"
    file.write_text(
        f'model = "graphsage"\nedges = ["{edges}"]\noutput = "{output}"\nembedding_dim = 8\n'
        "hidden_dim = 8\nnum_layers = 1\nnum_epochs = 100\nranker = false\nseed = 7\n"
        'exclude_relations = ["off-label use"]\n'
    )
    caplog.set_level("INFO")
    result = cdd("embed", f"--config={file}", "--num-epochs", 2, "--json")
    assert result.exit_code == 0, result.output
    stats = json.loads(result.stdout)
    assert (stats["num_epochs"], stats["seed"], stats["has_ranker"]) == (2, 7, False)
    expected = "the command line replaces --num-epochs 2 (in the file: 100)"
    assert caplog.messages[0] == f"Parameters from {file}; {expected}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.toml", "num_epoch = 3", "'num_epoch' (got 3) is not a parameter of cdd embed hgt; "),
        ("run.toml", "num_epochs = 1.5", "num_epochs (got 1.5) must be a whole number"),
        ("run.toml", "num_epochs = 0", "num_epochs (got 0) must be a whole number of at least 1"),
        ("run.toml", 'ranker = "no"', "ranker (got 'no') must be True or False"),
        ("run.toml", 'treats = "indication"', "treats (got 'indication') must be a list"),
        ("run.toml", 'model = "graphsage"', "model (got 'graphsage') is not the model"),
        ("run.toml", "model = 3", "model (got 3) must be text"),
        ("run.toml", "edges = 3", "(got 3) must be a path"),
        ("run.toml", "output = 3", "output_csv (got 3) must be a path"),
        ("run.toml", "on_epoch = 3", "'on_epoch' (got 3) is not a parameter"),
        ("run.toml", "[sizes]\nseed = 1", "'sizes' (got {'seed': 1}) is not a parameter"),
        ("run.toml", 'edges = "a"\nedges_csv = "b"', "'edges_csv' is given twice"),
        ("run.toml", "seed = ", "cannot be read: Invalid value"),
        (
            "run.toml",
            "seed = 1\nseed = 2",
            "the key 'seed' is given twice, but a key must be given",
        ),
        ("run.toml", "[a]\nseed = 1\n[b]\nseed = [\n2]\n'seed' = 3\n", "the key 'seed' is given"),
        ("run.json", '{"seed": 1, "seed": 2}', "the key 'seed' is given twice, but a key must be"),
        ("run.json", '{"model": "hgt", "a": [{"b": 1, "b": 1}]}', "the key 'b' is given twice"),
        ("run.json", "[1]", "must have parameters by name"),
        ("run.json", '{"seed": NaN}', "NaN is not allowed"),
        ("run.yaml", "seed: 1", "must be a file named .toml or .json"),
        ("config.json", '{"format_version": 2, "model": "hgt"}', "lacks the key 'arguments'"),
        (
            "config.json",
            '{"format_version": 2, "model": "hgt", "seed": 2, "arguments": {"seed": 1}}',
            "seed (got 2) differs from seed in arguments (1)",
        ),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    flags = ["--edges", tmp_path / "kg.csv", "--output", tmp_path / "e.npy"]
    result = cdd("embed", "hgt", "--config", tmp_path / name, *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert str(tmp_path / name) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_without_a_model_the_file_must_name_it(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for text, message in (
        ("seed = 1", "model is missing"), ('model = "gcn"', "must be one of graphsage, hgt"),
    ):  # fmt: skip
        file.write_text(text)
        result = cdd("embed", "--config", file)
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({}, ""),
        ({"finished_epochs": 3}, "; the training of that run ended after 3 epochs"),
        ({"learning_rate_cycles": [{}, {}]}, "; the training of that run was made longer"),
    ],
)
def test_a_run_that_one_command_cannot_repeat_is_noted(
    tmp_path: Path, changed: dict[str, Any], note: str
) -> None:
    content = {"format_version": 2, "num_epochs": 9, "finished_epochs": 9, "arguments": {}}
    (tmp_path / "config.json").write_text(json.dumps({**content, "model": "hgt", **changed}))
    assert read_config(tmp_path / "config.json").note.startswith(note)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config \(got .*none.toml\) cannot be read"):
        read_config(tmp_path / "none.toml")
