"""`embed_model` does the same as the functions of single models, and checks before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.graph.vocabulary import VocabularyChoice
from clinical_drug_discovery.lib.embed_model import embed_model
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.errors import InputError

SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dim": 8, "num_layers": 1, "num_epochs": 2}


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact]) -> Path:
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


@pytest.mark.parametrize(
    ("model", "generate"),
    [("graphsage", generate_gnn_embeddings), ("hgt", generate_hgt_embeddings)],
)
def test_it_writes_the_same_files(model: str, generate: Any, edges: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"treats": ["indication"]}
    filters: dict[str, Any] = {"exclude_relations": ["off-label use"]}
    others: dict[str, Any] = {"seed": 3, "ranker": False}
    generate(edges, tmp_path / "a" / "e.npy", **SMALL, **words, **filters, **others)
    embed_model(
        model, edges, tmp_path / "b" / "e.npy", model_settings=SMALL,
        vocabulary=VocabularyChoice(**words), reading=ReadSettings(**filters), **others,
    )  # fmt: skip
    for name in ("e.npy", "e_model/config.json", "e_model/weights.safetensors"):
        first, second = ((tmp_path / place / name).read_bytes() for place in "ab")
        assert first == second, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gcn"}, r"model \(got 'gcn'\) must be one of graphsage, hgt"),
        ({"model_settings": {"num_heads": 2}}, r"num_heads \(got 2\) does not apply to model 'gr"),
        ({"model_settings": {"num_epochs": 0}}, r"num_epochs \(got 0\)"),
        ({"reading": ReadSettings(limit_nodes=0)}, r"limit_nodes \(got 0\)"),
        ({"vocabulary": VocabularyChoice(treats=[])}, r"treats \(got \[\]\)"),
    ],
)
def test_it_refuses_before_it_starts(
    edges: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        embed_model(
            **{"model": "graphsage", "edges_csv": edges, "output_csv": tmp_path / "o", **options}
        )
    assert list(tmp_path.iterdir()) == [edges]
