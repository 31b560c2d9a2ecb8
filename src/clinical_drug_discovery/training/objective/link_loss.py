"""The loss of link prediction on sampled facts."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.layers import DistMult
from ...ops.listwise import listwise_loss
from ..edge_sampler import EdgeBatch

# Weight of the centring term, which keeps the mean embedding of a node type small. With a weight of
# 10, the ranking of drugs is worse. With 0, the mean embedding grows during training.
CENTRING = 3.0


def link_prediction_loss(
    decoder: DistMult, z: Tensor, batch: EdgeBatch, gradient_dtype: torch.dtype | None = None
) -> Tensor:
    """Compute the cross-entropy of each target among its candidates, plus a centring term.

    See `ops.listwise.listwise_loss` for the formulas.

    Args:
        decoder: scores facts.
        z: shape (M, D), embeddings of `batch.rows`.
        batch: B positives with candidates, on the device of z.
        gradient_dtype: dtype of the products of the gradients; None: that of z.

    Returns:
        The mean cross-entropy in nats (log(number of candidates) for an untrained model), plus
        3 times the mean over node types of |mean candidate embedding|^2 / D. The second mean is
        between 0 and 1 if embeddings have length sqrt(D).
    """
    facts = batch.src, batch.relation, batch.dst
    return listwise_loss(
        z, decoder.relation, facts, batch.fact_ptr, batch.candidates, batch.excluded, CENTRING,
        gradient_dtype,
    )  # fmt: skip
