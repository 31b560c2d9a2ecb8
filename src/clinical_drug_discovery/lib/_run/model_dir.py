"""What a model directory holds for questions: the graph and, fitted on it, a ranker of drugs.

A `DrugRanker` as one file in safetensors, with a checksum and the graph that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from clinical_drug_discovery.graph.cache import load_graph, save_graph
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ranking.bilinear_score import EmbeddingScore, KnownPairs, LinkScore
from clinical_drug_discovery.ranking.calibration import Calibration, Expectation
from clinical_drug_discovery.ranking.drug_ranker import Blend, DrugRanker
from clinical_drug_discovery.ranking.path_ranker import Network, PathRanker
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    load_sealed,
    save_record,
    save_sealed,
    sealed_checksum,
)

MODEL_FILES = (
    "weights.safetensors", "nodes.parquet", "history.csv", "config.json", "stats.json",
    "graph.safetensors", "ranker.safetensors",
)  # fmt: skip


GRAPH_FILE, RANKER_FILE = "graph.safetensors", "ranker.safetensors"
_Content = TypeVar("_Content")


def model_dir_of(output: str | Path) -> Path:
    """Where the model of a file of embeddings stands, if nothing else was said."""
    path = Path(output)
    return path.with_name(f"{path.stem}_model")


def write_ranker(model_dir: Path, graph: KnowledgeGraph, ranker: DrugRanker | None) -> None:
    """Write the graph and the ranker to a model directory; a ranker of an earlier run goes."""
    (model_dir / RANKER_FILE).unlink(missing_ok=True)
    with atomic_path(model_dir / GRAPH_FILE) as path:
        save_graph(path, graph, {})
        sha256 = sealed_checksum(path)
    if ranker is not None:
        with atomic_path(model_dir / RANKER_FILE) as path:
            save_ranker(path, ranker, sha256)


def read_model_graph(model_dir: Path, sha256: str | None = None) -> KnowledgeGraph:
    """Read the graph of a model.

    Args:
        model_dir: where it stands.
        sha256: the checksum that it must have.

    Raises:
        InputError: it is missing, damaged, or another one.
    """
    graph, _ = _read(model_dir, GRAPH_FILE, load_graph)
    if sha256 is not None and sealed_checksum(model_dir / GRAPH_FILE) != sha256:
        raise InputError(
            f"model_dir (got {model_dir}) holds a ranker of another graph than "
            f"{GRAPH_FILE}; run cdd embed anew"
        )
    return graph


def read_model_ranker(model_dir: Path) -> tuple[DrugRanker, str]:
    """Read the ranker of a model, and the checksum of the graph that it belongs to.

    Raises:
        InputError: it is missing or damaged.
    """
    return _read(model_dir, RANKER_FILE, load_ranker)


def _read(model_dir: Path, name: str, load: Callable[[Path], _Content]) -> _Content:
    if not model_dir.is_dir():
        raise InputError(f"model_dir (got {model_dir}) is no directory")
    path = model_dir / name
    try:
        return load(path)
    except FileNotFoundError:
        why = "has none"
        if name == RANKER_FILE:
            why = "has none: cdd embed fits one, unless --no-ranker or its warnings say otherwise"
        raise InputError(f"model_dir (got {model_dir}) must hold {name}, it {why}") from None
    except OtherVersionError as error:
        raise InputError(f"{path} is of {error}; run cdd embed anew") from None
    except DamagedFileError as error:
        raise InputError(f"{path} is damaged: {error}; run cdd embed anew") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


#: To be raised whenever the same file would rank otherwise.
MODEL_VERSION = 1  #: of config.json
RANKER_VERSION = 3  #: of ranker.safetensors
_SCALES = ("base_scale", "fellow_scale")
_KNOWN = ("disease", "drug", "logits")


def save_ranker(path: Path, ranker: DrugRanker, graph_sha256: str) -> None:
    """Write a ranker; `load_ranker` gives it back.

    Args:
        path: overwritten; see `checkpoint.atomic_path`.
        ranker: fitted.
        graph_sha256: of the graph that it was fitted on; see `sealed_file.sealed_checksum`.
    """
    tensors: dict[str, Tensor] = {}
    for n, network in enumerate(ranker.paths.networks):
        for name, tensor in network.state_dict().items():
            tensors[f"network.{n}.{name}"] = tensor.clone()  # some are shared
    for name in _SCALES:
        tensors[name] = torch.from_numpy(getattr(ranker.paths, name))
    for n, diseases in enumerate(ranker.paths.left_out):
        tensors[f"left_out.{n}"] = torch.from_numpy(diseases).long()
    if ranker.embedding is not None:
        known = ranker.embedding.known
        tensors["embedding.drugs"] = ranker.embedding.drugs.contiguous()
        tensors["embedding.diseases"] = ranker.embedding.diseases.contiguous()
        tensors |= {f"known.{name}": getattr(known, name).contiguous() for name in _KNOWN}
    if ranker.network is not None:  # as half as many bytes: the ranks of a few drugs may change
        tensors["link.drugs"] = ranker.network.drugs.half()
        tensors["link.diseases"] = ranker.network.diseases.half()
    record = {
        "graph_sha256": graph_sha256,
        "num_networks": len(ranker.paths.networks),
        "hidden": ranker.paths.networks[0].first.out_features,
        "with_known": asdict(ranker.with_known),
        "without_known": asdict(ranker.without_known),
        "path_names": ranker.path_names,
        "seconds": ranker.paths.seconds,
    }
    save_sealed(path, RANKER_VERSION, record, tensors)


def load_ranker(path: Path) -> tuple[DrugRanker, str]:
    """Read what `save_ranker` wrote.

    Returns:
        The ranker, and the checksum of the graph that it belongs to.

    Raises:
        DamagedFileError: the file is not as it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: it cannot be read at all.
    """
    record, tensors = load_sealed(path, RANKER_VERSION)
    return _ranker(record, tensors), record["graph_sha256"]


def _ranker(record: dict[str, Any], tensors: dict[str, Tensor]) -> DrugRanker:
    numbers = range(record["num_networks"])
    networks = []
    for n in numbers:
        start = f"network.{n}."
        state = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
        network = Network(state["mean"], state["std"], record["hidden"])
        network.load_state_dict(state)
        networks.append(network)
    base_scale, fellow_scale = (tensors[name].numpy() for name in _SCALES)
    left_out = tuple(tensors[f"left_out.{n}"].numpy() for n in numbers)
    embedding = None
    if "embedding.drugs" in tensors:
        known = KnownPairs(*(tensors[f"known.{name}"] for name in _KNOWN))
        embedding = EmbeddingScore(tensors["embedding.drugs"], tensors["embedding.diseases"], known)
    links = None
    if "link.drugs" in tensors:
        links = LinkScore(tensors["link.drugs"].float(), tensors["link.diseases"].float())
    return DrugRanker(
        PathRanker(tuple(networks), base_scale, fellow_scale, record["seconds"], left_out),
        embedding,
        links,
        _blend(record["with_known"]),
        _blend(record["without_known"]),
        tuple(record["path_names"]),
    )


def _blend(record: dict[str, Any]) -> Blend:
    expected = record["expected"] and Expectation(**record["expected"])
    return Blend(record["weight"], expected, Calibration(**record["calibration"]))


def check_targets(sources: Mapping[str, Path], output: Sequence[Path], model_dir: Path) -> None:
    """Refuse files that would take each other's place, or that of a file that is read.

    Args:
        sources: files that are read, or kept for reading, by what to call them.
        output: the files of embeddings that will be written.
        model_dir: where the model's files will be written.
    """
    taken = {path.resolve(): name for name, path in sources.items()}
    for path in (*output, model_dir, *(model_dir / name for name in MODEL_FILES)):
        if path.resolve() in taken:
            raise InputError(f"{path} would be written, but it is {taken[path.resolve()]} as well")
        taken[path.resolve()] = "another output"
        if path != model_dir and path.is_dir():
            raise InputError(f"{path} would be written, but it is a directory")


def save_model(
    model_dir: Path,
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    nodes: pl.DataFrame,
    history: Sequence[Mapping[str, float | None]],
) -> None:
    """Write all that a trained model is: no pickles, every file readable by common tools.

    Args:
        model_dir: a directory, made if missing; files of other names in it are left alone.
        weights: to weights.safetensors.
        config: to config.json: the model's kind, its sizes, the names of types and relations.
        nodes: to nodes.parquet: row i describes row i of the model's node embedding.
        history: to history.csv, one row per epoch.
    """
    with atomic_path(model_dir / "weights.safetensors") as path:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    with atomic_path(model_dir / "nodes.parquet") as path:
        nodes.write_parquet(path)
    with atomic_path(model_dir / "history.csv") as path:
        pl.DataFrame(list(history), infer_schema_length=None).write_csv(path)
    save_record(model_dir / "config.json", {"format_version": MODEL_VERSION, **config})
