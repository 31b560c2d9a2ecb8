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

# Weight of the centring term. With 10, embeddings find fewer drugs; without the term, a direction
# that all nodes of a type share grows.
_CENTRING = 3.0


def link_prediction_loss(decoder: DistMult, z: Tensor, batch: EdgeBatch) -> Tensor:
    """Compute the cross-entropy of each target among candidates, plus a centring term.

    See `ops.listwise_loss` for the formulas.

    Args:
        decoder: scores triples.
        z: shape (M, D), embeddings of `batch.rows`.
        batch: B facts with candidates, on z's device.

    Returns:
        The mean cross-entropy in nats (a model that knows nothing has the logarithm of the number
        of candidates), plus 3 times the mean similarity of the candidates of a type. That
        similarity is between 0 and 1 for embeddings of length sqrt(D).
    """
    facts = batch.src, batch.relation, batch.dst
    return listwise_loss(
        z, decoder.relation, facts, batch.fact_ptr, batch.candidates, batch.excluded, _CENTRING
    )


def contrastive_loss(z: Tensor, rows: Tensor, pairs: PairBatch, temperature: float) -> Tensor:
    """Compute `info_nce` for pairs of nodes that are among the rows of a batch.

    Args:
        z: shape (M, D), embeddings of the rows.
        rows: shape (M,), nodes, ascending, on the CPU.
        pairs: P pairs, on the CPU.
        temperature: divides the cosines.
    """
    # One call for both ends: each call makes a gradient as large as z.
    ends = gather_rows(z, torch.searchsorted(rows, pairs.nodes).to(z.device))
    anchor, positive = ends.chunk(2)
    return info_nce(anchor, positive, pairs.excluded.to(z.device), temperature)


def info_nce(anchor: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE, with the other pairs' positives as negatives.

    "Representation Learning with Contrastive Predictive Coding" (arXiv:1807.03748), eq. 4, with
    cosine / temperature as the logarithm of the density ratio.

    Args:
        anchor: shape (P, D), embeddings.
        positive: shape (P, D), embedding of the node that is similar to each anchor.
        excluded: shape (P, P), bool: True at (i, j) if positive j is not a negative of anchor i,
            because it is the same node or similar to it. The diagonal is ignored.
        temperature: divides the cosines.

    Returns:
        The mean over the pairs. A model that knows nothing has the logarithm of the number of
        candidates.
    """
    cosine = functional.normalize(anchor, dim=1) @ functional.normalize(positive, dim=1).t()
    own = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    logits = (cosine / temperature).masked_fill(excluded & ~own, -torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(anchor), device=anchor.device))
