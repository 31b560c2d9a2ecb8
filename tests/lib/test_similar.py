"""The nearest nodes are those of all cosines, and names are shown as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import LOOK_UP_NODES as NODES

from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.models.embeddings_file import write_embeddings
from clinical_drug_discovery.show import show_neighbors
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_similar_nodes_against_all_cosines(
    tmp_path: Path, rng: np.random.Generator, suffix: str
) -> None:
    values = rng.standard_normal((8, 5)).astype(np.float32)
    path = tmp_path / f"e{suffix}"
    write_embeddings(path, NODES, torch.from_numpy(values))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosine = unit @ unit[0]
    drugs = sorted((1, 6, 7), key=lambda row: -cosine[row])
    found = similar_nodes(path, "Aspirin")
    assert [record["node_index"] for record in found] == drugs
    assert [record["rank"] for record in found] == [1, 2, 3]
    assert [record["cosine"] for record in found] == pytest.approx(cosine[drugs], abs=1e-5)
    diseases = similar_nodes(path, "Aspirin", type="disease", top=2)
    assert len(diseases) == 2
    assert {record["node_type"] for record in diseases} == {"disease"}
    with pytest.raises(InputError, match=r"type \(got 'Disease'\).*did you mean 'disease'"):
        similar_nodes(path, "Aspirin", type="Disease")
    with pytest.raises(InputError, match=r"top \(got 0\)"):
        similar_nodes(path, "Aspirin", top=0)


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[phosphorylase] phosphatase [/red] activity of a rather long name " * 3
    record = {"rank": 1, "cosine": 0.5, "node_name": name, "node_type": "t", "node_id": "1"}
    show_neighbors([{**record, "node_source": "GO"}])
    assert name.strip() in capsys.readouterr().out


def test_a_node_is_found_by_a_synonym(tmp_path: Path, rng: np.random.Generator) -> None:
    values = torch.from_numpy(rng.standard_normal((8, 5)).astype(np.float32))
    write_embeddings(tmp_path / "e.parquet", NODES, values)
    (tmp_path / "s.tsv").write_text("name\tid\nASA\tDRUGBANK:db1\n")
    asked = similar_nodes(tmp_path / "e.parquet", "asa", synonyms=tmp_path / "s.tsv")
    assert asked == similar_nodes(tmp_path / "e.parquet", "Aspirin")
