"""`cdd evaluate --gold`: an outside list is ranked with a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from graphs import planted_facts, to_rows
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.evaluation.measures.differences import differences
from clinical_drug_discovery.evaluation.metrics import pair_metrics
from clinical_drug_discovery.evaluation.rankers import RANKERS
from clinical_drug_discovery.lib.evaluate import evaluate_model_dir
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.system.errors import InputError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a graph that lacks a third of the planted treatments, and a list of these."""
    home = tmp_path_factory.mktemp("gold")
    facts = planted_facts()
    treats = [fact for fact in facts if fact[1] == "indication"]
    hidden = treats[::3]
    to_rows([fact for fact in facts if fact not in hidden]).write_csv(home / "kg.csv")
    generate_gnn_embeddings(
        home / "kg.csv", home / "e.parquet", embedding_dim=16, hidden_dim=16, num_layers=2,
        num_epochs=5, device="cpu", cache=False,
    )  # fmt: skip
    rows = [
        {"drug_id": x.id, "disease_name": y.name.upper(), "date": str(2000 + i % 20),
         "label": "approved"}
        for i, (x, _, y) in enumerate(hidden)
    ]  # fmt: skip
    helped = {(x.id, y.id) for x, _, y in treats}
    failed = [(str(i), str(i % 40)) for i in range(60) if (str(i), str(i % 40)) not in helped]
    rows += [
        {"drug_id": x, "disease_name": f"disease {y}", "date": "", "label": "failed"}
        for x, y in failed
    ]
    rows.append({"drug_id": "x", "disease_name": "nothing", "date": "", "label": "approved"})
    pl.DataFrame(rows).write_csv(home / "list.tsv", separator="\t")
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> dict[str, Any]:
    return evaluate_model_dir(home / "e_model", home / "list.tsv", home / "out")


def test_the_hidden_treatments_are_found(report: dict[str, Any], home: Path) -> None:
    rows = pl.read_csv(home / "list.tsv", separator="\t", infer_schema=False)
    approved = rows.filter(label="approved").height - 1
    assert tuple(report["rankers"]) == RANKERS
    assert report["rankers_left_out"] == {}
    assert report["outcomes"]["ranked"] == report["num_ranked_pairs"] == approved
    assert report["outcomes"]["not found"] == 1
    assert sum(report["outcomes"].values()) == report["num_rows"] == rows.height
    for name in ("ranker", "paths", "shared"):
        figures = report["rankers"][name]
        assert figures["mrr"] > 0.4 > report["rankers"]["popularity"]["mrr"]
        assert figures["approved_above_failed"] > 0.9
        assert figures["num_comparisons_failed"] > 50


def test_the_files_hold_what_the_report_says(report: dict[str, Any], home: Path) -> None:
    saved = json.loads((home / "out" / "report.json").read_text())
    assert saved == {**report, "output_dir": "out"}
    assert str(home) not in (home / "out" / "report.json").read_text()
    ranks = pl.read_parquet(home / "out" / "ranks.parquet")
    for name, figures in report["rankers"].items():
        own = ranks.filter(ranker=name)
        found = pair_metrics(own["rank"].to_numpy(), own["disease_index"].to_numpy())
        assert {key: figures[key] for key in found} == pytest.approx(found)
    assert report["differences"] == differences(ranks)
    pairs = pl.read_csv(home / "out" / "gold_pairs.csv", infer_schema=False)
    assert pairs["outcome"].value_counts().sum()["count"].item() == report["num_rows"]
    (reason,) = pairs.filter(outcome="not found")["reason"]
    assert "drug_id 'x' is not the id" in reason
    assert "disease_name (got 'nothing')" in reason


