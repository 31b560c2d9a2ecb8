"""An evaluation in folds: written fold by fold, continued, and refused if anything differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from graphs import planted_facts, to_rows

from clinical_drug_discovery.evaluation.metrics import pair_metrics
from clinical_drug_discovery.lib._run import held_out_ranking
from clinical_drug_discovery.lib.evaluate import EvaluationSettings, evaluate_model
from clinical_drug_discovery.show.terminal.evaluation import show_evaluation
from clinical_drug_discovery.system.errors import InputError

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folds") / "kg.csv"
    to_rows(planted_facts()).write_csv(path)
    return path


@pytest.fixture(scope="module")
def evaluate(edges: Path) -> Evaluate:
    def call(output: Path, num_epochs: int = 2, **options: Any) -> dict[str, Any]:
        settings = EvaluationSettings("disease", folds=3, min_drugs=1, relation_share=0.05)
        return evaluate_model(
            options.pop("edges", edges), output, model="graphsage", settings=settings,
            model_settings={
                "embedding_dim": 16, "hidden_dim": 16, "num_layers": 2, "num_epochs": num_epochs
            },
            rankers=["gnn", "neighbors", "walk"], cache=False, **options,
        )  # fmt: skip

    return call


def without_process(report: dict[str, Any]) -> dict[str, Any]:
    of_process = ("seconds", "peak_memory_gib", "date", "output_dir")
    return {name: value for name, value in report.items() if name not in of_process}


def test_a_stopped_evaluation_continues_to_the_same_report(
    evaluate: Evaluate, edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = evaluate(tmp_path / "whole")
    show_evaluation(whole)
    assert "(split disease, test, 3 folds)" in capsys.readouterr().out
    assert whole["num_leaks"] == 0
    ranks = pl.read_parquet(tmp_path / "whole" / "ranks.parquet")
    assert ranks["fold"].unique().sort().to_list() == [1, 2, 3]
    indications = pl.read_csv(edges).filter(relation="indication").select("x_index", "y_index")
    own = ranks.filter(ranker="walk").select("drug_index", "disease_index")
    assert sorted(own.rows()) == sorted(indications.rows())  # each pair once
    for name, figures in whole["rankers"].items():
        rows = ranks.filter(ranker=name)
        found = pair_metrics(rows["rank"].to_numpy(), rows["disease_index"].to_numpy())
        assert figures["mrr"] == pytest.approx(found["mrr"])
        assert figures["map"] == pytest.approx(found["map"])

    trained: list[int] = []
    original = held_out_ranking.train_and_rank

    def stop_at_third(*arguments: Any) -> Any:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(1)
        return original(*arguments)

    output = tmp_path / "stopped"
    monkeypatch.setattr(held_out_ranking, "train_and_rank", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(output)
    names = {path.name for path in output.iterdir()}
    assert names == {f"fold_{i}{end}" for i in (1, 2) for end in (".json", "_ranks.parquet")}
    trained.clear()
    report = evaluate(output)
    assert len(trained) == 1
    assert without_process(report) == without_process(whole)
    assert pl.read_parquet(output / "ranks.parquet").equals(ranks)
    with pytest.raises(InputError, match=r"report\.json exists already"):
        evaluate(output)


def test_other_settings_or_damaged_files_are_refused(
    evaluate: Evaluate, edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    evaluate(output)
    for name in ("report.json", "ranks.parquet", "fold_3.json"):
        (output / name).unlink()
    monkeypatch.setattr(held_out_ranking, "train_and_rank", pytest.fail)
    fewer = tmp_path / "fewer.csv"
    pl.read_csv(edges)[1:].write_csv(fewer)
    others: list[tuple[dict[str, Any], str]] = [
        ({"num_epochs": 3}, r"fold_\d.json was written with num_epochs 2, .* has 3: choose"),
        ({"seed": 1}, "written with seed 0"),
        ({"edges": fewer}, "written with graph"),
    ]
    for options, message in others:
        with pytest.raises(InputError, match=message):
            evaluate(output, **options)
    record = json.loads((output / "fold_1.json").read_text())
    record["settings"]["version"] = "0.0"
    (output / "fold_1.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"fold_1.json was written with version '0.0'"):
        evaluate(output)
    (output / "fold_1.json").write_text("{")
    with pytest.raises(InputError, match=r"fold_1.json is damaged.*--overwrite"):
        evaluate(output)
    (output / "fold_1.json").unlink()
    (output / "fold_2_ranks.parquet").unlink()
    with pytest.raises(InputError, match=r"fold_2_ranks.parquet is missing"):
        evaluate(output)
    monkeypatch.undo()
    report = evaluate(output, overwrite=True, num_epochs=1)
    assert report["parameters"]["num_epochs"] == 1
    assert (output / "fold_3.json").exists()
    for name in ("report.json", "ranks.parquet"):
        (output / name).unlink()
    pair = EvaluationSettings("pair")
    with pytest.raises(InputError, match=r"fold_\d.json exists already"):
        evaluate_model(edges, output, model="graphsage", settings=pair, cache=False)


def test_an_output_that_another_process_writes_to_is_refused(
    evaluate: Evaluate, edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys, time\n"
        "from clinical_drug_discovery.lib import evaluate as module\n"
        "module.read_edges = lambda *_: (print('reading', flush=True), time.sleep(600))\n"
        "settings = module.EvaluationSettings('disease', folds=3)\n"
        "edges, output = sys.argv[1:]\n"
        "module.evaluate_model(edges, output, model='graphsage', settings=settings)\n"
    )
    output = tmp_path / "new" / "results"
    command = [sys.executable, "-c", script, str(edges), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        message = rf"output_dir \(got {output}\) is in use by process {process.pid}, whose run "
        with pytest.raises(InputError, match=message):
            evaluate(output)
        with pytest.raises(InputError, match=message):
            evaluate(output, overwrite=True)
        process.kill()
    assert [path.name for path in output.iterdir()] == [".lock"]

    def fail(*_: object) -> None:
        assert (output / ".lock").exists()
        raise InputError("the lock of the killed process was taken over")

    monkeypatch.setattr("clinical_drug_discovery.lib.evaluate.read_edges", fail)
    with pytest.raises(InputError, match="was taken over"):
        evaluate(output)
    assert list(output.iterdir()) == []
