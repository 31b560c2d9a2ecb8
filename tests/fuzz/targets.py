"""The work of a fuzzer with one input: a stranger's file is read, or refused with one line."""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # the imports below need it

from graphs import planted_facts, to_rows  # noqa: E402
from mutations import mutate, mutate_checkpoint, stopped_run  # noqa: E402

from clinical_drug_discovery.graph.read import read_graph  # noqa: E402
from clinical_drug_discovery.graph.source import ReadSettings  # noqa: E402
from clinical_drug_discovery.graph.stored.graph_file import load_graph  # noqa: E402
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings  # noqa: E402
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings  # noqa: E402
from clinical_drug_discovery.lib.rank import rank_drugs  # noqa: E402
from clinical_drug_discovery.lib.similar import nearest  # noqa: E402
from clinical_drug_discovery.models.embeddings_file import write_embeddings  # noqa: E402
from clinical_drug_discovery.models.read_embeddings import read_embeddings  # noqa: E402
from clinical_drug_discovery.ranking.stored.ranker_file import load_ranker  # noqa: E402
from clinical_drug_discovery.system.errors import InputError  # noqa: E402
from clinical_drug_discovery.system.files import DamagedFileError, OtherVersionError  # noqa: E402

_SMALL: dict[str, Any] = {"embedding_dim": 4, "hidden_dim": 4, "num_layers": 1, "num_epochs": 1}
_RUN = {**_SMALL, "num_epochs": 3, "ranker": False, "cache": False, "device": "cpu"}
#: The runs of the fuzzer of checkpoints: function and further settings.
_RUNS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    f"{name}-{training}": (generate, {"training": training, **more})
    for name, generate, more in (
        ("sage", generate_gnn_embeddings, {}),
        ("hgt", generate_hgt_embeddings, {"num_heads": 2}),
    )
    for training in ("full", "sampled")
}
_LIMIT = ReadSettings(max_unpacked_gib=2**-4)  # a fuzzer finds bombs in seconds


@cache
def work() -> Path:
    """Return a directory for the files of this process."""
    return Path(tempfile.mkdtemp(prefix="cdd-fuzz-"))


@cache
def model() -> Path:
    """Return a small model directory, with its embeddings and its graph beside it."""
    directory = work() / "model"
    directory.mkdir()
    facts = planted_facts(num_drugs=20, num_diseases=12, num_genes=4)
    to_rows(facts).write_csv(directory / "kg.csv")
    generate_gnn_embeddings(directory / "kg.csv", directory / "e.parquet", cache=False, **_SMALL)
    return directory / "e_model"


@cache
def stopped(name: str) -> Path:
    """Return the checkpoint of a run that was stopped."""
    directory = work() / name
    directory.mkdir()
    shutil.copy(model().parent / "kg.csv", directory)
    generate, settings = _RUNS[name]
    return stopped_run(directory, generate, {**_RUN, **settings})


def seeds(name: str) -> list[bytes]:
    """Return valid inputs of a fuzzer, from which mutations start."""
    place = work() / "seeds"
    place.mkdir(exist_ok=True)
    rows = to_rows(planted_facts(num_drugs=6, num_diseases=4, num_genes=2))
    nodes = rows.select(node_index=pl.int_range(pl.len()), node_id="x_id", node_type="x_type")
    nodes = nodes.with_columns(node_name=pl.col("node_id"), node_source=pl.lit("s")).head(5)
    values = torch.from_numpy(np.ones((5, 3), np.float32))
    paths = []
    if name == "graph":
        for suffix in ("csv", "parquet"):
            paths.append(place / f"kg.{suffix}")
            getattr(rows, f"write_{suffix}")(paths[-1])
        paths.append(place / "triples.tsv")
        rows.select("x_id", "relation", "y_id").write_csv(paths[-1], separator="\t")
        node = {"kind": "Gene", "identifier": 1, "name": "a"}
        edge = {"source_id": ["Gene", 1], "target_id": ["Gene", 2], "kind": "binds"}
        found = {"nodes": [node, {**node, "identifier": 2}], "edges": [edge]}
        paths.append(place / "hetionet.json")
        paths[-1].write_text(json.dumps({"metanode_kinds": ["Gene"], **found}))
    elif name == "embeddings":
        for suffix in (".csv", ".parquet", ".npy"):
            paths.append(place / f"e{suffix}")
            write_embeddings(paths[-1], nodes, values)
    elif name == "checkpoint":
        paths = [stopped(run) for run in _RUNS]
    else:
        paths = [model() / "graph.safetensors", model() / "ranker.safetensors"]
    return [path.read_bytes() for path in paths]


