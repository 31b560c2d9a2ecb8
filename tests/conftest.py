from __future__ import annotations

from pathlib import Path

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
