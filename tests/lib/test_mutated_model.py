"""A model directory or a checkpoint of a stranger, with right checksums, is used or refused.

The number of mutations is small here. The slow form has 500, in processes of their own, because a
wrong index in compiled code would end the process. `make fuzz` draws new ones.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import planted_facts, to_rows
from mutations import mutate, mutate_checkpoint, rewrite, stopped_run

from clinical_drug_discovery.lib._run.model_dir import RANKER_FILE
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.ranking.stored.ranker_file import RANKER_VERSION
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import load_checksummed

SMALL: dict[str, Any] = {"embedding_dim": 4, "hidden_dim": 4, "num_layers": 1, "num_epochs": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    facts = planted_facts(num_drugs=20, num_diseases=12, num_genes=4)
    to_rows(facts).write_csv(directory / "kg.csv")
    generate_gnn_embeddings(directory / "kg.csv", directory / "e.parquet", cache=False, **SMALL)
    return directory / "e_model"


def outcome(model_dir: Path) -> str:
    """Rank with a model directory; return "ranked" or the error of the user."""
    try:
        result = rank_drugs(model_dir, disease="disease 3", top=100, include_known=True)
    except InputError as error:
        return str(error)
    rows = result["drugs"]
    json.dumps(result, allow_nan=False)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(s) for s in scores)
    assert all(0 <= row["probability"] <= 1 for row in rows)
    return "ranked"


def try_mutations(model: Path, directory: Path, seeds: range) -> list[str]:
    """Return a line for each mutation."""
    found = []
    for seed in seeds:
        target = directory / "mutated"
        what = mutate(model, target, seed)
        try:
            found.append(f"{what} -> {outcome(target)}")
        except Exception as error:
            raise AssertionError(f"seed {seed}: {what}") from error
    return found


def test_a_mutated_model_is_ranked_or_refused(model: Path, tmp_path: Path) -> None:
    assert outcome(model) == "ranked"
    found = try_mutations(model, tmp_path, range(60))
    refused = [line for line in found if not line.endswith("ranked")]
    assert len(refused) > 30
    assert len(refused) < 60  # otherwise the mutations are too coarse to test anything
    assert max(map(len, refused)) < 2000
    assert all("damaged" in line or "must" in line or "again" in line for line in refused)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_of_a_ranker_that_are_not_finite_are_refused(
    model: Path, tmp_path: Path, value: float
) -> None:
    """Otherwise NaN would be printed as a ranking."""
    shutil.copytree(model, tmp_path / "m")
    path = tmp_path / "m" / RANKER_FILE
    record, tensors = load_checksummed(path, RANKER_VERSION)
    floats = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    assert any("mlp" in name for name in floats)
    assert any("vectors" in name for name in floats)
    for name in floats:
        changed = {key: tensor.clone() for key, tensor in tensors.items()}
        changed[name].view(-1)[-1] = value
        rewrite(path, RANKER_VERSION, record, changed)
        assert f"{path} is damaged: " in outcome(path.parent)


@pytest.mark.slow
def test_five_hundred_mutations_end_no_process(model: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from test_mutated_model import try_mutations\n"
        "model, directory, first, last = sys.argv[1:]\n"
        "seeds = range(int(first), int(last))\n"
        "print(len(try_mutations(Path(model), Path(directory), seeds)))\n"
    )
    for first in (1000, 1250):
        (tmp_path / str(first)).mkdir()
        arguments = [str(model), str(tmp_path / str(first)), str(first), str(first + 250)]
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
        process = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={"PYTHONPATH": ":".join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr[-2000:]
        assert process.stdout.strip() == "250"


@pytest.mark.parametrize("number", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_mutated_checkpoint_is_continued_or_refused(
    number: int, model: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "num_epochs": 3, "ranker": False, "cache": False, "device": "cpu"}
    shutil.copy(model.parent / "kg.csv", tmp_path)
    checkpoint = stopped_run(tmp_path, generate_gnn_embeddings, settings)
    kept, refused, message = checkpoint.read_bytes(), 0, ""
    for seed in range(number):
        what = mutate_checkpoint(checkpoint, seed)
        changed = checkpoint.read_bytes()
        try:
            generate_gnn_embeddings(
                tmp_path / "kg.csv", tmp_path / "e.npy", resume=True, **settings
            )
        except InputError as error:
            refused += 1
            message = str(error)
            assert checkpoint.read_bytes() == changed
            assert not (tmp_path / "e.npy").exists()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {what}") from error
        else:
            assert np.isfinite(np.load(tmp_path / "e.npy")).all()
            shutil.rmtree(tmp_path / "e_model")
            (tmp_path / "e.npy").unlink()
            (tmp_path / "e_index.csv").unlink()
            checkpoint.parent.mkdir()
        assert len(message) < 2000
        checkpoint.unlink(missing_ok=True)
        checkpoint.write_bytes(kept)
    assert number / 2 < refused < number
