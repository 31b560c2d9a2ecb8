"""The effect of each kind of evidence on a drug's score by the path ranker."""

from __future__ import annotations

import numpy as np

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray
from ...system.machine import one_thread
from ..drug_similarity import co_indicated_features
from ..listwise_examples import squash
from ..metapath_features import LEAST_SHARE, MetapathFeatures
from ..path_scores import PathRanker
from .explanations import KINDS, SIDE_EFFECTS

_MECHANISM, _SIMILAR, _RELATED = KINDS


def kind_of(feature: str) -> str | None:
    """Return the kind of evidence that a feature counts; None if it is not evidence.

    Args:
        feature: name, as in `MetapathFeatures.feature_names`.

    Example:
        >>> kind_of("drug - drug_protein - gene/protein - disease_protein - disease")
        'mechanism'
    """
    name = feature.removesuffix(", nearest")
    _, *steps = name.split(" - ")
    # Names that end with "how many" or "treats" are of features of the disease alone.
    if name.endswith((", how many", " - treats")) or steps[0] in SIDE_EFFECTS:
        return None
    if name.endswith(" - treats - disease"):
        return _SIMILAR
    if steps[0] == "treats":
        return _RELATED
    if " - treats - " in name:  # a similar drug treats a related disease
        return _SIMILAR
    # Other relations between drugs and diseases, such as contraindications, are not evidence.
    return None if len(steps) > 1 and steps[1] == "disease" else _MECHANISM


@one_thread(True)
def kind_effects(
    paths: PathRanker, features: MetapathFeatures, disease: int, drugs: IntArray
) -> list[dict[str, float]]:
    """Return for each drug how much its score falls without all paths of a kind.

    The features of the kind are set to 0, and the score is computed again. Random walks from the
    diseases that a drug treats count as related diseases. The effect is a mean over the MLPs,
    before the softmax. It is negative if the kind lowers the score. Single metapaths are not
    measured: many tell the same, so the MLPs share the weight among them in any way.

    Args:
        paths: the fitted ranker.
        features: of the graph.
        disease: numbered within its type.
        drugs: shape (m,), numbered within their type.

    Returns:
        One dict per drug: kind to effect. Kinds without paths are left out.
    """
    base = features.base(np.array([disease]))[0]
    anchor = features.walk_anchor(base)
    without_walks = np.float32(np.log(LEAST_SHARE) if anchor.any() else 0)
    also = np.zeros((len(paths.co_indicated_scale), features.num_drugs), np.float32)
    if features.num_known(disease):
        also = co_indicated_features(features.co_indicated_similarity(disease)[1])
    squashed = np.concatenate(
        [squash(base[:, drugs], paths.base_scale), squash(also[:, drugs], paths.co_indicated_scale)]
    ).T
    kinds = np.array([kind_of(name) or "" for name in features.feature_names])
    found = []
    for drug, values in zip(drugs.tolist(), squashed, strict=True):
        used = [kind for kind in KINDS if values[kinds == kind].any()]
        rows = np.repeat(values[None], len(used) + 1, axis=0)
        anchors = np.full(len(rows), anchor[drug], np.float32)
        for row, kind in enumerate(used, start=1):
            rows[row, kinds == kind] = 0
            if kind == _RELATED:
                anchors[row] = without_walks
        found.append(dict(zip(used, _effects(paths, rows, anchors), strict=True)))
    return found


def _effects(paths: PathRanker, rows: Floats, anchors: Floats) -> list[float]:
    """Return score(row 0) - score(row i) for all other rows i, as a mean over the MLPs."""
    every = np.arange(rows.shape[1])
    scores = paths.stacked.scores(np.ascontiguousarray(rows.T), every, paths.stacked.first_bias)
    scores += np.stack([mlp["anchor"] * anchors for mlp in paths.mlps])
    mean = scores.mean(axis=0)  # without the popularity, which is the same in all rows
    return [float(value) for value in mean[0] - mean[1:]]
