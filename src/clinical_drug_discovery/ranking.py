"""Rank all drugs for the diseases of a split, and say how well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.knowledge_graph import IntArray, span_of
from clinical_drug_discovery.metrics import Metrics, Scores, ranking_metrics
from clinical_drug_discovery.pairs import DRUG, Pairs, pairs_of
from clinical_drug_discovery.split import Split
from clinical_drug_discovery.system.errors import InputError

Part = Literal["validation", "test", "held_out"]


@dataclass(frozen=True)
class Question:
    """Which drugs are to be found for which diseases, as the functions of `metrics` take it."""

    diseases: IntArray  #: shape (n,), node numbers, ascending
    known: npt.NDArray[np.bool_]  #: shape (n, number of drugs)
    row: IntArray  #: shape (K,), of each held-out pair the disease's place in `diseases`
    candidate: IntArray  #: shape (K,), of each held-out pair the drug, numbered within its type

    @staticmethod
    def of(split: Split, part: Part) -> Question:
        """What a part of a split asks.

        Raises:
            InputError: the part is empty.
        """
        pairs: Pairs = getattr(split, part)
        if not len(pairs):
            raise InputError(f"part (got {part!r}) must hold pairs; see validation_share")
        diseases = pairs.diseases
        row = np.searchsorted(diseases, pairs.disease)
        candidate = pairs.drug - span_of(split.graph, DRUG)[0]
        return Question(diseases, known_drugs(split, diseases), row, candidate)


def rank_metrics_of(
    split: Split,
    scores_of: Callable[[IntArray], Scores],
    *,
    part: Part = "test",
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
    asked = Question.of(split, part)
    scores = scores_of(asked.diseases)
    return ranking_metrics(scores, asked.known, asked.row, asked.candidate, seed=seed)


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
