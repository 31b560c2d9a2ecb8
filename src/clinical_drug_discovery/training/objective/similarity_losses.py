"""The losses that compare nodes of one type. Each takes the embeddings of the nodes it names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...ops.nearness import nearness, unit
from .disease_pairs import PairBatch
from .near_pairs import NearPairs
from .treatment_votes import Treatments

# Divisor of the cosines of near nodes and of voters. A sharper one makes the embeddings worse.
_TEMPERATURE = 0.1
# Share of a drug's score that does not depend on similarity, so that no score is 0: for votes, in
# proportion to the known treatments of a drug; for nearness, to its nearness to all drugs.
_VOTES_OF_ALL, _NEARNESS_TO_ALL = 2e-3, 1e-4


def contrastive_loss(found: Tensor, pairs: PairBatch, temperature: float) -> Tensor:
    """Compute `info_nce` for pairs of similar nodes.

    Args:
        found: shape (2 P, D), embeddings of `pairs.nodes`.
        pairs: P pairs, on the CPU.
        temperature: divisor of the cosines.
    """
    anchor, positive = found.chunk(2)
    return info_nce(anchor, positive, pairs.excluded.to(found.device), temperature)


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


def near_loss(found: Tensor, pairs: NearPairs) -> Tensor:
    """Compute InfoNCE for near pairs of one type, from left to right and from right to left.

    Args:
        found: shape (2 P, D), embeddings of `pairs.nodes`.
        pairs: P pairs, on the CPU.

    Returns:
        The mean over the pairs and both directions, in nats; see `info_nce`. Two equal nodes are
        not negatives of each other.
    """
    num_pairs, device = len(pairs.left), found.device
    left, right = (nodes.to(device, torch.int32) for nodes in (pairs.left, pairs.right))
    own = torch.arange(num_pairs, device=device) * (num_pairs + 1)  # entries (i, i)
    units, halves = unit(found), (slice(0, num_pairs), slice(num_pairs, None))
    sums = nearness(units, *halves, own, _TEMPERATURE, (left, right))
    return ((sums.of_left.log() + sums.of_right.log()) / 2 - sums.picked.log()).mean()


def vote_loss(found: Tensor, batch: Treatments) -> Tensor:
    """Compute how badly similar diseases predict the known drugs of diseases.

    Let c(a, b) be the cosine of two centered embeddings. p(drug) is proportional to the sum, over
    other diseases v with this known drug, of exp(c(disease, v) / 0.1). These are the votes of
    neighborhood components analysis (Goldberger et al., NeurIPS 2004), with several labels.

    Args:
        found: shape (V, D), embeddings of `batch.voters`.
        batch: diseases and drugs, on the CPU.

    Returns:
        The mean of -log p over the known pairs, weighted by (number of the disease's drugs)^-0.5,
        in nats.
    """
    device = found.device
    voters = unit(found, centered=True)
    known, asked = batch.known.to(device), batch.asked.to(device)
    disease, drug = batch.pair_disease.to(device), batch.pair_drug.to(device)
    num_drugs = batch.num_drugs.to(device)
    # index_select adds gradients in order; the backward pass of x[i] does not on several threads.
    select = torch.index_select

    logits = select(voters, 0, asked) @ voters.t() / _TEMPERATURE
    logits = logits.scatter(1, asked[:, None], -torch.inf)  # a disease does not vote for itself
    # The backward pass of torch.softmax depends on the number of threads.
    share = torch.exp(logits - logits.logsumexp(dim=1, keepdim=True))
    votes = known @ share.t()  # (O, A)
    popularity = known.sum(dim=1) / num_drugs.sum()
    vote = votes[drug, disease] + _VOTES_OF_ALL * popularity[drug]
    total = select(share @ num_drugs + _VOTES_OF_ALL, 0, disease)
    return _mean_surprise(vote / total, num_drugs[asked].rsqrt()[disease])


def nearness_loss(found: Tensor, batch: Treatments) -> Tensor:
    """Compute how badly the known drugs of diseases predict their other known drugs.

    p(drug) is proportional to the sum, over other known drugs o of the disease, of
    exp(c(drug, o) / 0.1), with the cosine c of `vote_loss`. Diseases with one known drug are left
    out.

    Args:
        found: shape (C, D), embeddings of `batch.drugs`.
        batch: diseases and drugs, on the CPU; `has_several` must be true.

    Returns:
        The mean of `vote_loss`.
    """
    device, select = found.device, torch.index_select
    own, asked = batch.own.to(device), batch.asked.to(device)
    disease, drug = batch.pair_disease.to(device), batch.pair_drug.to(device)
    num_own = batch.num_drugs.to(device)[asked]  # of each asked disease

    entries = own[:, None] * len(own) + torch.arange(len(own), device=device)
    units = unit(found, centered=True)
    sums = nearness(units, slice(0, len(units)), own, entries, _TEMPERATURE)
    owned = batch.known.to(device)[:, asked]  # (O, A)
    # exp(0) = 1 is the nearness of a drug to itself.
    of_own = sums.picked @ owned - owned  # (O, A)
    smooth = _NEARNESS_TO_ALL * sums.of_left  # (C,)
    wanted = of_own[drug, disease] + select(smooth, 0, own[drug])
    every = select(sums.of_right @ owned - num_own + smooth.sum(), 0, disease)
    return _mean_surprise(wanted / every, num_own.rsqrt()[disease] * (num_own[disease] > 1))


def _mean_surprise(chance: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of -log p, in nats."""
    return -(weight * chance.log()).sum() / weight.sum()
