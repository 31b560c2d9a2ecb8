"""The decoder that scores a triple, and the loss on sampled facts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.contrast import PairBatch
from clinical_drug_discovery.ops.listwise import listwise_loss
from clinical_drug_discovery.ops.mean import gather_rows
from clinical_drug_discovery.sampling import EdgeBatch

_CENTRING = 3.0  # with 10 embeddings find less, without it a direction common to a type grows
_FIRST_WEIGHT = 3.0  # root mean square: the softmax of random embeddings is sharp enough then
_MEAN = 0.5  # of these weights, in standard deviations


class DistMult(nn.Module):
    """Scores a triple as sum_d z_src[d] * w_relation[d] * z_dst[d] / sqrt(D).

    "Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    (arXiv:1412.6575), eq. 2 with a diagonal matrix. It is symmetric, as the facts are; the division
    keeps what random vectors of any dimension score near `_FIRST_WEIGHT`. Scores compare targets of
    one source and relation; they are no probabilities.

    The weights of a relation start spread around a mean of half their deviation. Were all alike,
    each fact would draw its ends together in every dimension, and the drugs nearest to a statin
    would be those that it must not be taken with; so it is rather what relates to the same nodes.
    With a mean of 0 training is slower, since it starts from vectors that are alike where nodes are
    near: see docs/evaluation.md.
    """

    def __init__(self, num_relations: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        spread = torch.randn(num_relations, dim, generator=generator)
        self.relation = nn.Parameter(_FIRST_WEIGHT * (_MEAN + spread) / (1 + _MEAN**2) ** 0.5)

    def forward(self, z: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
        """Score triples.

        Args:
            z: shape (M, D), embeddings.
            src: shape (B,), int64, rows of z.
            relation: shape (B,), int64.
            dst: shape (B,), int64, rows of z.

        Returns:
            shape (B,).
        """
        products = z[src] * self.relation[relation] * z[dst]
        scores: Tensor = products.sum(dim=1) / z.shape[1] ** 0.5
        return scores


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
