"""Rank all drugs for the diseases of a split, and say how well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray
from clinical_drug_discovery.metrics import Metrics, Scores, ranking_metrics
from clinical_drug_discovery.pairs import DRUG, pairs_of, span_of
from clinical_drug_discovery.split import Split


def rank_metrics_of(
    split: Split,
    scores_of: Callable[[IntArray], Scores],
    *,
    part: Literal["validation", "test", "held_out"] = "test",
    seed: int = 0,
) -> Metrics:
    """How well scores find the held-out drugs of diseases among all drugs.

    Args:
        split: gives the pairs to find and, with the pairs of both parts and of the training graph,
            what is known.
        scores_of: from n node numbers of diseases to their scores, shape (n, number of drugs).
        part: the pairs to find; `held_out` for both parts.
        seed: see `metrics.ranking_metrics`.

    Returns:
        See `metrics.ranking_metrics`.

    Raises:
        InputError: the part is empty, or scores have another shape or are not finite.
    """
    pairs = getattr(split, part)
    if not len(pairs):
        raise InputError(f"part (got {part!r}) must hold pairs; see validation_share")
    diseases = pairs.diseases
    known = known_drugs(split, diseases)
    row = np.searchsorted(diseases, pairs.disease)
    first, _ = span_of(split.graph, DRUG)
    return ranking_metrics(scores_of(diseases), known, row, pairs.drug - first, seed=seed)


def known_drugs(split: Split, diseases: IntArray) -> npt.NDArray[np.bool_]:
    """Which drugs help some diseases, by the training graph or by what is held out.

    Args:
        split: see `split.Split`.
        diseases: shape (n,), node numbers, ascending.

    Returns:
        shape (n, number of drugs).
    """
    first, stop = span_of(split.graph, DRUG)
    known = np.zeros((len(diseases), stop - first), bool)
    for pairs in (pairs_of(split.graph), split.held_out):
        asked = np.isin(pairs.disease, diseases)
        known[np.searchsorted(diseases, pairs.disease[asked]), pairs.drug[asked] - first] = True
    return known
