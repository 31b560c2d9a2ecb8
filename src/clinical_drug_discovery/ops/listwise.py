"""The listwise loss: a softmax over the target of each positive and candidates of the same type.

Notation: M rows of a batch, D dimensions, B positives, T node types, K candidates per type,
R relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..system.errors import check_shape
from .buffers import zeros
from .linear import same_bits

FACT_CHUNK = 512  # positives per chunk: 1 MiB per buffer with 512 candidates and 512 dimensions


def listwise_loss(
    z: Tensor,
    weight: Tensor,
    facts: tuple[Tensor, Tensor, Tensor],
    fact_ptr: Sequence[int],
    candidates: Tensor,
    excluded: Tensor,
    centring: float,
) -> Tensor:
    """Compute the softmax cross-entropy of targets among candidates, plus a centering term.

    For a positive (s, r, t) the loss is

        log(exp f(s, r, t) + sum over candidates c of exp f(s, r, c)) - f(s, r, t)

    with f(s, r, t) = sum_d z[s, d] weight[r, d] z[t, d] / sqrt(D). It is the softmax of "Knowledge
    Base Completion: Baselines Strike Back" (arXiv:1705.10744), eq. 1, over sampled candidates of
    t's type. Adding one vector to t and all candidates does not change the loss. So a centering
    term is added: `centring` times the mean over types of |m|^2 / D, where m is the mean embedding
    of the type's candidates.

    Loss and gradients are computed together, a chunk of positives at a time, so scores of shape
    (B, K) and rows of shape (B, D) never exist. The backward pass needs one (M, D) buffer.

    Args:
        z: shape (M, D), embeddings.
        weight: shape (R, D), a vector for each relation.
        facts: sources, relations and targets, shape (B,) each, int64. Sources and targets are rows
            of z. The positives are ordered by the type of their target.
        fact_ptr: the positives with a target of type t are fact_ptr[t]:fact_ptr[t + 1].
        candidates: shape (T, K), int64, rows of z.
        excluded: shape (B, K), bool: True for candidates that are left out of the softmax.
        centring: weight of the centering term.

    Returns:
        The mean loss of the positives plus the centering term, a scalar; 0 without positives.
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
        mean_factor = centring / (part * z.shape[1] * max(sum(a < b for a, b in ends), 1))
        for of_type, (first, last) in zip(candidates, ends, strict=True):
            if first == last:
                continue
            others = z[of_type]
            mean = others.mean(dim=0)
            total += mean_factor * mean.square().sum()
            grad_others = (2 * mean_factor / len(others) * mean).repeat(len(others), 1)
            for start in range(first, last, FACT_CHUNK):
                at = slice(start, min(start + FACT_CHUNK, last))
                chunk = [end[at] for end in facts]
                total += _add(z, weight, chunk, others, excluded[at], grad_others, ctx.grads)
            grad_z.index_add_(0, of_type, grad_others)
        ctx.part = part
        return total * part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_weight = ctx.grads
        del ctx.grads  # changed below: a second backward pass must fail, not return wrong values
        grad = grad * ctx.part
        return grad_z.mul_(grad), grad_weight * grad, None, None, None, None, None


def _add(
    z: Tensor,
    weight: Tensor,
    facts: list[Tensor],
    others: Tensor,
    excluded: Tensor,
    grad_others: Tensor,
    grads: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the summed loss of positives with one target type; add the gradients in place."""
    src, relation, dst = facts
    x, scaled, y = z[src], weight[relation].div_(z.shape[1] ** 0.5), z[dst]
    query = x * scaled
    own = (query * y).sum(dim=1)
    with same_bits(len(query)):
        logits = (query @ others.T).masked_fill_(excluded, -torch.inf)
    log_total = torch.logaddexp(own, logits.logsumexp(dim=1))
    grad_own = torch.exp(own - log_total).sub_(1)
    weights = logits.sub_(log_total[:, None]).exp_()
    with same_bits(len(query)):
        grad_query = torch.addmm(y.mul_(grad_own[:, None]), weights, others)
    with same_bits(len(others)):
        grad_others.addmm_(weights.T, query)
    grad_z, grad_weight = grads
    grad_z.index_add_(0, dst, query.mul_(grad_own[:, None]))
    grad_z.index_add_(0, src, grad_query * scaled)
    # A product with one-hot rows, because index_add_ of many facts to few relations is slow.
    relations = torch.arange(len(weight), device=z.device)
    of_relation = (relation == relations[:, None]).to(z.dtype)
    with same_bits(len(weight)):
        grad_weight.addmm_(of_relation, grad_query.mul_(x), alpha=z.shape[1] ** -0.5)
    return (log_total - own).sum()
