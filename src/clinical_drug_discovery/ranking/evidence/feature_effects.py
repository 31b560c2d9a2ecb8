"""How much each metapath adds to a drug's score by the path ranker."""

from __future__ import annotations

import numpy as np
import torch

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray
from ...system.machine import one_thread
from ..drug_similarity import co_indicated_features
from ..listwise_examples import squash
from ..metapath_features import LEAST_SHARE, MetapathFeatures
from ..path_ranker import PathRanker

NEAREST = ", nearest"  #: end of the name of a feature that is a maximum over paths


@one_thread(True)
@torch.no_grad()
def feature_effects(
    paths: PathRanker, features: MetapathFeatures, disease: int, drugs: IntArray
) -> list[dict[str, float]]:
    """Return for each drug how much its score falls if a metapath had no paths.

    A metapath has up to two features: the sum over its paths and the best one. Both are set to 0,
    and the score is computed again. Without one of several random walks, the visits of the others
    stay. The effect is a mean over the MLPs, before the softmax. It is negative if the metapath
    lowers the score.

    Args:
        paths: the fitted ranker.
        features: of the graph.
        disease: numbered within its type.
        drugs: shape (m,), numbered within their type.

    Returns:
        One dict per drug: name of the metapath, as in `MetapathFeatures.feature_names`, to effect.
        Metapaths without paths between the drug and the disease are left out.
    """
    base = features.base(np.array([disease]))[0]
    anchor = features.walk_anchor(base)
    also = np.zeros((len(paths.co_indicated_scale), features.num_drugs), np.float32)
    if features.num_known(disease):
        also = co_indicated_features(features.co_indicated_similarity(disease)[1])
    squashed = np.concatenate(
        [squash(base[:, drugs], paths.base_scale), squash(also[:, drugs], paths.co_indicated_scale)]
    ).T
    names = [name.removesuffix(NEAREST) for name in features.feature_names]
    groups = {name: [i for i, n in enumerate(names) if n == name] for name in dict.fromkeys(names)}
    without_walk = dict(
        zip(
            [names[i] for i in features.walk_rows.tolist()],
            _anchors_without(base[features.walk_rows]),
            strict=True,
        )
    )
    found = []
    for drug, values in zip(drugs.tolist(), squashed, strict=True):
        used = [name for name, at in groups.items() if values[at].any()]
        rows = np.repeat(values[None], len(used) + 1, axis=0)
        anchors = np.full(len(rows), anchor[drug], np.float32)
        for row, name in enumerate(used, start=1):
            rows[row, groups[name]] = 0
            if name in without_walk:
                anchors[row] = without_walk[name][drug]
        found.append(dict(zip(used, _effects(paths, rows, anchors), strict=True)))
    return found


def _anchors_without(visits: Floats) -> Floats:
    """Return `MetapathFeatures.walk_anchor` without each of W walks, shape (W, D).

    Args:
        visits: shape (W, D), of all walks.
    """
    total = visits.sum(axis=0)
    largest = total.max(initial=0)
    if largest <= 0:
        return np.zeros_like(visits)
    left = np.maximum(total - visits, 0)
    return np.asarray(np.log(left / largest + np.float32(LEAST_SHARE)), np.float32)


def _effects(paths: PathRanker, rows: Floats, anchors: Floats) -> list[float]:
    """Return score(row 0) - score(row i) for all other rows i, as a mean over the MLPs."""
    x, anchor = torch.from_numpy(rows)[None], torch.from_numpy(anchors)
    total = torch.zeros(len(rows))
    for mlp in paths.mlps:
        nothing = torch.zeros(len(rows), mlp.popular_first.in_features)
        total += mlp(x, anchor, nothing)[0] / len(paths.mlps)
    return (total[0] - total[1:]).tolist()