def try_graph(data: bytes) -> None:
    """Read bytes as an edges file of any format."""
    path = work() / "kg"
    path.write_bytes(data)
    try:
        graph = read_graph(path, _LIMIT)
    except InputError as error:
        _check_message(error)
        return
    assert graph.num_edges > 0


def try_embeddings(data: bytes) -> None:
    """Read bytes as embeddings in each format, and rank by cosine."""
    index = model().parent / "e_index.csv"
    if not index.exists():
        nodes, values = read_embeddings(model().parent / "e.parquet")
        write_embeddings(index.with_name("e.npy"), nodes, torch.from_numpy(values))
    for suffix in (".csv", ".parquet", ".npy"):
        path = work() / f"f{suffix}"
        path.write_bytes(data)
        shutil.copy(index, work() / "f_index.csv")
        try:
            nodes, values = read_embeddings(path)
        except InputError as error:
            _check_message(error)
            continue
        found = nearest(nodes, values, 0)
        assert all(math.isfinite(row["cosine"]) for row in found)


def try_model_bytes(data: bytes) -> None:
    """Read bytes as the two files of a model."""
    for load in (load_graph, load_ranker):
        path = work() / "file.safetensors"
        path.unlink(missing_ok=True)  # an earlier one is still mapped
        path.write_bytes(data)
        try:
            load(path)
        except (DamagedFileError, OtherVersionError) as error:
            _check_message(error)


def try_model(data: bytes) -> None:
    """Read bytes as files of a model; and change a model by them, with a right checksum."""
    try_model_bytes(data)
    target = work() / "mutated"
    shutil.rmtree(target, ignore_errors=True)
    mutate(model(), target, int.from_bytes(data[:8], "little"))
    try:
        result = rank_drugs(target, disease="disease 3", include_known=True)
    except InputError as error:
        _check_message(error)
        return
    json.dumps(result, allow_nan=False)


def try_checkpoint(data: bytes) -> None:
    """Continue a run from bytes as its checkpoint; and from a changed one of right checksum."""
    number = int.from_bytes(data[:8], "little")
    name = list(_RUNS)[number % len(_RUNS)]
    _continue(name, lambda path: path.write_bytes(data))
    _continue(name, lambda path: mutate_checkpoint(path, number))


def _continue(name: str, change: Callable[[Path], object]) -> None:
    """Change the checkpoint of a copy of a stopped run, and continue the run."""
    target = work() / "continued"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(stopped(name).parents[1], target)
    path = target / "e_model.run" / stopped(name).name
    change(path)
    changed = path.read_bytes()
    generate, settings = _RUNS[name]
    try:
        generate(target / "kg.csv", target / "e.npy", resume=True, **{**_RUN, **settings})
    except InputError as error:
        _check_message(error)
        assert path.read_bytes() == changed, "a refused checkpoint was replaced"
        assert not (target / "e.npy").exists()
        return
    assert np.isfinite(np.load(target / "e.npy")).all()


def _check_message(error: Exception) -> None:
    text = str(error)
    assert text, "an error without a message"
    assert len(text) < 10_000, text[:200]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "graph": try_graph,
    "embeddings": try_embeddings,
    "model": try_model,
    "checkpoint": try_checkpoint,
}
