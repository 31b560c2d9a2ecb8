"""The command line: flags and help texts, exit codes, output, and what a killed run leaves."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from graphs import Fact, to_rows
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.commands import COMMANDS
from clinical_drug_discovery.flags import FLAG_NAMES, read_flags
from clinical_drug_discovery.lib.demo import run_demo
from clinical_drug_discovery.lib.doctor import describe_machine
from clinical_drug_discovery.lib.embed_model import embed_model
from clinical_drug_discovery.lib.evaluate import (
    EvaluationSettings,
    evaluate_model,
    evaluate_model_dir,
)
from clinical_drug_discovery.lib.fetch import fetch_optimuskg, fetch_primekg
from clinical_drug_discovery.lib.fit_ranker import fit_model_ranker
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.kinds.graphsage import SageSettings
from clinical_drug_discovery.models.kinds.hgt import HgtSettings
from clinical_drug_discovery.models.read_embeddings import read_embeddings
from clinical_drug_discovery.show.map.draw_map import draw_map
from clinical_drug_discovery.show.terminal.commands import show_demo
from clinical_drug_discovery.show.terminal.console import program

SMALL = ["--embedding-dim", "8", "--hidden-dim", "8", "--num-layers", "2", "--num-epochs", "2"]


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def cdd(*arguments: object) -> Any:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})  # no wrapping, no colours
    return runner.invoke(make_app(), [str(argument) for argument in arguments])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_flag_has_help(words: tuple[str, ...]) -> None:
    result = cdd(*words, "--help")
    assert result.exit_code == 0
    for name in [*(flag.name for flag in COMMANDS[words].read()[1]), "json"]:
        option = f"--{FLAG_NAMES.get(name, name).replace('_', '-')}"
        lines = result.output.replace(",--output-dir", " " * 13).splitlines()
        (line,) = (line for line in lines if f" {option} " in line)
        assert len(line.strip(" │").split(maxsplit=2)[-1]) > 10, line


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["rank", "--help"], [("rank",)]),
        (["fetch", "primekq"], [("fetch", "primekg"), ("fetch", "optimuskg")]),
        (["rnak"], [*COMMANDS]),
        (["--help"], [*COMMANDS]),
        ([], [*COMMANDS]),
    ],
)
def test_flags_are_read_of_the_asked_commands_alone(
    words: list[str], made: list[tuple[str, ...]]
) -> None:
    app = make_app(words)
    found: set[tuple[str, ...]] = {(str(command.name),) for command in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        commands = group.typer_instance.registered_commands
        found |= {(str(group.name), str(command.name)) for command in commands}
    assert found == {*made}


FUNCTIONS: dict[Callable[..., Any], str] = {
    embed_model: "lib.embed_model",
    fetch_primekg: "lib.fetch",
    fetch_optimuskg: "lib.fetch",
    generate_gnn_embeddings: "lib.gnn_embeddings",
    generate_hgt_embeddings: "lib.gnn_hgt",
    evaluate_model: "lib.evaluate",
    evaluate_model_dir: "lib.evaluate",
    EvaluationSettings: "lib.evaluate",
    fit_model_ranker: "lib.fit_ranker",
    similar_nodes: "lib.similar",
    rank_drugs: "lib.rank",
    synthesize_graph: "lib.synthesize",
    run_demo: "lib.demo",
    describe_machine: "lib.doctor",
    draw_map: "show.map.draw_map",
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_flags_read_from_the_source_are_those_of_the_function(function: Callable[..., Any]) -> None:
    _, flags = read_flags(FUNCTIONS[function], function.__name__)
    parameters = inspect.signature(function).parameters
    assert [flag.name for flag in flags] == list(parameters)
    for flag in flags:
        parameter = parameters[flag.name]
        assert flag.annotation == parameter.annotation
        assert flag.help
        assert parameter.default == (parameter.empty if flag.default is ... else flag.default)


def test_evaluate_takes_the_settings_of_both_models() -> None:
    names = [flag.name for flag in COMMANDS["evaluate",].read()[1]]
    assert len(set(names)) == len(names)
    for settings in (SageSettings, HgtSettings, EvaluationSettings):
        assert {field.name for field in fields(settings)} <= set(names)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["rank", "--help"], ["embed", "hgt", "--device=tpu", "--edges=x", "--output=y"]],
    ids=["help", "help of a command", "unknown device"],
)
def test_help_and_a_wrong_device_import_nothing_slow(arguments: list[str]) -> None:
    slow = ["torch", "numba", "numpy", "polars", "scipy", "sklearn"]
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({slow}))\n"  # importing one of them fails
        "from clinical_drug_discovery.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = "error: device (got 'tpu') must be one of" in done.stderr
    assert done.returncode == (2 if refused else 0), done.stderr
    assert refused == ("--device=tpu" in arguments)


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
def test_embed_then_similar(model: str, edges: Path, tmp_path: Path) -> None:
    output = tmp_path / "e.csv"
    flags = ["--include-node-types", "drug", "--include-node-types", "disease", "--seed", 3]
    flags += ["--no-ranker", "--edges", edges, "--output", output]
    result = cdd("embed", model, "--json", *flags, *SMALL)
    assert result.exit_code == 0, result.output
    stats = json.loads(result.stdout)
    assert stats["model"] == model
    assert stats["seed"] == 3
    assert set(stats["collapse"]) == {"drug", "disease"}
    nodes, _ = read_embeddings(output)
    name = nodes["node_name"][0]
    found = cdd("similar", "--embeddings", output, "--node", name, "--top", 3, "--json")
    assert len(json.loads(found.stdout)) == 3
    table = cdd("similar", "--embeddings", output, "--node", name, "--type", "disease")
    assert table.exit_code == 0
    assert "MONDO:" in table.stdout
    asked = ["similar", "--embeddings", output, "--node", name, "--top", 3, "--explain"]
    explained = json.loads(cdd(*asked, "--json").stdout)
    for row in explained:
        for path in row["evidence"]:
            assert path["nodes"][0]["node_name"] == name
            assert path["nodes"][-1]["node_index"] == row["node_index"]
            assert len(path["nodes"]) == 3
    assert any(row["evidence"] for row in explained)
    refused = cdd(*asked, "--model-dir", output.parent)
    assert refused.exit_code == 2
    assert "must hold graph.safetensors" in refused.stderr


def test_synthesize_and_doctor(tmp_path: Path) -> None:
    made = cdd("synthesize", "--scale", 0.002, "--output", tmp_path / "kg.csv.zst", "--json")
    assert json.loads(made.stdout)["output"] == str(tmp_path / "kg.csv.zst")
    assert json.loads(cdd("doctor", "--json").stdout)["devices"][-1] == "cpu"
    assert "torch" in cdd("doctor").stdout


def test_demo_answers_for_three_drugs_and_three_diseases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = cdd("demo", "--output-dir", tmp_path / "demo", "--json")
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert list(answers) == ["graphsage", "hgt"]
    for name, expected in {
        "Atorvastatin": "Simvastatin",
        "Propranolol": "Metoprolol",
        "Sertraline": "Paroxetine",
        "type 2 diabetes mellitus": "type 1 diabetes mellitus",
        "asthma": "allergic rhinitis",
        "major depressive disorder": "generalized anxiety disorder",
    }.items():
        for answer in answers.values():
            assert expected in [row["node_name"] for row in answer["neighbors"][name]], name
    show_demo(answers)
    shown = capsys.readouterr().out
    assert "GraphSAGE on the sample graph: 820 nodes" in shown
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("Atorvastatin"))
    for answer in answers.values():
        drugs = answer["ranking"]["drugs"]
        assert [row["rank"] for row in drugs] == [1, 2, 3]
        assert all(row["evidence"] for row in drugs)
    assert answers["hgt"]["ranking"]["drugs"][0]["evidence"][0]["text"] in shown
    for answer in answers.values():  # side by side: both models' nearest in one line
        assert answer["neighbors"]["Atorvastatin"][0]["node_name"] in line


def test_version() -> None:
    result = cdd("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == version("clinical-drug-discovery")


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["similar", "--embeddings", "a", "--embeddings", "b", "--node", "c"], "--embeddings"),
        (["demo", "--output", "a", "--output-dir", "b"], "--output"),
        (["demo", "--seed=1", "--seed", "1"], "--seed"),
        (["embed", "hgt", "--edges=a", "--output=b", "--cache", "--no-cache"], "--cache"),
    ],
)
def test_a_flag_given_twice_is_refused(arguments: list[str], flag: str) -> None:
    result = cdd(*arguments)
    assert result.exit_code == 2
    assert f"{flag} is given twice" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "hgt", "--edges=a", "--output=b", "--num-epochs", "two"], "'two'"),
        (["similar", "--embeddings=a", "--node=b", "--top", "1.5"], "'1.5'"),
        (["embed", "--edges=a", "--output=b"], "The model must come before --edges=a; it is grap"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments: list[str], message: str) -> None:
    result = cdd(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_run_ends_with_a_summary_and_a_command_that_works(edges: Path, tmp_path: Path) -> None:
    output = tmp_path / "my run" / "e.csv"
    result = cdd("embed", "graphsage", "--edges", edges, "--output", output, *SMALL)
    assert result.exit_code == 0, result.output
    for part in (str(output), "drug ranker", "2 epochs of GraphSAGE on cpu", "GiB"):
        assert part in result.stdout
    assert len(result.stdout.splitlines()) < 15
    _, command = result.stdout.split("Try next: ")
    program, *asked = shlex.split(command)
    assert shutil.which(program) is not None or Path(program).is_file()
    answer = cdd(*asked, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)


@pytest.mark.parametrize("place", ["on PATH", "below", "elsewhere"])
def test_the_program_is_named_as_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    script = tmp_path / "my venv" / "bin" / "cdd"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent) if place == "on PATH" else "")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other" if place == "elsewhere" else tmp_path)
    named = {"on PATH": "cdd", "below": "my venv/bin/cdd", "elsewhere": str(script)}[place]
    assert shlex.split(program()) == [named]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--edges", "none.csv", "--output", "e.csv"], "none.csv"),
        (["--edges", "kg.csv", "--output", "e.xml"], "e.xml"),
        (["--edges", "kg.csv", "--output", "e.csv", "--num-layers", "0"], "num_layers (got 0)"),
        (["--edges", "kg.csv", "--output", "e.csv", "--num-layers", "two"], "num-layers"),
        (["--edges", "kg.csv"], "output"),
        (["--edges", "kg.csv", "--output", "e.csv", "--epochs", "3"], "epochs"),
        (["--edges", "kg.csv", "--output", "e.csv", "--device", "mps"], "mps"),
    ],
)
@pytest.mark.usefixtures("edges")
def test_mistakes_end_with_code_2_one_message_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cdd("embed", "graphsage", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["kg.csv"]


SCRIPT = str(Path(sys.executable).with_name("cdd"))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has names in UTF-8 in every locale")
def test_a_name_that_the_locale_cannot_hold_is_refused_before_the_training(
    edges: Path, tmp_path: Path
) -> None:
    shutil.copy(edges, tmp_path / "é.csv")
    names = sorted(path.name for path in tmp_path.iterdir())
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for one, output in (("é.csv", "e.npy"), ("kg.csv", "ö.npy")):
        command = [SCRIPT, "embed", "graphsage", "--edges", one, "--output", output]
        done = subprocess.run(
            command, env={**os.environ, **locale}, cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(b"in the C locale, set PYTHONUTF8=1")
        assert b"Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == names


MILESTONES = (
    "Device: ",
    "Full-batch training with edge sampling",
    "Layer-wise inference",
    "Generating final embeddings with layer-wise computation",
    "Layer 1/2",
    "Layer 2/2",
    "Generated embeddings: torch.Size([",
)


def run_script(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_script_writes_lines_when_stderr_is_no_terminal(edges: Path, tmp_path: Path) -> None:
    flags = ["--no-ranker", "--edges", edges, "--output", tmp_path / "e.npy", "--json"]
    process = run_script("embed", "graphsage", *flags, *SMALL)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(stdout)["saved_nodes"] > 0
    lines = [line.split(" ", maxsplit=2)[2] for line in stderr.splitlines()]  # without the time
    assert lines[0] == "Loading the libraries"
    for milestone in MILESTONES:
        assert any(line.startswith(milestone) for line in lines), milestone
    assert "\x1b" not in stderr


def test_a_nice_run_says_so_and_writes_the_same_bytes(edges: Path, tmp_path: Path) -> None:
    outputs = []
    for nice in ([], ["--nice"]):
        outputs.append(tmp_path / f"e{len(nice)}.npy")
        flags = ["--no-ranker", "--edges", edges, "--output", outputs[-1], *SMALL, *nice]
        process = run_script("embed", "graphsage", *flags)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert bool(re.search(r"Priority \d+, \d+ of \d+ cores", stderr)) == bool(nice)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    can_be_nice = {words for words, command in COMMANDS.items() if command.has_nice}
    assert can_be_nice == {("embed", "graphsage"), ("embed", "hgt"), ("rank",), ("evaluate",)}


@pytest.mark.parametrize(
    ("model", "stages"),
    [("graphsage", ()), ("hgt", ("Projecting each node type", "Output projection"))],
)
def test_the_script_shows_the_milestones_on_a_terminal(
    edges: Path, tmp_path: Path, model: str, stages: tuple[str, ...]
) -> None:
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    ours, theirs = pty.openpty()
    output = tmp_path / "e.npy"
    flags = ["--edges", edges, "--output", output, "--device", "cpu", "--no-ranker", *SMALL]
    command = [SCRIPT, "embed", model, *map(str, flags)]
    wide = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=wide) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    for milestone in (*MILESTONES, *stages):
        assert milestone in text


@pytest.mark.parametrize(("model", "how"), [("graphsage", signal.SIGKILL), ("hgt", signal.SIGINT)])
def test_a_killed_run_leaves_no_half_written_output(
    edges: Path, tmp_path: Path, model: str, how: signal.Signals
) -> None:
    output = tmp_path / "out" / "e.csv"
    process = run_script(
        "embed", model, "--edges", edges, "--output", output, "--num-epochs", 10**6
    )
    history = output.parent / "e_model.run" / "history.csv"
    while process.poll() is None and not history.exists():  # until the first epoch has ended
        time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    left = sorted(path.name for path in output.parent.rglob("*"))
    # A run that could not clean up leaves its locks. Ctrl-C saves a checkpoint.
    checkpoints = [name for name in left if name.startswith("checkpoint-")]
    assert bool(checkpoints) == (how == signal.SIGINT)
    locks = [".lock-e.csv", "e_model.lock"] if how == signal.SIGKILL else []
    assert left == sorted([*checkpoints, *locks, "e_model.run", "history.csv"])
