"""Features of a drug by the other drugs that are known to treat the asked disease."""

from __future__ import annotations

import numpy as np

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray


def fellows_of(rows: Floats) -> Floats:
    """Features by the asked disease's known drugs: the sum and the most of what they are alike.

    Args:
        rows: shape (kernels, k, drugs), from `paths.PathEvidence.fellow_rows`.

    Returns:
        Shape (2 kernels + 1, drugs); the last one is log(1 + number of known drugs).
    """
    return _sum_and_most(rows.sum(axis=1), rows.max(axis=1, initial=0), rows.shape[1])


def fellows_without(rows: Floats, goals: IntArray) -> Floats:
    """As `fellows_of`, for each of some known drugs without it, as a list needs whose goal it is.

    Args:
        rows: shape (kernels, k, drugs).
        goals: shape (G,), which of the k.

    Returns:
        Shape (G, 2 kernels + 1, drugs).
    """
    goal = np.moveaxis(rows[:, goals], 1, 0)
    most, at = rows.max(axis=1), np.expand_dims(rows.argmax(axis=1), 1)
    others = rows.copy()
    np.put_along_axis(others, at, 0, axis=1)
    left = np.where(at[:, 0] == goals[:, None, None], others.max(axis=1, initial=0), most)
    # Of what remains of a sum without its only part, rounding is all.
    total = np.where((left > 0), rows.sum(axis=1) - goal, 0)
    return _sum_and_most(total, left, rows.shape[1] - 1)


def _sum_and_most(total: Floats, most: Floats, count: int) -> Floats:
    *lists, num_kernels, num_drugs = total.shape
    out = np.zeros((*lists, 2 * num_kernels + 1, num_drugs), np.float32)
    out[..., 0:-1:2, :] = total
    out[..., 1:-1:2, :] = most
    out[..., -1, :] = np.log1p(count)
    return out
