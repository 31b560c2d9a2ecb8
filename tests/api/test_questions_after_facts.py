"""Ranked diseases of a model with added facts are those of a ranking of each disease."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import clinical_drug_discovery as cdd
from clinical_drug_discovery.ranking.for_drug import preparation, shared_parts, sums_after_facts
from clinical_drug_discovery.ranking.for_drug.log_sums import compute_log_sums

COLUMNS = ["relation", "x_id", "x_type", "x_name", "y_id", "y_type", "y_name"]
NEW_DRUG, NEW_DISEASE = ("NEW1", "drug", "Newdrug"), ("NEW2", "disease", "New disease")
TARGETS = ("HMGCR", "DRD1", "DRD2", "SLC6A4", "HTR1A")
TOP = 8


@pytest.fixture(scope="module")
def saved(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model, which gets a file of sums."""
    directory = tmp_path_factory.mktemp("added")
    shutil.copy(model_dir.with_name("e.parquet"), directory)
    return Path(shutil.copytree(model_dir, directory / "model"))


@pytest.fixture(autouse=True)
def many_diseases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few diseases of the sample graph count as many."""
    monkeypatch.setattr(preparation, "_FEW_DISEASES", 0)


def facts_of(model: cdd.Model, *facts: tuple[str, Any, Any]) -> pl.DataFrame:
    """Return facts between old nodes, given by name, and new nodes."""
    nodes = {row["node_name"]: row for row in model.graph.nodes.iter_rows(named=True)}

    def ends(one: Any) -> tuple[Any, ...]:
        return (
            one
            if isinstance(one, tuple)
            else tuple(nodes[one][f"node_{name}"] for name in ("id", "type", "name"))
        )

    rows = [(relation, *ends(x), *ends(y)) for relation, x, y in facts]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


BINDS = [("drug_protein", NEW_DRUG, gene) for gene in TARGETS]
TREATS = [("indication", NEW_DRUG, "asthma")]
CAUSES = [("disease_protein", NEW_DISEASE, gene) for gene in TARGETS[:3]]
OLD = [("indication", "Warfarin", "asthma"), ("drug_protein", "Warfarin", "DRD2")]


@pytest.mark.parametrize("popularity", [True, False])
@pytest.mark.parametrize(
    "facts",
    [BINDS[:1], BINDS, BINDS + TREATS, BINDS + CAUSES, OLD, BINDS + CAUSES + OLD],
    ids=["target", "targets", "treats", "disease", "old", "all"],
)
def test_the_diseases_are_those_of_a_ranking_of_each(
    saved: Path, facts: list[tuple[str, Any, Any]], popularity: bool
) -> None:
    model = cdd.load_model(saved)
    if popularity:  # the larger model shares what this one has prepared
        model.rank_diseases("Metformin", 1)
    larger = model.add_facts(facts_of(model, *facts))
    ranking = larger.ranking
    diseases = np.flatnonzero(ranking.disease_has_facts)
    every = ranking.ranker.scores(ranking.features, diseases, popularity=popularity)
    chances, _ = ranking.ranker.probabilities(
        ranking.features, diseases, every, popularity=popularity
    )
    num_exact = []
    for name in ("Newdrug", "Warfarin", "Metformin", "Sertraline", "Atorvastatin"):
        if name not in ranking.drugs["node_name"].to_list():
            continue
        drug = ranking.find("drug", name)
        best = ranking.for_drugs.get(popularity, often=True)
        best.exact.clear()
        found = best.best(drug, diseases, TOP)
        num_exact.append(len(best.exact))
        count = ranking.features.known_counts[diseases]
        among = every[:, drug] + np.log(np.maximum(count, 1))
        order = np.lexsort((diseases, -among, -chances[:, drug]))[:TOP]
        np.testing.assert_allclose(found.scores, every[order, drug], atol=2e-4)
        np.testing.assert_allclose(found.probabilities, chances[order, drug], atol=1e-4)
        np.testing.assert_array_equal(np.sort(found.diseases), np.sort(diseases[order]))
    assert np.mean(num_exact) < 0.7 * len(diseases)


def test_a_model_with_many_added_facts_gets_sums_of_its_own(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*given: Any) -> Any:
        calls.append(1)
        return compute_log_sums(*given)

    model = cdd.load_model(saved)
    model.rank_diseases("Metformin", 1)  # writes the file
    for module in (preparation, shared_parts):
        monkeypatch.setattr(module, "compute_log_sums", counted)
    larger = cdd.load_model(saved).add_facts(facts_of(model, *BINDS))
    larger.rank_diseases("Newdrug", 1)
    assert not calls  # the file was read
    again = larger.add_facts(facts_of(larger, *OLD))
    again.rank_diseases("Newdrug", 1)
    assert not calls
    monkeypatch.setattr(sums_after_facts, "_MOST_FACTS", 4)
    larger = model.add_facts(facts_of(model, *BINDS))
    assert larger.rank_diseases("Newdrug", 1).height == 1
    assert len(calls) == 1
    assert larger.ranking.for_drugs.get(True, often=True).is_exact
