"""The decoder that scores a triple, and the loss on sampled facts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.ops.listwise import listwise_loss
from clinical_drug_discovery.ops.mean import gather_rows
from clinical_drug_discovery.training.disease_pairs import PairBatch
from clinical_drug_discovery.training.edge_sampler import EdgeBatch

_CENTRING = 3.0  # with 10 embeddings find less, without it a direction common to a type grows


def link_prediction_loss(decoder: DistMult, z: Tensor, batch: EdgeBatch) -> Tensor:
    """How hard targets are to tell from other nodes of their type, and how uncentred z is.

    Args:
        decoder: scores triples.
        z: shape (M, D), embeddings of `batch.rows`.
        batch: B facts with candidates, on z's device.

    Returns:
        The mean over facts in nats, for a model that knows nothing the logarithm of 1 more than
        the candidates that count; and 3 times the mean over the targets' types of how alike its
        candidates are, from 0 to 1 for embeddings of length sqrt(D). See `ops.listwise_loss`.
    """
    facts = batch.src, batch.relation, batch.dst
    return listwise_loss(
        z, decoder.relation, facts, batch.fact_ptr, batch.candidates, batch.excluded, _CENTRING
    )


def contrastive_loss(z: Tensor, rows: Tensor, pairs: PairBatch, temperature: float) -> Tensor:
    """`info_nce` of pairs of nodes that are among the rows of a batch.

    Args:
        z: shape (M, D), embeddings of the rows.
        rows: shape (M,), nodes, ascending, on the CPU.
        pairs: P pairs, on the CPU.
        temperature: divides the cosines.
    """
    # Both in one call, so that z gets one gradient: another would be as large as z.
    ends = gather_rows(z, torch.searchsorted(rows, pairs.nodes).to(z.device))
    anchor, positive = ends.chunk(2)
    return info_nce(anchor, positive, pairs.excluded.to(z.device), temperature)


def info_nce(anchor: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """InfoNCE of pairs with the other pairs' positives as negatives.

    "Representation Learning with Contrastive Predictive Coding" (arXiv:1807.03748), eq. 4, with
    cosine / temperature as the logarithm of the density ratio.

    Args:
        anchor: shape (P, D), embeddings.
        positive: shape (P, D), of the node that goes with each anchor.
        excluded: shape (P, P), bool: pairs (i, j) of which positive j is no negative of anchor i,
            because the two are the same node or alike themselves; the diagonal does not count.
        temperature: divides the cosines.

    Returns:
        The mean over the pairs; ln of the number of candidates for a model that knows nothing.
    """
    cosine = functional.normalize(anchor, dim=1) @ functional.normalize(positive, dim=1).t()
    own = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    logits = (cosine / temperature).masked_fill(excluded & ~own, -torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(anchor), device=anchor.device))
