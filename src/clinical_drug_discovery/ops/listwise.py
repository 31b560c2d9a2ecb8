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
from .linear import multiply, same_bits

FACT_CHUNK = 512  # positives per chunk: 1 MiB per buffer with 512 candidates and 512 dimensions


def listwise_loss(
    z: Tensor,
    weight: Tensor,
    facts: tuple[Tensor, Tensor, Tensor],
    fact_ptr: Sequence[int],
    candidates: Tensor,
    excluded: Tensor,
    centring: float,
    gradient_dtype: torch.dtype | None = None,
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
        gradient_dtype: dtype of the products of the gradients; None: that of z. The scores are
            computed in the dtype of z.

    Returns:
        The mean loss of the positives plus the centering term, a scalar; 0 without positives.
    """
    check_shape("weight", weight, None, z.shape[1])
    check_shape("excluded", excluded, len(facts[0]), candidates.shape[1])
    loss: Tensor = _ListwiseLoss.apply(
        z, weight, facts, tuple(fact_ptr), candidates, excluded, centring,
        gradient_dtype or z.dtype,
    )  # type: ignore[no-untyped-call]  # fmt: skip  # torch has no types for it
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
        gradient_dtype: torch.dtype,
    ) -> Tensor:
        ctx.grads = zeros(z, *z.shape), torch.zeros_like(weight)
        grad_z, _ = ctx.grads
        scaled = weight / z.shape[1] ** 0.5
        total = z.new_zeros(())
        part = 1 / max(fact_ptr[-1], 1)
        ends = list(pairwise(fact_ptr))
        mean_factor = centring / (part * z.shape[1] * max(sum(a < b for a, b in ends), 1))
        for of_type, (first, last) in zip(candidates, ends, strict=True):
            if first == last:
                continue
            others = z.index_select(0, of_type)
            mean = others.mean(dim=0)
            candidate_rows = others, (others - mean).to(gradient_dtype), mean
            total += mean_factor * mean.square().sum()
            grad_others = (2 * mean_factor / len(others) * mean).repeat(len(others), 1)
            for start in range(first, last, FACT_CHUNK):
                at = slice(start, min(start + FACT_CHUNK, last))
                chunk = [end[at] for end in facts]
                total += _add(
                    z, scaled, chunk, candidate_rows, excluded[at], grad_others, ctx.grads
                )
            grad_z.index_add_(0, of_type, grad_others)
        ctx.part = part
        return total * part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_weight = ctx.grads
        del ctx.grads  # changed below: a second backward pass must fail, not return wrong values
        grad = grad * ctx.part
        return grad_z.mul_(grad), grad_weight * grad, *(None,) * 6


def _add(
    z: Tensor,
    scaled: Tensor,
    facts: list[Tensor],
    candidates: tuple[Tensor, Tensor, Tensor],
    excluded: Tensor,
    grad_others: Tensor,
    grads: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the summed loss of positives with one target type; add the gradients in place.

    Args:
        z: shape (M, D).
        scaled: shape (R, D), the weights divided by sqrt(D).
        facts: sources, relations and targets of the positives.
        candidates: rows of z, shape (K, D); these without their mean, in the dtype of the
            gradients' products; and their mean.
        excluded: see `listwise_loss`.
        grad_others: shape (K, D).
        grads: gradients with respect to z and the weights.
    """
    src, relation, dst = facts
    others, for_products, mean = candidates
    x, factor, y = (
        rows.index_select(0, at) for rows, at in ((z, src), (scaled, relation), (z, dst))
    )
    query = x * factor
    own = (query * y).sum(dim=1)
    with same_bits(len(query), len(others)):
        weights = (query @ others.T).masked_fill_(excluded, -torch.inf)
    highest = torch.maximum(weights.amax(dim=1), own)
    weights.sub_(highest[:, None]).exp_()
    of_own = torch.exp(own - highest)
    total = weights.sum(dim=1) + of_own
    weights.div_(total[:, None])
    # -(1 - probability of the target), without subtracting numbers that are nearly equal.
    grad_own = -weights.sum(dim=1)
    weights, by = _for_products(weights, for_products), _for_products(query, for_products)
    # The weights and grad_own add up to 0, so the mean can be left out. If all rows of z are alike,
    # the sum nearly cancels, and in bfloat16 the rounding of the mean would be larger than it.
    of_query = multiply(weights, for_products)[: len(query)]
    grad_query = y.sub_(mean).mul_(grad_own[:, None]).add_(of_query)
    grad_others.add_(multiply(weights.T, by))
    grad_z, grad_weight = grads
    grad_z.index_add_(0, dst, query.mul_(grad_own[:, None]))
    grad_z.index_add_(0, src, factor.mul_(grad_query))
    # A product with one-hot rows, because index_add_ of many facts to few relations is slow.
    relations = torch.arange(len(scaled), device=z.device)
    of_relation = (relation == relations[:, None]).to(z.dtype)
    with same_bits(len(scaled)):
        grad_weight.addmm_(of_relation, grad_query.mul_(x), alpha=z.shape[1] ** -0.5)
    return (highest + total.log() - own).sum()


def _for_products(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows in the dtype of `like`; if it is another one, padded to `FACT_CHUNK` rows.

    Otherwise the last chunk of each type would have a shape of its own: see `linear.multiply`.
    """
    if rows.dtype == like.dtype:
        return rows
    result = rows.new_zeros(FACT_CHUNK, rows.shape[1], dtype=like.dtype)
    result[: len(rows)] = rows
    return result
