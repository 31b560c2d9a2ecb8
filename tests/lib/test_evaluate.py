"""The promises of `cdd evaluate`: no leak, figures that follow from the ranks, clean refusals."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import Fact, node, planted_facts, to_rows
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.evaluation import held_out
from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.evaluation.measures.differences import differences
from clinical_drug_discovery.evaluation.measures.strata import strata_metrics
from clinical_drug_discovery.evaluation.metrics import pair_metrics
from clinical_drug_discovery.evaluation.rankers import RANKERS
from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.lib import evaluate as module
from clinical_drug_discovery.lib._run import held_out_ranking
from clinical_drug_discovery.lib.embed_model import settings_of
from clinical_drug_discovery.lib.evaluate import EvaluationSettings, evaluate_model
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.show.terminal.evaluation import show_evaluation
from clinical_drug_discovery.system.errors import InputError

COLUMNS = ("ranker", "disease_index", "drug_index", "rank")
SMALL: dict[str, Any] = {"embedding_dim": 16, "hidden_dim": 16, "num_layers": 2, "num_epochs": 3}


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drugs treat the diseases of their target's gene; many pairs are said two or three times."""
    facts = planted_facts()
    treats = [(x, y) for x, relation, y in facts if relation == "indication"]
    more: list[Fact] = [(y, "contraindication", x) for x, y in treats[::3]]
    more += [(x, "off-label use", y) for x, y in treats[::4]]
    more += [(node("disease", i), "disease_disease", node("disease", i + 1)) for i in range(39)]
    helped = set(treats)
    pairs = [(node("drug", i), node("disease", 3 * i % 40)) for i in range(30)]
    more += [(x, "contraindication", y) for x, y in pairs if (x, y) not in helped]
    rows = to_rows([*facts, *more], both=True)
    path = tmp_path_factory.mktemp("planted") / "kg.csv"
    pl.concat([rows, rows[::5]]).write_csv(path)
    return path


