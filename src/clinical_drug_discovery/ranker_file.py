"""A `DrugRanker` as one file in safetensors, with a checksum and the graph that it belongs to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinical_drug_discovery.ranking.bilinear_score import EmbeddingScore, KnownPairs, LinkScore
from clinical_drug_discovery.ranking.calibration import Calibration, Expectation
from clinical_drug_discovery.ranking.drug_ranker import Blend, DrugRanker
from clinical_drug_discovery.ranking.path_ranker import Network, PathRanker
from clinical_drug_discovery.system.files import load_sealed, save_sealed

#: To be raised whenever the same file would rank otherwise.
FORMAT_VERSION = 3
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
    save_sealed(path, FORMAT_VERSION, record, tensors)


def load_ranker(path: Path) -> tuple[DrugRanker, str]:
    """Read what `save_ranker` wrote.

    Returns:
        The ranker, and the checksum of the graph that it belongs to.

    Raises:
        DamagedFileError: the file is not as it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: it cannot be read at all.
    """
    record, tensors = load_sealed(path, FORMAT_VERSION)
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
