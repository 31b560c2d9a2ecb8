"""Scores of triples: what two rows have in common under a relation."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_drug_discovery.ops import cpu_scores, reference
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.runtime import check_shape


def score_triples(z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
    """sum_d z[src, d] * weight[relation, d] * z[dst, d].

    "Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    (arXiv:1412.6575), eq. 2 with a diagonal matrix. Nothing of the size of the triples times the
    dimension exists, forward or backward; the latter needs one more (M, D) and 64 (R, D).

    Args:
        z: shape (M, D), embeddings.
        weight: shape (R, D), of the relations.
        src: shape (B,), int64, rows of z.
        relation: shape (B,), int64.
        dst: shape (B,), int64, rows of z.

    Returns:
        shape (B,).
    """
    check_shape("weight", weight, None, z.shape[1])
    scores: Tensor = _ScoreTriples.apply(z, weight, src, relation, dst)  # type: ignore[no-untyped-call]  # torch has no types for it
    return scores


class _ScoreTriples(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor
    ) -> Tensor:
        given = z.contiguous(), weight.contiguous(), src, relation, dst
        ctx.save_for_backward(*given)
        scores: Tensor = _backend(z).score(*given)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        return (*_backend(grad).score_backward(grad.contiguous(), *given), None, None, None)


def _backend(z: Tensor) -> ModuleType:
    return cpu_scores if uses_kernels(z.device) else reference
