"""Batches of training examples for a listwise loss, with one known drug or all of them hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.adjacency import Floats
from .drug_similarity import co_indicated_features_without
from .listwise_examples import ListwiseExample, squash

# An example that shows known drugs has so many of its negatives, or up to twice as many: a random
# part. It is ranked up to four times, so its negatives take most of the time.
_FEW_NEGATIVES = 500
_MAX_POSITIVES = 4  # limit of known drugs to predict per example, each hidden in turn
_Mask = npt.NDArray[np.bool_]


class ListwiseBatch(NamedTuple):
    """E examples with up to C candidates, which are ranked P times with other drugs hidden.

    The rankings of an example follow each other.
    """

    base: Tensor  #: shape (E, C, B), after `squash`; 0 where an example has fewer candidates
    rankings: tuple[int, ...]  #: number of rankings of each example, P in total
    co_indicated: Tensor | None  #: shape (P, 2 W + 1, C), after `squash`; None: no drug is shown
    anchor: Tensor  #: shape (E, C), see `MetapathFeatures.walk_anchor`
    popularity: Tensor  #: shape (E, C, G), see `MetapathFeatures.popularity`
    log_probability: Tensor  #: shape (P, C), of each candidate's being sampled; infinite for none
    is_known: Tensor  #: shape (P, C), whether the candidate is a known drug that is not hidden
    row: Tensor  #: shape (K,), the ranking of each drug to predict
    drug: Tensor  #: shape (K,), the place of this drug among the candidates
    weight: Tensor  #: shape (K,), of the loss of this drug


def batch_of(
    examples: Sequence[tuple[ListwiseExample, _Mask]],
    co_indicated_scale: Floats | None,
    discount: float,
    generator: torch.Generator,
) -> ListwiseBatch:
    """Return a batch of examples that show their known drugs, or of examples that hide them.

    Args:
        examples: each with a mask over its known drugs: true for those that are hidden from all
            MLPs, so they are negatives.
        co_indicated_scale: shape (2 W + 1,). Each ranking shows all known drugs but one, which is
            to be predicted. None: a single ranking hides them all.
        discount: the losses of an example with k known drugs have the weight k^(1 - discount).
        generator: random generator.
    """
    few = None if co_indicated_scale is None else _FEW_NEGATIVES
    chosen = [_candidates(*example, few, generator) for example in examples]
    size = max(len(places) for places, _ in chosen)
    first = examples[0][0]
    base = np.zeros((len(examples), size, first.base.shape[1]), np.float32)
    anchor = np.zeros((len(examples), size), np.float32)
    popularity = np.zeros((len(examples), size, first.popularity.shape[1]), np.float32)
    log_probability = np.full((len(examples), size), np.inf, np.float32)
    is_known = np.zeros((len(examples), size), bool)
    rankings: list[int] = []
    co_indicated, row, drug, weight = [], [], [], []
    for e, ((example, hidden), (places, log_share)) in enumerate(
        zip(examples, chosen, strict=True)
    ):
        number, known = len(places), np.flatnonzero(~hidden)
        base[e, :number] = example.base[places]
        anchor[e, :number] = example.anchor[places]
        popularity[e, :number] = example.popularity[places]
        log_probability[e, :number] = example.log_probability[places]
        log_probability[e, len(hidden) : number] += log_share
        is_known[e, known] = True
        asked, start = known, sum(rankings)
        if co_indicated_scale is None:
            row.append(np.full(len(known), start))
            rankings.append(1)
        else:
            some = torch.randperm(len(known), generator=generator)[:_MAX_POSITIVES].numpy()
            similarity = example.co_indicated[:, known].take(places, axis=2).astype(np.float32)
            also = co_indicated_features_without(similarity, some)
            padded = np.zeros((*also.shape[:2], size), np.float32)
            padded[:, :, :number] = squash(also, co_indicated_scale)
            co_indicated.append(padded)
            asked = known[some]
            row.append(np.arange(start, start + len(asked)))
            rankings.append(len(asked))
        drug.append(asked)
        weight.append(np.full(len(asked), len(known) ** (1 - discount) / len(asked), np.float32))
    return ListwiseBatch(
        torch.from_numpy(base),
        tuple(rankings),
        torch.from_numpy(np.concatenate(co_indicated)) if co_indicated else None,
        torch.from_numpy(anchor),
        torch.from_numpy(popularity),
        torch.from_numpy(np.repeat(log_probability, rankings, axis=0)),
        torch.from_numpy(np.repeat(is_known, rankings, axis=0)),
        torch.from_numpy(np.concatenate(row)),
        torch.from_numpy(np.concatenate(drug)),
        torch.from_numpy(np.concatenate(weight)),
    )


def _candidates(
    example: ListwiseExample, hidden: _Mask, few: int | None, generator: torch.Generator
) -> tuple[npt.NDArray[np.int64], float]:
    """Return the places of all known drugs and of some negatives, and the log of their share."""
    known, every = len(hidden), len(example.base)
    stride = 1 if few is None else max((every - known) // few, 1)
    # Hard and easy negatives are in random order, so every second one is a random half.
    first = known + int(torch.randint(stride, (), generator=generator))
    return np.r_[:known, first:every:stride], -math.log(stride)
