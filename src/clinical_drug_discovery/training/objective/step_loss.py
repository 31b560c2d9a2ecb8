"""The loss of a step, whose gradient with respect to the embeddings is computed with it.

When the backward pass of the model begins, only this gradient is left of the loss: one buffer of
the size of the embeddings. Autograd would keep the embeddings that the terms read, and make a
gradient of the size of all embeddings for each of link prediction, the terms, and their sum.

Notation: M rows of a batch, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...models.layers import DistMult
from ...ops.buffers import empty, zeros
from ..batches import DeviceBatch
from .link_loss import link_prediction_loss
from .terms import Term, nodes_of


def step_loss(
    z: Tensor,
    batch: DeviceBatch,
    decoder: DistMult,
    terms: Sequence[Term],
    link_weight: float,
    share: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of a step; add the gradients of the decoder's weights.

    Args:
        z: shape (M, D), embeddings.
        batch: has the nodes of all terms.
        decoder: scores facts.
        terms: further terms of the loss.
        link_weight: factor of the loss of link prediction.
        share: factor of the gradients.

    Returns:
        "loss" (the weighted sum), "link_loss" and the loss of each term by its name; and a number
        whose backward pass gives z its gradient, once.
    """
    # The terms first: their buffers are free before link prediction makes the gradient of z.
    of_terms, at, by_terms = _of_terms(z, batch, terms, share)
    leaf = z.detach().requires_grad_()
    dtype = batch.targets.backend.product_dtype(z.dtype)
    link = link_prediction_loss(decoder, leaf, batch.facts, dtype)
    (share * link_weight * link).backward()
    gradient, leaf.grad = leaf.grad, None
    if gradient is None:
        raise RuntimeError("the loss of link prediction did not give the embeddings a gradient")
    gradient.index_add_(0, at, by_terms)
    total = link_weight * link.detach()
    weights = {term.name: term.weight for term in terms}
    total = total + sum(weights[name] * loss for name, loss in of_terms.items())
    losses = {"loss": total, "link_loss": link.detach(), **of_terms}
    return losses, _KnownGradient.apply(z, gradient)  # type: ignore[no-untyped-call]  # torch has no types for it


def _of_terms(
    z: Tensor, batch: DeviceBatch, terms: Sequence[Term], share: float
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Compute each term and its gradient, one after the other.

    Returns:
        The losses by name; the K distinct rows of z that the terms read, shape (K,); the gradient
        of their weighted sum with respect to these rows, shape (K, D).
    """
    nodes = np.unique(nodes_of(terms).numpy())
    at = torch.from_numpy(np.searchsorted(batch.rows.numpy(), nodes))
    gradient, losses = zeros(z, len(nodes), z.shape[1]), dict[str, Tensor]()
    for term in terms:
        place = torch.from_numpy(np.searchsorted(nodes, term.nodes.numpy()))
        own, own_place = at[place].to(z.device), place.to(z.device)
        found = empty(z, len(own), z.shape[1])
        torch.index_select(z.detach(), 0, own, out=found)
        found.requires_grad_()
        loss = term.loss(found)
        (term.weight * loss).backward()
        before = losses.get(term.name)
        losses[term.name] = loss.detach() if before is None else before + loss.detach()
        if found.grad is not None:  # on the CPU, gradients are added in the order of the nodes
            gradient.index_add_(0, own_place, found.grad.mul_(share))
        del found, loss
        batch.targets.backend.trim_heap()
    return losses, at.to(z.device), gradient


class _KnownGradient(torch.autograd.Function):
    """A number whose gradient with respect to z is known. It does not keep z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return z.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.gradient
        del ctx.gradient  # free it as soon as the model has used it
        return gradient, None
