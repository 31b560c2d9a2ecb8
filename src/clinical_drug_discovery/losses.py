"""The decoder that scores a triple, and the loss on sampled facts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.contrast import PairBatch
from clinical_drug_discovery.ops import score_triples
from clinical_drug_discovery.ops.rows import gather_rows
from clinical_drug_discovery.sampling import EdgeBatch

_FIRST_BIAS = -4.0  # about where training takes it; two random nodes are hardly ever a fact


class DistMult(nn.Module):
    """Scores a triple as (sum_d z_src[d] * w_relation[d] * z_dst[d] + D b_relation) / sqrt(D).

    "Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    (arXiv:1412.6575), eq. 2, with a bias. It is symmetric, as the facts are; the division keeps
    what random vectors of any dimension score, beside the bias, near 1. The bias says that two
    nodes make no fact unless something speaks for it. Without it, all embeddings of a type turn
    into one direction that says so.
    """

    def __init__(self, num_relations: int, dim: int) -> None:
        super().__init__()
        self.relation = nn.Parameter(torch.ones(num_relations, dim))
        self.bias = nn.Parameter(torch.full((num_relations,), _FIRST_BIAS / dim**0.5))

    def forward(self, z: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
        """Score triples.

        Args:
            z: shape (M, D), embeddings.
            src: shape (B,), int64, rows of z.
            relation: shape (B,), int64.
            dst: shape (B,), int64, rows of z.

        Returns:
            shape (B,), logits.
        """
        bias = functional.embedding(relation, self.bias[:, None])[:, 0]
        dim = z.shape[1]
        scores = score_triples(z, self.relation, src, relation, dst)
        logits: Tensor = (scores + dim * bias) / dim**0.5
        return logits


def link_prediction_loss(decoder: DistMult, z: Tensor, batch: EdgeBatch) -> Tensor:
    """Logistic loss of telling each fact from its corrupted twin.

    Args:
        decoder: scores triples.
        z: shape (M, D), embeddings of `batch.rows`.
        batch: B facts with negatives, on z's device.

    Returns:
        The mean over facts and valid negatives.
    """
    # Both in one call, so that z gets one gradient: another would be as large as z.
    src, relation = batch.src.repeat(2), batch.relation.repeat(2)
    logits = decoder(z, src, relation, torch.cat([batch.dst, batch.negative]))
    of_facts, of_negatives = logits.view(2, -1)
    total = functional.softplus(-of_facts).sum()
    total = total + (functional.softplus(of_negatives) * batch.has_negative).sum()
    loss: Tensor = total / (batch.src.numel() + batch.has_negative.sum())
    return loss


def contrastive_loss(z: Tensor, rows: Tensor, pairs: PairBatch, temperature: float) -> Tensor:
    """`info_nce` of pairs of nodes that are among the rows of a batch.

    Args:
        z: shape (M, D), embeddings of the rows.
        rows: shape (M,), nodes, ascending, on the CPU.
        pairs: P pairs, on the CPU.
        temperature: divides the cosines.
    """
    # Both in one call, so that z gets one gradient: see `link_prediction_loss`.
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
