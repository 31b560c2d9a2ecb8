"""The file of a fitted drug ranker."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...models.embeddings_file import RUN
from ...system.files import Array, DamagedFileError, load_arrays, save_checksummed
from ..calibration import Calibration, ImputedScore
from ..drug_ranker import Blend, DrugRanker, Vectors
from ..path_scores import PathRanker, mlp_shapes
from .check_ranker import check_ranker, check_sizes

# Increase it whenever this package would read an existing file differently.
RANKER_VERSION = 7  #: format version
_SCALES = ("base_scale", "co_indicated_scale")


def save_ranker(path: Path, ranker: DrugRanker, graph_sha256: str, run: str | None = None) -> None:
    """Write a ranker to a checksummed safetensors file.

    Args:
        path: file to write; an existing file is overwritten.
        ranker: a fitted ranker.
        graph_sha256: checksum of the graph that the ranker was fitted on.
        run: id of the run of the model.
    """
    arrays: dict[str, Array] = {}
    for n, mlp in enumerate(ranker.paths.mlps):
        arrays |= {f"mlp.{n}.{name}": array for name, array in mlp.items()}
    for name in _SCALES:
        arrays[name] = getattr(ranker.paths, name)
    for n, diseases in enumerate(ranker.paths.left_out):
        arrays[f"left_out.{n}"] = diseases.astype(np.int64)
    if ranker.vectors is not None:
        arrays["vectors.drugs"] = ranker.vectors.drugs
        arrays["vectors.diseases"] = ranker.vectors.diseases
    record = {
        "graph_sha256": graph_sha256,
        RUN: run,
        "num_mlps": len(ranker.paths.mlps),
        "hidden": len(ranker.paths.mlps[0]["first.bias"]),
        "with_known": asdict(ranker.with_known),
        "without_known": asdict(ranker.without_known),
        "feature_names": ranker.feature_names,
        "popularity_names": ranker.popularity_names,
        "seconds": ranker.paths.seconds,
    }
    save_checksummed(path, RANKER_VERSION, record, arrays)


def load_ranker(path: Path) -> tuple[DrugRanker, str, str | None]:
    """Read a file that `save_ranker` wrote.

    Returns:
        The ranker, the checksum of the graph that the ranker was fitted on, and the id of the run.

    Raises:
        DamagedFileError: the file has changed since it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: the file cannot be read.
    """
    record, arrays = load_arrays(path, RANKER_VERSION)
    check_sizes(record, arrays)
    try:
        ranker = _ranker(record, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise DamagedFileError(f"it is not a ranker: {reason}") from error
    check_ranker(ranker)
    return ranker, record["graph_sha256"], record.get(RUN)


def _ranker(record: dict[str, Any], arrays: dict[str, Array]) -> DrugRanker:
    names = mlp_shapes(0, 0, 0)
    numbers = range(record["num_mlps"])
    mlps = [{name: arrays[f"mlp.{n}.{name}"] for name in names} for n in numbers]
    base_scale, co_indicated_scale = (arrays[name] for name in _SCALES)
    left_out = tuple(arrays[f"left_out.{n}"] for n in numbers)
    vectors = None
    if "vectors.drugs" in arrays:
        vectors = Vectors(*(arrays[f"vectors.{name}"] for name in ("drugs", "diseases")))
    return DrugRanker(
        PathRanker(tuple(mlps), base_scale, co_indicated_scale, record["seconds"], left_out),
        vectors,
        _blend(record["with_known"]),
        _blend(record["without_known"]),
        tuple(record["feature_names"]),
        tuple(record["popularity_names"]),
    )


def _blend(record: dict[str, Any]) -> Blend:
    imputed = None if record["imputed"] is None else ImputedScore(**record["imputed"])
    curves = [record["calibration"], record["without_popularity"]]
    return Blend(record["weight"], imputed, *(_calibration(curve) for curve in curves))


def _calibration(record: dict[str, Any]) -> Calibration:
    return Calibration(tuple(record["scores"]), tuple(record["log_odds"]), record["recorded_share"])
