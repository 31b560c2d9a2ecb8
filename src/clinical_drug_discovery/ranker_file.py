"""A `DrugRanker` as one file in safetensors, with a checksum and the graph that it belongs to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clinical_drug_discovery.calibrate import Calibration
from clinical_drug_discovery.drug_ranker import DrugRanker, EmbeddingScore
from clinical_drug_discovery.graph_file import DamagedGraphError, OtherVersionError, checksum
from clinical_drug_discovery.network import Network
from clinical_drug_discovery.ranker import PathRanker

#: To be raised whenever the same file would rank otherwise.
FORMAT_VERSION = 1
_SCALES = ("base_scale", "fellow_scale")


def save_ranker(path: Path, ranker: DrugRanker, graph_sha256: str) -> None:
    """Write a ranker; `load_ranker` gives it back.

    Args:
        path: overwritten; see `checkpoint.atomic_path`.
        ranker: without trees.
        graph_sha256: checksum of the graph that it was fitted on; see `graph_file.graph_checksum`.
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
        tensors["embedding.drugs"] = ranker.embedding.drugs.contiguous()
        tensors["embedding.diseases"] = ranker.embedding.diseases.contiguous()
    record = {
        "graph_sha256": graph_sha256,
        "num_networks": len(ranker.paths.networks),
        "hidden": ranker.paths.networks[0].first.out_features,
        "embedding_weight": ranker.embedding.weight if ranker.embedding else 0.0,
        "with_known": asdict(ranker.with_known),
        "without_known": asdict(ranker.without_known),
        "path_names": ranker.path_names,
        "seconds": ranker.paths.seconds,
    }
    text = json.dumps(record)
    metadata = {
        "version": str(FORMAT_VERSION), "record": text, "sha256": checksum(text, tensors)
    }  # fmt: skip
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_ranker(path: Path) -> tuple[DrugRanker, str]:
    """Read what `save_ranker` wrote.

    Returns:
        The ranker, and the checksum of the graph that it belongs to.

    Raises:
        DamagedGraphError: the file is not as it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: it cannot be read at all.
    """
    with path.open("rb"):  # a missing or forbidden file is no damaged one
        pass
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata["version"] != str(FORMAT_VERSION):
                raise OtherVersionError(f"version {metadata['version']}, not {FORMAT_VERSION}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file of safetensors is no dict
        if checksum(metadata["record"], tensors) != metadata["sha256"]:
            raise DamagedGraphError("its checksum is wrong")
    except KeyError as error:
        raise DamagedGraphError(f"it has no {error}") from error
    except (SafetensorError, TypeError, UnicodeError) as error:
        raise DamagedGraphError(str(error).split("\n")[0]) from error
    record = json.loads(metadata["record"])
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
        embedding = EmbeddingScore(
            tensors["embedding.drugs"], tensors["embedding.diseases"], record["embedding_weight"]
        )
    return DrugRanker(
        PathRanker(tuple(networks), base_scale, fellow_scale, record["seconds"], left_out),
        embedding,
        Calibration(**record["with_known"]),
        Calibration(**record["without_known"]),
        tuple(record["path_names"]),
    )
