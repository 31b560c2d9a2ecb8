from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from graphs import Fact, random_facts, read_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models import hgt, sage
from clinical_drug_discovery.ops import attention, precision


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    return random_facts(rng)


@pytest.fixture
def graph(tmp_path: Path, facts: list[Fact]) -> KnowledgeGraph:
    return read_facts(tmp_path, facts)


@pytest.fixture
def plain_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16 anywhere: what is left of the differences is the rounding of float32."""
    for module in (precision, attention, sage, hgt):
        for name in ("storage_dtype", "product_dtype"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, _own_dtype)


def _own_dtype(x: torch.Tensor) -> torch.dtype:
    return x.dtype


# One thread for each worker of pytest-xdist: more would wait for those of the other worker. Tests
# of threads ask for more, or start a process of their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    numba.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one worker, so that its fixtures are made once.

    All tests of kernels share a worker: each kernel is compiled once, while the other worker runs
    the rest.
    """
    for item in items:
        compiles = "ops" in item.path.parts or item.path.name == "test_threads.py"
        item.add_marker(pytest.mark.xdist_group("kernels" if compiles else item.path.name))
