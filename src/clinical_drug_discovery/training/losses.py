"""The losses: link prediction on sampled facts, and the contrastive loss on similar nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..models.layers import DistMult
from ..ops.listwise import listwise_loss
from ..ops.mean import gather_rows
from .disease_pairs import PairBatch
from .edge_sampler import EdgeBatch

# Weight of the centring term, which keeps the mean embedding of a node type small. With a weight of
# 10, the ranking of drugs is worse. With 0, the mean embedding grows during training.
CENTRING = 3.0


def link_prediction_loss(decoder: DistMult, z: Tensor, batch: EdgeBatch) -> Tensor:
    """Compute the cross-entropy of each target among its candidates, plus a centring term.

    See `ops.listwise.listwise_loss` for the formulas.

    Args:
        decoder: scores facts.
        z: shape (M, D), embeddings of `batch.rows`.
        batch: B positives with candidates, on the device of z.

    Returns:
        The mean cross-entropy in nats (log(number of candidates) for an untrained model), plus
        3 times the mean over node types of |mean candidate embedding|^2 / D. The second mean is
        between 0 and 1 if embeddings have length sqrt(D).
    """
    facts = batch.src, batch.relation, batch.dst
    return listwise_loss(
        z, decoder.relation, facts, batch.fact_ptr, batch.candidates, batch.excluded, CENTRING
    )


def contrastive_loss(z: Tensor, rows: Tensor, pairs: PairBatch, temperature: float) -> Tensor:
    """Compute `info_nce` for pairs of nodes of a batch.

    Args:
        z: shape (M, D), embeddings of the nodes in `rows`.
        rows: shape (M,), node numbers, ascending, on the CPU.
        pairs: P pairs of nodes in `rows`, on the CPU.
        temperature: divisor of the cosines.
    """
    # One call gathers anchors and positives, because each call makes a gradient of the size of z.
    ends = gather_rows(z, torch.searchsorted(rows, pairs.nodes).to(z.device))
    anchor, positive = ends.chunk(2)
    return info_nce(anchor, positive, pairs.excluded.to(z.device), temperature)


def info_nce(anchor: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE: the negatives of an anchor are the positives of other anchors.

    This is eq. 4 of "Representation Learning with Contrastive Predictive Coding"
    (arXiv:1807.03748) with log f = cosine / temperature.

    Args:
        anchor: shape (P, D), embeddings.
        positive: shape (P, D), embedding of one similar node for each anchor.
        excluded: shape (P, P), bool: True at (i, j) if positive j is not a negative of anchor i,
            because both are the same node or similar nodes. The diagonal is ignored.
        temperature: divisor of the cosines.

    Returns:
        The mean over the pairs, in nats. It is log(1 + number of negatives) if all cosines are
        equal.
    """
    cosine = functional.normalize(anchor, dim=1) @ functional.normalize(positive, dim=1).t()
    own = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    logits = (cosine / temperature).masked_fill(excluded & ~own, -torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(anchor), device=anchor.device))
