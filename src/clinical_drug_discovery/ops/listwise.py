"""The loss of telling targets of facts from other nodes of their type, without the scores of all.

Notation: M rows of a batch, D dimensions, B facts, T node types, K candidates of each, R relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.ops.buffers import zeros
from clinical_drug_discovery.system.errors import check_shape

FACT_CHUNK = 512  # with 512 candidates and dimensions 1 MiB for each buffer


def listwise_loss(
    z: Tensor,
    weight: Tensor,
    facts: tuple[Tensor, Tensor, Tensor],
    fact_ptr: Sequence[int],
    candidates: Tensor,
    excluded: Tensor,
    centring: float,
) -> Tensor:
    """Mean over facts (s, r, t) of log(exp f(s, r, t) + sum over c of exp f(s, r, c)) - f(s, r, t).

    The sum is over the candidates of t's type that are not excluded, and f(s, r, t) =
    sum_d z[s, d] weight[r, d] z[t, d] / sqrt(D): the softmax of "Knowledge Base Completion:
    Baselines Strike Back" (arXiv:1705.10744), eq. 1, over a sample. It is blind to what all nodes
    of a type have in common, so `centring` times the mean over types of |mean of z|^2 / D is added,
    the means over candidates. The gradients are computed along with the loss, a chunk of facts at a
    time, so that no scores of size B K and no rows of size B D exist; kept for the backward pass is
    one (M, D) buffer.

    Args:
        z: shape (M, D), embeddings.
        weight: shape (R, D), of the relations.
        facts: sources, relations and targets, shape (B,) each, int64; sources and targets are rows
            of z, and facts are ordered by the type of the target.
        fact_ptr: the facts with a target of type t are fact_ptr[t]:fact_ptr[t + 1].
        candidates: shape (T, K), int64, rows of z.
        excluded: shape (B, K), bool: candidates of the target's type that do not count.
        centring: 0 for the softmax alone.

    Returns:
        The loss, a number; 0 without facts.
    """
    check_shape("weight", weight, None, z.shape[1])
    check_shape("excluded", excluded, len(facts[0]), candidates.shape[1])
    loss: Tensor = _ListwiseLoss.apply(
        z, weight, facts, tuple(fact_ptr), candidates, excluded, centring
    )  # type: ignore[no-untyped-call]  # torch has no types for it
    return loss


class _ListwiseLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weight: Tensor,
        facts: tuple[Tensor, Tensor, Tensor],
        fact_ptr: tuple[int, ...],
        candidates: Tensor,
        excluded: Tensor,
        centring: float,
    ) -> Tensor:
        ctx.grads = zeros(z, *z.shape), torch.zeros_like(weight)
        grad_z, _ = ctx.grads
        total = z.new_zeros(())
        part = 1 / max(fact_ptr[-1], 1)
        ends = list(pairwise(fact_ptr))
        of_mean = centring / (part * z.shape[1] * max(sum(a < b for a, b in ends), 1))
        for of_type, (first, last) in zip(candidates, ends, strict=True):
            if first == last:
                continue
            others = z[of_type]
            mean = others.mean(dim=0)
            total += of_mean * mean.square().sum()
            by_others = (2 * of_mean / len(others) * mean).repeat(len(others), 1)
            for start in range(first, last, FACT_CHUNK):
                at = slice(start, min(start + FACT_CHUNK, last))
                chunk = [end[at] for end in facts]
                total += _add(z, weight, chunk, others, excluded[at], by_others, ctx.grads)
            grad_z.index_add_(0, of_type, by_others)
        ctx.part = part
        return total * part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_weight = ctx.grads
        del ctx.grads  # changed in place: a second backward pass must fail, not mislead
        grad = grad * ctx.part
        return grad_z.mul_(grad), grad_weight * grad, None, None, None, None, None


def _add(
    z: Tensor,
    weight: Tensor,
    facts: list[Tensor],
    others: Tensor,
    excluded: Tensor,
    by_others: Tensor,
    grads: tuple[Tensor, Tensor],
) -> Tensor:
    """Add the gradients of the sum over some facts of one target type; returns the sum."""
    src, relation, dst = facts
    x, scaled, y = z[src], weight[relation].div_(z.shape[1] ** 0.5), z[dst]
    query = x * scaled
    own = (query * y).sum(dim=1)
    logits = (query @ others.T).masked_fill_(excluded, -torch.inf)
    whole = torch.logaddexp(own, logits.logsumexp(dim=1))
    by_own = torch.exp(own - whole).sub_(1)
    shares = logits.sub_(whole[:, None]).exp_()
    by_query = torch.addmm(y.mul_(by_own[:, None]), shares, others)
    by_others.addmm_(shares.T, query)
    grad_z, grad_weight = grads
    grad_z.index_add_(0, dst, query.mul_(by_own[:, None]))
    grad_z.index_add_(0, src, by_query * scaled)
    # Few relations, many facts of each: added one by one, they would wait for each other.
    relations = torch.arange(len(weight), device=z.device)
    of_relation = (relation == relations[:, None]).to(z.dtype)
    grad_weight.addmm_(of_relation, by_query.mul_(x), alpha=z.shape[1] ** -0.5)
    return (whole - own).sum()
