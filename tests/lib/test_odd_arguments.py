"""Odd arguments of every public function end in an InputError of ours, or work; never otherwise.

The values are made from the declaration of each parameter: its type in the signature and its range
in `system.limits.parameters`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import random_facts, to_rows
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.commands import COMMANDS
from clinical_drug_discovery.flags import flag_of
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.graph.vocabulary import VocabularyChoice
from clinical_drug_discovery.lib.cache import manage_cache
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
from clinical_drug_discovery.system.arguments import plain
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.limits.parameters import KINDS, RANGES, check_arguments

Function = Callable[..., Any]
FUNCTIONS: tuple[Function, ...] = (
    generate_gnn_embeddings, generate_hgt_embeddings, rank_drugs, similar_nodes, evaluate_model,
    evaluate_model_dir, synthesize_graph, run_demo, describe_machine, fit_model_ranker,
    manage_cache, embed_model, fetch_primekg, fetch_optimuskg,
)  # fmt: skip
SMALL: dict[str, Any] = {
    "embedding_dim": 4, "hidden_dim": 4, "num_layers": 1, "num_epochs": 1, "cache": False,
    "device": "cpu",
}  # fmt: skip
HUGE = 10**5000  # Python refuses to show it
ODD: list[Any] = [
    None, math.nan, math.inf, -math.inf, 3e38, 1e300, -0.0, 0, -1, 1, 0.5, 2**31, 2**63, 2**64,
    HUGE, True, False, 1j, np.float32("nan"), np.int64(3), np.float16(2), np.bool_(True),
    np.array([1, 2]), np.array("x"), np.datetime64("2020"), torch.tensor(2.0), "", " ", "x",
    "x" * 5000, "1", "nan", "None", "\0", "\udcff", "é", "a/b", b"", b"x", [], [[]], [None],
    ["x"], [b"x"], ["\udcff"], [1.5], ("x", 1), {}, {"x": 1}, {1: 2}, set(), {"x"}, object(),
    object, len, range(3), Path(), Path("\udcff"), Path("a\0b"), memoryview(b"x"), slice(None), ...,
]  # fmt: skip


def odd_values(annotation: str, name: str) -> Iterator[Any]:
    """Yield odd values for a parameter, among them the ends of its declared range."""
    yield from ODD
    if name in RANGES:
        low, high = RANGES[name].low, RANGES[name].high
        yield from (low, high, float(low), math.nextafter(low, -math.inf), high + 1, high * 2)
        if "int" in annotation:
            yield from (int(low) - 1, int(high) + 1)


def parameters(function: Function) -> Iterator[tuple[str, str]]:
    """Yield the name and the type of each parameter, and of the fields of settings."""
    for name, one in inspect.signature(function).parameters.items():
        yield name, str(one.annotation)
    for kind in (EvaluationSettings, VocabularyChoice, ReadSettings):
        if function is evaluate_model:
            yield from ((field.name, str(field.type)) for field in fields(kind))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_every_parameter_is_declared(function: Function) -> None:
    known = inspect.unwrap(function).__globals__
    for name, annotation in parameters(function):
        kind = annotation.removesuffix(" | None")
        assert kind in KINDS or is_dataclass(known.get(kind)), (name, annotation)
        if kind in ("int", "float"):
            assert name in RANGES, f"declare the range of {name} in system/limits/parameters.py"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_defaults_are_in_their_ranges(function: Function) -> None:
    defaults = {
        name: one.default
        for name, one in inspect.signature(function).parameters.items()
        if one.default is not one.empty
    }
    check_arguments(function, defaults)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_the_check_of_an_odd_value_passes_or_names_the_parameter(function: Function) -> None:
    """The check alone, so that all values of all parameters can be tried."""
    for name, annotation in parameters(function):
        if name not in inspect.signature(function).parameters:
            continue
        for value in odd_values(annotation, name):
            try:
                check_arguments(function, {name: plain(value)})
            except InputError as error:
                text = str(error)
                named = text.startswith((f"{name} (got ", "edges file (got ", *_nested(name)))
                assert named, (name, text)
                assert len(text) < 500, name


def _nested(name: str) -> tuple[str, ...]:
    return ("on_",) if name == "reading" else ()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[Function, dict[str, Any]]:
    """Valid arguments of each function, for a small graph and a model of it."""
    folder = tmp_path_factory.mktemp("odd")
    to_rows(random_facts(np.random.default_rng(7))).write_csv(folder / "kg.csv")
    edges, output = folder / "kg.csv", folder / "e.csv"
    generate_gnn_embeddings(edges, output, **SMALL)
    (folder / "gold.csv").write_text("drug_id,disease_id\nDB1,2\n")
    new = {"edges_csv": edges, "output_csv": folder / "new.csv", "overwrite": True}
    return {
        generate_gnn_embeddings: {**new, **SMALL, "ranker": False},
        generate_hgt_embeddings: {**new, **SMALL, "num_heads": 2, "ranker": False},
        embed_model: {**new, "model": "graphsage"},
        rank_drugs: {"model_dir": folder / "e_model", "disease": "disease 1"},
        similar_nodes: {"embeddings": output, "node": "drug 1"},
        evaluate_model: {
            "edges_csv": edges, "output_dir": folder / "ev", "model": "graphsage", "device": "cpu",
            "settings": EvaluationSettings("pair"), "overwrite": True, "cache": False,
            "model_settings": {k: v for k, v in SMALL.items() if k not in ("cache", "device")},
        },
    }  # fmt: skip


#: Parameters whose valid values run for long, or write where the test runs.
CALLED: dict[Function, tuple[str, ...]] = {
    generate_gnn_embeddings: (
        "edges_csv", "learning_rate", "training", "subgraph_size", "drug_type", "treats",
        "memory_budget", "device", "seed", "chunk_size", "limit_nodes", "exclude_relations",
        "cache", "edge_batch_size", "nodes", "include_node_types",
    ),
    generate_hgt_embeddings: (
        "learning_rate", "temperature", "similarity_threshold", "contrastive_weight", "num_heads",
        "disease_type", "gene_type", "disease_gene_relation", "edge_sample_size", "hidden_dim",
    ),
    rank_drugs: (
        "model_dir", "disease", "diseases", "drug", "drugs", "top", "include_known", "explain",
        "synonyms",
    ),
    similar_nodes: ("embeddings", "node", "type", "top", "explain", "model_dir", "synonyms"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("function", CALLED, ids=lambda one: one.__name__)
def test_a_call_with_an_odd_value_works_or_is_refused(
    ground: dict[Function, dict[str, Any]],
    function: Function,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    signature = inspect.signature(function).parameters
    for name in CALLED[function]:
        for value in odd_values(str(signature[name].annotation), name):
            call_with(function, ground[function], name, value)


def call_with(function: Function, valid: dict[str, Any], name: str, value: Any) -> bool:
    """Return whether a call works; an InputError is allowed, and any other error is not."""
    try:
        function(**{**valid, name: value})
    except InputError:
        return False
    except Exception as error:
        raise AssertionError(f"{function.__name__}({name}={value!r:.60})") from error
    return True


#: The values that once ended in a traceback, or in one after the training.
CASES: list[tuple[Function, str, Any]] = [
    (generate_gnn_embeddings, "learning_rate", 3e38),
    (generate_gnn_embeddings, "learning_rate", 1e300),
    (generate_hgt_embeddings, "learning_rate", 3e38),
    (generate_hgt_embeddings, "temperature", 1e300),
    (generate_hgt_embeddings, "disease_type", np.int64(3)),
    (generate_hgt_embeddings, "disease_type", object()),
    (generate_gnn_embeddings, "edges_csv", Path("b\udcffd.csv")),
    (generate_gnn_embeddings, "output_csv", "o\udcff.parquet"),
    (generate_gnn_embeddings, "output_csv", b"o.parquet"),
    (generate_gnn_embeddings, "overwrite", "no"),
    (generate_gnn_embeddings, "num_epochs", HUGE),
    (generate_gnn_embeddings, "memory_budget", HUGE),
    (similar_nodes, "node", "\udcff"),
    (rank_drugs, "disease", 3),
    (rank_drugs, "synonyms", "a\0b"),
    (embed_model, "model", "gcn"),
    (embed_model, "model_settings", {"num_heads": 2}),
    (embed_model, "vocabulary", "drug"),
    (embed_model, "on_epoch", 3),
    (evaluate_model, "settings", None),
    (evaluate_model, "settings", EvaluationSettings("pair", share=math.nan)),
    (evaluate_model, "model_settings", {1: 2}),
    (evaluate_model, "model_settings", {"num_epochs": "x"}),
    (evaluate_model, "model", 3),
]


@pytest.mark.parametrize(
    ("function", "name", "value"),
    CASES,
    ids=[f"{function.__name__}-{name}-{i}" for i, (function, name, _) in enumerate(CASES)],
)
def test_a_value_is_refused_before_the_training(
    ground: dict[Function, dict[str, Any]], function: Function, name: str, value: Any
) -> None:
    folder = Path(ground[similar_nodes]["embeddings"]).parent
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=r"\(got "):
        function(**{**ground[function], name: value})
    assert sorted(folder.iterdir()) == before


def test_odd_flags_end_in_exit_code_2(
    ground: dict[Function, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each flag of the ranking and the search with texts that it does not mean, in one process."""
    monkeypatch.chdir(tmp_path)
    given: dict[tuple[str, ...], dict[str, str]] = {
        ("rank",): {k: str(v) for k, v in ground[rank_drugs].items()},
        ("similar",): {k: str(v) for k, v in ground[similar_nodes].items()},
    }
    try_all_flags(given)


