"""The drug ranker of a saved model: fitted later, it is the one that the run would have fitted."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import planted_facts, to_rows

from clinical_drug_discovery.lib import embed_model
from clinical_drug_discovery.lib._run import finish, results
from clinical_drug_discovery.lib.fit_ranker import fit_model_ranker
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.ranking.drug_ranker import DrugRanker, fit_drug_ranker
from clinical_drug_discovery.ranking.stored.ranker_file import RANKER_VERSION
from clinical_drug_discovery.system import disk
from clinical_drug_discovery.system.errors import DoesNotFitError, InputError
from clinical_drug_discovery.system.files import load_checksummed
from clinical_drug_discovery.training.train import Trained, train

SMALL: dict[str, Any] = {
    "embedding_dim": 8, "hidden_dim": 8, "num_layers": 2, "num_epochs": 2, "cache": False,
    "device": "cpu", "seed": 3,
}  # fmt: skip
RANKER = "ranker.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    to_rows(planted_facts(num_drugs=30, num_diseases=20)).write_csv(home / "kg.csv")
    generate_gnn_embeddings(home / "kg.csv", home / "e.csv", **SMALL)
    return home


def test_a_later_fit_gives_the_ranker_of_the_run(home: Path, tmp_path: Path) -> None:
    place = shutil.copytree(home, tmp_path / "copy")
    before, tensors = load_checksummed(place / "e_model" / RANKER, RANKER_VERSION)
    (place / "e_model" / RANKER).unlink()
    stats = json.loads((place / "e_model" / "stats.json").read_text())
    for _ in range(2):  # later, and again
        found = fit_model_ranker(place / "e_model")
        after, again = load_checksummed(place / "e_model" / RANKER, RANKER_VERSION)
        assert {**after, "seconds": 0} == {**before, "seconds": 0}
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    changed = {"seconds_rank_fit": found["seconds_rank_fit"]}
    assert json.loads((place / "e_model" / "stats.json").read_text()) == {**stats, **changed}
    assert rank_drugs(place / "e_model", disease=found["example_node"], top=1)["drugs"]


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_enough(
    home: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(home, tmp_path / "copy") / "e_model"
    ranker = (model / RANKER).read_bytes()
    with pytest.raises(DoesNotFitError, match=r"memory_budget \(got '1MB'.*needs ") as refused:
        fit_model_ranker(model, memory_budget="1MB")
    assert (model / RANKER).read_bytes() == ranker
    enough = str(refused.value).rpartition("needs ")[2]
    fit_model_ranker(model, memory_budget=enough)


def test_the_trained_model_is_released_before_the_fit(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    left: list[object] = []

    def trained(*arguments: Any) -> Trained:
        found = train(*arguments)
        models.append(weakref.ref(found.model))
        return found

    def fitted(*arguments: Any, **more: Any) -> DrugRanker:
        left.extend(model() for model in models)
        return fit_drug_ranker(*arguments, **more)

    monkeypatch.setattr(embed_model, "train", trained)
    monkeypatch.setattr(results, "fit_drug_ranker", fitted)
    generate_gnn_embeddings(home / "kg.csv", tmp_path / "e.csv", **SMALL)
    assert left == [None]


def test_an_error_in_the_fit_keeps_the_model_and_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(results, "fit_drug_ranker", fail)
    text = r"the memory is full; the model .*e_model and its embeddings .*e\.csv are complete; cdd"
    with pytest.raises(InputError, match=text):
        generate_gnn_embeddings(home / "kg.csv", tmp_path / "e.csv", **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"e.csv", "e_model"}
    with pytest.raises(InputError, match=f"must hold {RANKER}; cdd fit-ranker --model-dir"):
        rank_drugs(tmp_path / "e_model", disease="disease 1")


def test_too_little_space_is_refused_before_the_training(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda directory: 100)
    monkeypatch.setattr(finish, "working", None)  # would fail if it were called
    with pytest.raises(InputError, match=r"needs about [\d,]+ bytes .*, but .* has 100 bytes free"):
        generate_gnn_embeddings(home / "kg.csv", tmp_path / "e.csv", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("y" * 250 + ".npy", {"model_dir": "m"}, r"output \(got .*\) is too long: a name may have"),
        ("y" * 227 + ".npy", {}, r"model_dir \(got .*\) is too long"),
        ("m.run/e.csv", {"model_dir": "m"}, r"output \(got m\.run/e\.csv\) must not lie in .*"),
        ("e.csv", {"model_dir": "."}, r"model_dir \(got \.\) must be a directory that can be ren"),
    ],
    ids=["too long", "model directory too long", "in the work directory", "here"],
)
def test_names_are_checked_before_the_training(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        generate_gnn_embeddings(home / "kg.csv", output, **SMALL, **options)
    assert list(tmp_path.iterdir()) == []
