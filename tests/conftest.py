from __future__ import annotations

import os
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from graphs import Fact, random_facts, read_facts

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    return random_facts(rng)


@pytest.fixture
def graph(tmp_path: Path, facts: list[Fact]) -> KnowledgeGraph:
    return read_facts(tmp_path, facts)


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