@pytest.mark.slow
def test_odd_flags_of_the_training_end_in_exit_code_2(
    ground: dict[Function, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    edges = str(ground[generate_gnn_embeddings]["edges_csv"])
    small = {name: str(value) for name, value in SMALL.items() if name != "cache"}
    valid = {"edges_csv": edges, "output_csv": "new.npy", "cache_dir": "cache", **small}
    try_all_flags({("embed", "graphsage"): valid, ("embed", "hgt"): {**valid, "num_heads": "2"}})


def try_all_flags(given: dict[tuple[str, ...], dict[str, str]]) -> None:
    """Give each flag of some commands texts that it does not mean, beside valid flags."""
    app, runner = make_app(), CliRunner()
    for command, valid in given.items():
        for flag in COMMANDS[command].read()[1]:
            for text in ("", "nan", "-1", "1e300", "9" * 30, "\udcff", "é", "a" * 300, "[]"):
                words = [x for k, v in valid.items() if k != flag.name for x in (flag_of(k), v)]
                if flag.annotation != "bool":
                    done = runner.invoke(app, [*command, *words, flag_of(flag.name), text])
                    assert done.exit_code in (0, 2), (command, flag.name, text, done.exception)
                    assert done.exception is None or isinstance(done.exception, SystemExit)
