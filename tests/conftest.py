from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, random_facts, read_facts

from clinical_drug_discovery.graph import KnowledgeGraph


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    return random_facts(rng)


@pytest.fixture
def graph(tmp_path: Path, facts: list[Fact]) -> KnowledgeGraph:
    return read_facts(tmp_path, facts)