def test_a_date_makes_a_temporal_test(home: Path, tmp_path: Path) -> None:
    report = evaluate_model_dir(
        home / "e_model", home / "list.tsv", tmp_path, since="2010", rankers=["walk", "neighbors"]
    )
    rows = pl.read_csv(home / "list.tsv", separator="\t", infer_schema=False)
    dates = rows.filter(pl.col("date") != "")["date"].cast(int)
    assert report["num_ranked_pairs"] == (dates >= 2010).sum()
    assert report["outcomes"]["earlier"] == (dates < 2010).sum()
    assert list(report["rankers"]) == ["neighbors", "walk"]


def test_a_model_without_its_embeddings_leaves_their_ranker_out(
    home: Path, tmp_path: Path, report: dict[str, Any]
) -> None:
    moved = tmp_path / "moved.parquet"
    (home / "e.parquet").rename(moved)
    try:
        found = evaluate_model_dir(home / "e_model", home / "list.tsv", tmp_path / "out")
        assert list(found["rankers_left_out"]) == ["gnn", "neighbors"]
        assert found["rankers"]["ranker"] == report["rankers"]["ranker"]
        with pytest.raises(
            InputError, match=r"rankers \(got 'neighbors'\).*embeddings are missing"
        ):
            evaluate_model_dir(
                home / "e_model", home / "list.tsv", tmp_path / "other", rankers=["neighbors"]
            )
        named = evaluate_model_dir(
            home / "e_model", home / "list.tsv", tmp_path / "named", embeddings=moved,
            rankers=("neighbors",),
        )  # fmt: skip
        assert named["rankers"]["neighbors"] == report["rankers"]["neighbors"]
        fewer = tmp_path / "fewer.parquet"
        pl.read_parquet(moved)[1:].write_parquet(fewer)
        with pytest.raises(InputError, match="has other nodes than the graph"):
            evaluate_model_dir(
                home / "e_model", home / "list.tsv", tmp_path / "other", embeddings=fewer
            )
    finally:
        moved.rename(home / "e.parquet")
    assert not (tmp_path / "other").exists()


BOTH = ["--gold", "LIST", "--model-dir", "MODEL"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (BOTH[:2], "--model-dir is missing: give --gold, --model-dir"),
        (BOTH[2:], "--gold is missing"),
        (["--model", "hgt", "--split", "pair"], "--edges is missing: give --edges, --model, --spl"),
        ([*BOTH, "--split", "pair"], "--split (got pair) must be left out with --gold"),
        ([*BOTH, "--num-epochs", "5"], "--num-epochs (got 5) must be left out"),
        ([*BOTH, "--folds", "2"], "--folds (got 2) must be left out"),
        ([*BOTH, "--since", "soon"], "since (got 'soon') must be a date"),
        (["--gold", "MODEL", *BOTH[2:]], "must be a .csv or .tsv file"),
        ([*BOTH[:2], "--model-dir", "MODEL/.."], "must hold graph.safetensors"),
    ],
)
def test_mixtures_and_mistakes_are_refused(
    home: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    paths = {"LIST": home / "list.tsv", "MODEL": home / "e_model"}
    words = [str(home) if word == "MODEL/.." else str(paths.get(word, word)) for word in arguments]
    output = tmp_path / "out"
    result = CliRunner().invoke(make_app(), ["evaluate", *words, "--output", str(output)])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not output.exists()


def test_the_command_shows_the_outcomes(home: Path, tmp_path: Path) -> None:
    words = ["--gold", home / "list.tsv", "--model-dir", home / "e_model", "--output", tmp_path]
    words += ["--ranker", "paths", "--ranker", "walk"]
    result = CliRunner().invoke(make_app(), ["evaluate", *map(str, words)])
    assert result.exit_code == 0
    assert "diseases from list.tsv, each ranked among 60 drugs" in result.stdout
    assert "not found 1" in result.stdout
    assert "approved_above_failed" in result.stdout
    assert "Difference to the walk" in result.stdout
    again = CliRunner().invoke(make_app(), ["evaluate", *map(str, words)])
    assert again.exit_code == 2
    assert "exists already" in again.stderr
