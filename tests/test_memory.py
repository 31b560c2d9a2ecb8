"""Budgets are parsed, kept or refused; every parameter that is said to help does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.memory import SagePlan, check_budget, parse_memory
from clinical_drug_discovery.runtime import GIB
from clinical_drug_discovery.synthetic import synthesize_graph

PRIMEKG = SagePlan(129_375, 8_100_498, 256, 512, 3, 10_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GiB", 4 * GIB),
        ("5.33 GB", 5_330_000_000),
        ("512mib", GIB // 2),
        ("1000", 1000),
        (123, 123),
    ],
)
def test_amounts(text: str | int, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "four", "4 GiBs", "-1GiB", "0", 0, "1e9", "nan"])
def test_what_is_no_amount(text: str | int) -> None:
    with pytest.raises(InputError, match="memory_budget"):
        parse_memory(text)


def test_none_is_most_of_what_is_free() -> None:
    assert 0 < parse_memory(None) < psutil.virtual_memory().total


@pytest.mark.parametrize(
    "name",
    ["hidden_dim", "embedding_dim", "num_layers", "edge_batch_size", "num_nodes", "num_edges"],
)
def test_smaller_plans_need_less(name: str) -> None:
    smaller = replace(PRIMEKG, **{name: getattr(PRIMEKG, name) // 2})
    assert smaller.bytes_needed() < PRIMEKG.bytes_needed()


def test_a_budget_that_is_too_small_is_refused_with_what_would_do() -> None:
    needed = check_budget(PRIMEKG, "64GiB")
    assert needed > PRIMEKG.bytes_needed()
    with pytest.raises(InputError, match=r"memory_budget .*needs \d+\.\d\d GiB; hidden_dim \d+ "):
        check_budget(PRIMEKG, needed * 2 // 3)
    with pytest.raises(InputError, match="use fewer nodes"):
        check_budget(PRIMEKG, psutil.Process().memory_info().rss)


@pytest.mark.parametrize(
    "sizes",
    [
        {"embedding_dim": 512, "hidden_dim": 32, "num_layers": 2, "edge_batch_size": 200_000},
        {"embedding_dim": 64, "hidden_dim": 256, "num_layers": 3, "edge_batch_size": 1_000},
    ],
)
def test_the_prediction_is_an_upper_bound_and_no_idle_one(
    tmp_path: Path, sizes: dict[str, int]
) -> None:
    synthesize_graph(tmp_path / "kg.parquet", scale=0.1)
    script = (
        "from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings\n"
        f"s = generate_gnn_embeddings('kg.parquet', 'e.npy', num_epochs=2, **{sizes})\n"
        'import sys; sys.stdout.write(f\'{s["predicted_memory_gib"]} {s["peak_memory_gib"]}\')'
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    predicted, measured = map(float, done.stdout.split())
    assert measured <= 1.1 * predicted
    assert predicted <= 2 * measured
