"""One small model of the sample graph for all tests of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

import clinical_drug_discovery as cdd

SAMPLE = Path(cdd.__file__).parent / "data" / "sample_kg.csv"


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("model") / "e.parquet"
    sizes = {"embedding_dim": 32, "hidden_dim": 32, "num_epochs": 3}
    stats = cdd.generate_gnn_embeddings(SAMPLE, output, cache=False, **sizes)
    return Path(stats["model_dir"])


@pytest.fixture(scope="session")
def model(model_dir: Path) -> cdd.Model:
    return cdd.load_model(model_dir)
