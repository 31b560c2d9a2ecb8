"""The bundled graph has the form that its page claims."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph

PATH = Path(str(files("clinical_drug_discovery") / "data" / "sample_kg.csv"))


@pytest.fixture(scope="module")
def sample() -> KnowledgeGraph:
    return read_graph(PATH)


def test_is_large_enough(sample: KnowledgeGraph) -> None:
    counts = dict(sample.nodes["node_type"].value_counts().iter_rows())
    least = {"drug": 120, "disease": 60, "gene/protein": 200, "pathway": 40, "effect/phenotype": 80}
    for name, number in least.items():
        assert counts[name] >= number, name
    assert sample.report.num_facts >= 1_500
    assert {
        "indication", "contraindication", "drug_protein", "disease_protein", "pathway_protein",
        "protein_protein", "disease_phenotype_positive", "drug_effect", "disease_disease",
    } <= set(sample.relations)  # fmt: skip


def test_holds_no_rubbish(sample: KnowledgeGraph) -> None:
    assert sample.report.num_duplicate_rows == 0
    assert sample.report.num_self_loops == 0
    assert sample.report.num_mirrored_facts == 0
    text = PATH.read_text(encoding="utf-8")
    assert "\r" not in text
    assert sample.nodes["node_name"].str.strip_chars().equals(sample.nodes["node_name"])


def test_is_connected(sample: KnowledgeGraph) -> None:
    label = np.arange(sample.num_nodes)
    for _ in range(sample.num_nodes):
        lowest = label.copy()
        np.minimum.at(lowest, sample.dst.numpy(), label[sample.src.numpy()])
        if (lowest == label).all():
            break
        label = lowest
    assert (label == 0).all()


def test_every_drug_has_a_use_and_classes_share_targets(sample: KnowledgeGraph) -> None:
    rows = pl.read_csv(PATH, infer_schema=False)
    used = set(rows.filter(pl.col("relation") == "indication")["x_name"])
    assert used == set(sample.nodes.filter(pl.col("node_type") == "drug")["node_name"])
    targets = rows.filter(relation="drug_protein", display_relation="target")
    for target, members in {
        "HMGCR": {"Atorvastatin", "Simvastatin", "Rosuvastatin", "Pravastatin"},
        "SLC6A4": {"Sertraline", "Fluoxetine", "Paroxetine", "Citalopram"},
        "ADRB1": {"Propranolol", "Metoprolol", "Atenolol"},
        "ACE": {"Lisinopril", "Enalapril", "Ramipril"},
        "EGFR": {"Gefitinib", "Erlotinib"},
    }.items():
        assert members <= set(targets.filter(pl.col("y_name") == target)["x_name"]), target
