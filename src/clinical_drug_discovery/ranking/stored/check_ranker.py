"""Check that the content of a file is a drug ranker, and that the ranker fits a graph.

A checksum finds damage, but anybody can compute it. So a file from a stranger may hold any numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ...system.errors import InputError
from ...system.files import Array, DamagedFileError
from ..drug_ranker import Blend, DrugRanker, Vectors
from ..metapath_features import MetapathFeatures
from ..path_scores import PathRanker, Weights, mlp_shapes

_MAX_MLPS = 1000


def check_sizes(record: Any, arrays: Mapping[str, Array]) -> None:
    """Check the names and the sizes of the MLPs, before they are made.

    Raises:
        DamagedFileError: the record is not that of a ranker, or disagrees with the arrays.
    """
    is_record = isinstance(record, dict) and isinstance(record.get("graph_sha256"), str)
    _require(is_record, "its record is not that of a ranker")
    number, hidden = record.get("num_mlps"), record.get("hidden")
    _require(type(number) is int and 1 <= number <= _MAX_MLPS, "num_mlps must be a whole number")
    lists = [record.get(f"{kind}_names") for kind in ("feature", "popularity")]
    for names in lists:
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        _require(is_list, "feature_names and popularity_names must be lists of texts")
    names, popular = lists
    _require(isinstance(record.get("seconds"), dict), "seconds must be a record")
    _require(type(hidden) is int and hidden > 1, "hidden must be a whole number above 1")
    for n in range(number):
        start = f"mlp.{n}."
        found = {name.removeprefix(start) for name in arrays if name.startswith(start)}
        shapes = mlp_shapes(len(names), len(popular), hidden)
        _require(found == shapes.keys(), f"mlp.{n} has other weights")
        for name, shape in shapes.items():
            fits = arrays[start + name].shape == shape
            _require(fits, f"{start}{name} must have the shape {list(shape)}")


def check_ranker(ranker: DrugRanker) -> None:
    """Check the numbers of a ranker: types, shapes, order and finiteness.

    Raises:
        DamagedFileError: a rule is broken; the message names the part.
    """
    _check_paths(ranker.paths, len(ranker.feature_names))
    if ranker.vectors is not None:
        _check_vectors(ranker.vectors)
    for name in ("with_known", "without_known"):
        _check_blend(name, getattr(ranker, name))


def _check_paths(paths: PathRanker, num_features: int) -> None:
    for n, mlp in enumerate(paths.mlps):
        _check_mlp(f"mlp.{n}", mlp)
    for name in ("base_scale", "co_indicated_scale"):
        scale = getattr(paths, name)
        _check_floats(name, scale, 1)
        _require((scale > 0).all(), f"{name} must be positive")
    total = len(paths.base_scale) + len(paths.co_indicated_scale)
    _require(total == num_features, "the scales must have a number for each feature")
    for n, diseases in enumerate(paths.left_out):
        fits = diseases.ndim == 1 and diseases.dtype == np.int64 and (diseases >= 0).all()
        _require(fits, f"left_out.{n} must be numbers of diseases")
    seconds = all(type(value) in (int, float) for value in paths.seconds.values())
    _require(seconds, "seconds must be numbers")


def _check_mlp(name: str, mlp: Weights) -> None:
    for part, array in mlp.items():
        _check_floats(f"{name}.{part}", array, array.ndim)
    _require((mlp["std"] > 0).all(), f"{name}.std must be positive")


def _check_vectors(vectors: Vectors) -> None:
    for part in ("drugs", "diseases"):
        rows = getattr(vectors, part)
        _require(rows.dtype == np.float16 and rows.ndim == 2, f"vectors.{part} must be float16")
        # A sum finds NaN and infinity in one pass, without a mask as large as the vectors.
        _require(np.isfinite(rows.sum(dtype=np.float32)), f"vectors.{part} holds NaN or infinity")
    same = vectors.drugs.shape[1] == vectors.diseases.shape[1]
    _require(same, "vectors: drugs and diseases must have one dimension")


def _check_blend(name: str, blend: Blend) -> None:
    curves = blend.calibration, blend.without_popularity
    numbers: list[object] = [blend.weight]
    for curve in curves:
        numbers += [*curve.scores, *curve.log_odds, curve.recorded_share]
    if blend.imputed is not None:
        numbers += [blend.imputed.slope, blend.imputed.intercept]
    for number in numbers:
        is_number = type(number) in (int, float) and math.isfinite(number)  # type: ignore[arg-type]  # checked before
        _require(is_number, f"{name} must hold finite numbers")
    for curve in curves:
        fits = 0 < len(curve.scores) == len(curve.log_odds) and 0 < curve.recorded_share <= 1
        for knots in (curve.scores, curve.log_odds):
            fits = fits and all(a <= b for a, b in pairwise(knots))
        _require(fits, f"the calibration of {name} must be a rising curve")


def _check_floats(name: str, array: Array, dim: int) -> None:
    _require(array.dtype == np.float32 and array.ndim == dim, f"{name} must be float32")
    _require(np.isfinite(array).all(), f"{name} holds NaN or infinity")


def _require(fits: bool | np.bool_, rule: str) -> None:
    if not fits:
        raise DamagedFileError(rule)


def check_fits(ranker: DrugRanker, features: MetapathFeatures) -> None:
    """Check that a ranker can rank the drugs of a graph.

    Raises:
        InputError: the ranker has other features, drugs or diseases than the graph.
    """
    if (features.feature_names, features.popularity_names) != (
        ranker.feature_names,
        ranker.popularity_names,
    ) or len(ranker.paths.base_scale) != features.num_base:
        raise InputError(
            "the drug ranker was fitted on other features than this version of the package "
            "computes; run cdd embed again"
        )
    sizes = features.num_drugs, features.num_diseases
    vectors = ranker.vectors
    if vectors is not None and (len(vectors.drugs), len(vectors.diseases)) != sizes:
        raise InputError(
            "the drug ranker was fitted on a graph with other drugs or diseases; run cdd embed "
            "again"
        )
    left_out = ranker.paths.left_out
    if any((diseases >= features.num_diseases).any() for diseases in left_out):
        raise InputError(
            "the drug ranker has left out diseases that the graph lacks; run cdd embed again"
        )