def evaluate(edges: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Evaluate a small model, options of all kinds in one dictionary, as the flags are."""
    options = {"model": "graphsage", "split": "pair", **SMALL, **options}
    names = [field.name for field in fields(EvaluationSettings)]
    settings = EvaluationSettings(**{name: options.pop(name) for name in names if name in options})
    function = inspect.signature(evaluate_model).parameters
    own = {name: options.pop(name) for name in list(options) if name in function}
    return evaluate_model(edges, output, settings=settings, model_settings=options, **own)


@pytest.fixture(scope="module", params=["pair", "disease", "area"])
def report(request: pytest.FixtureRequest, edges: Path) -> dict[str, Any]:
    model, model_settings, settings = {
        "pair": ("graphsage", {}, EvaluationSettings("pair")),
        "disease": (
            "hgt",
            {"num_heads": 4},
            EvaluationSettings("disease", num_diseases=8, min_drugs=2),
        ),
        "area": ("graphsage", {}, EvaluationSettings("area", num_areas=3, relation_share=0.0)),
    }[request.param]
    return evaluate_model(
        edges,
        edges.parent / request.param,
        model=model,
        settings=settings,
        model_settings=SMALL | model_settings,
    )


def test_no_leak_and_all_is_counted(report: dict[str, Any]) -> None:
    assert report["num_leaks"] == report["split_counts"]["num_leaks"] == 0
    assert report["num_candidates"] == 60
    assert tuple(report["rankers"]) == RANKERS
    counts = report["split_counts"]
    for figures in report["rankers"].values():
        assert figures["num_pairs"] == counts["num_test_pairs"] == counts["num_held_out_pairs"]
        assert figures["num_candidates"] == 60
    relations = {record["relation"] for record in report["relations"]}
    others = {"contraindication", "drug_protein", "drug_drug", "disease_protein"}
    assert relations >= {"indication", *(others if counts["num_held_out_facts"] else ())}
    assert counts["num_removed_fact_edges"] >= 2 * counts["num_held_out_facts"]
    gone = counts["num_removed_edges"] + counts["num_removed_fact_edges"]
    assert report["num_edges"] - report["num_training_edges"] == gone
    assert report["peak_memory_gib"] > 0
    assert min(report["seconds"].values()) >= 0


def test_the_planted_mechanism_is_found(report: dict[str, Any]) -> None:
    mrr = {name: figures["mrr"] for name, figures in report["rankers"].items()}
    for name in ("ranker", "ranker, no popularity", "paths", "shared"):
        assert mrr[name] > 0.4 > mrr["popularity"], name


def test_the_figures_follow_from_the_ranks(report: dict[str, Any]) -> None:
    directory = Path(report["output_dir"])
    saved = {**report, "output_dir": directory.name}  # without the path on this machine
    assert json.loads((directory / "report.json").read_text()) == saved
    ranks = pl.read_parquet(directory / "ranks.parquet")
    assert ranks.columns == [*COLUMNS, "diseases_of_drug", "drugs_of_disease"]
    assert tuple(ranks["ranker"].unique(maintain_order=True)) == RANKERS
    indications = pl.read_csv(directory.parent / "kg.csv").filter(relation="indication")
    pairs = set(indications.select("x_index", "y_index").rows())
    for name, figures in report["rankers"].items():
        own = ranks.filter(ranker=name)
        asked = own.select("drug_index", "disease_index").rows()
        assert len(set(asked)) == len(asked) == figures["num_pairs"]
        assert set(asked) <= pairs
        found = pair_metrics(own["rank"].to_numpy(), own["disease_index"].to_numpy())
        assert {key: figures[key] for key in found} == pytest.approx(found)
    assert report["strata"] == strata_metrics(ranks)
    assert report["differences"] == differences(ranks)
    assert list(report["differences"]) == [name for name in RANKERS if name != "walk"]


def test_the_same_seed_gives_the_same_report(report: dict[str, Any], tmp_path: Path) -> None:
    if report["split"] != "pair":
        pytest.skip("one split shows it")
    edges = Path(report["output_dir"]).parent / "kg.csv"
    again = evaluate(edges, tmp_path)
    of_process = ("seconds", "peak_memory_gib", "predicted_memory_gib", "date", "output_dir")
    first, second = ({k: v for k, v in r.items() if k not in of_process} for r in (report, again))
    assert first == second
    tables = [pl.read_parquet(Path(r["output_dir"]) / "ranks.parquet") for r in (report, again)]
    assert tables[0].equals(tables[1])


def test_chosen_rankers_have_the_same_figures(report: dict[str, Any], tmp_path: Path) -> None:
    if report["split"] != "pair":
        pytest.skip("one split shows it")
    edges = Path(report["output_dir"]).parent / "kg.csv"
    some = evaluate(edges, tmp_path, rankers=np.array(["popularity", "gnn"]))
    assert list(some["rankers"]) == ["gnn", "popularity"]
    for name, figures in some["rankers"].items():
        assert figures == report["rankers"][name]


def test_validation_and_test_share_the_training_graph_and_no_pair(
    edges: Path, tmp_path: Path
) -> None:
    options = {"rankers": ["gnn"], "validation_share": 0.4, "relation_share": 0.2}
    reports = {
        on: evaluate(edges, tmp_path / on, on=on, **options) for on in ("validation", "test")
    }
    ranked = {
        on: set(pl.read_parquet(tmp_path / on / "ranks.parquet").drop("ranker", "rank").rows())
        for on in reports
    }
    counts = reports["test"]["split_counts"]
    for on, report in reports.items():
        assert report["on"] == on
        assert len(ranked[on]) == counts[f"num_{on}_pairs"] > 0
        number = report["rankers"]["gnn"]["num_pairs"]
        assert number == report["split_counts"][f"num_{on}_pairs"]
        targets = sum(
            r["num_targets"] for r in report["relations"] if r["relation"] != "indication"
        )
        assert targets == 2 * report["split_counts"][f"num_{on}_facts"] > 0
    assert not ranked["validation"] & ranked["test"]
    parts = [reports[on]["split_counts"][f"num_{on}_facts"] for on in reports]
    assert sum(parts) == counts["num_held_out_facts"]
    for name in ("num_training_edges", "final_loss"):  # the same model
        assert reports["validation"][name] == reports["test"][name]


def test_an_earlier_report_is_not_replaced_silently(edges: Path, tmp_path: Path) -> None:
    options = {"rankers": ["popularity"], "relation_share": 0.0}
    (tmp_path / "report.json").write_text("of an earlier run")
    with pytest.raises(InputError, match=r"report\.json exists already.*--overwrite"):
        evaluate(edges, tmp_path, **options)
    assert (tmp_path / "report.json").read_text() == "of an earlier run"
    report = evaluate(edges, tmp_path, overwrite=True, **options)
    assert json.loads((tmp_path / "report.json").read_text())["rankers"] == report["rankers"]


def test_defaults_are_those_of_embed() -> None:
    for model, generate in (
        ("graphsage", generate_gnn_embeddings), ("hgt", generate_hgt_embeddings),
    ):  # fmt: skip
        settings = settings_of(model, {"num_epochs": 7, "hidden_dim": None})
        parameters = inspect.signature(generate).parameters
        for name, value in asdict(settings).items():
            assert value == (7 if name == "num_epochs" else parameters[name].default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gcn"}, r"model \(got 'gcn'\) must be one of graphsage, hgt"),
        ({"split": "drug"}, r"split \(got 'drug'\) must be one of pair, disease, area"),
        ({"num_diseases": 5}, r"num_diseases \(got 5\) does not apply to split 'pair'"),
        ({"num_heads": 4}, r"num_heads \(got 4\) does not apply to model 'graphsage'"),
        ({"share": 1.5}, r"share \(got 1.5\) must be .* above 0 and at most 1"),
        ({"share": "half"}, r"share \(got 'half'\)"),
        ({"split": "disease", "min_drugs": 0}, r"min_drugs \(got 0\)"),
        (
            {"split": "disease", "num_diseases": 50},
            r"num_diseases \(got 50\) must be at most .* --num-diseases",
        ),
        ({"split": "disease", "num_diseases": 1.5}, r"num_diseases \(got 1.5\)"),
        ({"split": "area", "num_areas": 50}, r"num_areas \(got 50\)"),
        ({"relation_share": 2}, r"relation_share \(got 2\) must be .* at least 0 and at most 1"),
        ({"rankers": ["gnn", "rankr"]}, r"rankers \(got 'rankr'\).*did you mean 'ranker'"),
        ({"rankers": "gnn"}, r"rankers \(got 'gnn'\) must be a list"),
        ({"on": "train"}, r"on \(got 'train'\) must be 'test' or 'validation'"),
        ({"on": "validation"}, r"on \(got 'validation'\) needs validation_share"),
        ({"on": "validation", "validation_share": 0.001}, r"validation_share .*leaves no pairs"),
        ({"validation_share": 2}, r"validation_share \(got 2\)"),
        ({"folds": 1}, r"folds \(got 1\)"),
        ({"folds": 2, "share": 0.2}, r"share \(got 0.2\) must be left out with folds"),
        (
            {"folds": 2, "validation_share": 0.5},
            r"validation_share \(got 0.5\) must be left out with folds",
        ),
        ({"split": "area", "folds": 50}, r"folds \(got 50\) must be at most \d+, .* of areas"),
        ({"num_epochs": 0}, r"num_epochs \(got 0\)"),
        ({"learning_rate": 1e30}, r"learning_rate \(got 1e\+30\)"),
        ({"seed": -1}, r"seed \(got -1\)"),
        ({"device": "tpu"}, r"device \(got 'tpu'\)"),
        ({"memory_budget": "1MiB"}, r"memory_budget .*too small"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    edges: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    output = tmp_path / "new" / "out"
    with pytest.raises(InputError, match=message):
        evaluate(edges, output, **options)
    assert not output.parent.exists()


def test_what_leaves_nothing_to_learn_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_with = settings_of("graphsage", SMALL)
    monkeypatch.setattr(module, "settings_of", lambda *_: trained_with)
    facts = planted_facts(2, num_drugs=20, num_diseases=12, num_genes=3)
    renamed = [(x, relation.replace("indication", "cures"), y) for x, relation, y in facts]
    # One area around any disease has all diseases.
    facts += [(node("disease", 0), "disease_disease", node("disease", i)) for i in range(1, 12)]
    for some, message in (
        (facts, "split holds out every pair"),
        (renamed, "relation indication or palliation; relations between the two: cures"),
    ):
        edges, output = tmp_path / "kg.csv", tmp_path / "out"
        to_rows(some).write_csv(edges)
        settings = EvaluationSettings("area", num_areas=1, min_drugs=1)
        with pytest.raises(InputError, match=message):
            evaluate_model(edges, output, cache=False, model="graphsage", settings=settings)
        assert not output.exists()


def test_a_mistake_ends_the_command_with_2(edges: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    flags = ["--edges", edges, "--output", output, "--model", "hgt", "--split", "pair"]
    result = CliRunner().invoke(make_app(), ["evaluate", *map(str, flags), "--share", "2"])
    assert result.exit_code == 2
    assert "error: share (got 2.0)" in result.stderr
    assert not output.exists()


def test_scores_that_are_no_numbers_and_leaks_stop_the_run(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        evaluate(edges, tmp_path / "out")

    def nothing(diseases: IntArray) -> Scores:
        return np.full((len(diseases), 60), np.nan)

    monkeypatch.setattr(
        held_out_ranking, "drug_rankers", lambda *args, **options: [("none", nothing)]
    )
    with pytest.raises(InputError, match=r"scores \(got nan at row 0"):
        run()
    monkeypatch.setattr(held_out, "leak_count", lambda *arguments: 1)
    with pytest.raises(RuntimeError, match="2 edges of the training graph join held-out nodes"):
        run()
    assert not (tmp_path / "out").exists()


def test_the_command_shows_a_table(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show_evaluation(report)
    shown = capsys.readouterr().out
    assert "each ranked among 60 drugs; 0 leaks" in shown
    assert "contraindicated@50" in shown
    assert "Difference to the walk on the same pairs" in shown
    assert "the number of drugs of the disease in the training graph" in shown
    for name, figures in report["rankers"].items():
        lines = [line for line in shown.splitlines() if line.startswith(f" {name}  ")]
        assert any(f"{figures['mrr']:.3f}" in line for line in lines)
    assert "disease - indication - drug" in shown


def test_areas_without_negatives_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every drug treats every disease, so each pair is ranked without rivals."""
    facts = [
        (node("drug", i), "indication", node("disease", j)) for i in range(3) for j in range(3)
    ]
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    report = evaluate(tmp_path / "kg.csv", tmp_path / "out", rankers=["popularity"], cache=False)
    assert report["rankers"]["popularity"]["auroc"] is None
    show_evaluation(report)
    assert "popularity" in capsys.readouterr().out
