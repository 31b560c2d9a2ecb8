"""Edge-sized operations in plain torch, in chunks of edges, for any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr

EDGE_CHUNK = 1 << 16  # with 256 float32 columns a chunk of messages is 64 MiB


def csr_sum(
    csr: Csr,
    x: Tensor,
    row_scale: Tensor | None,
    column_scale: Tensor | None,
    chunk_size: int = EDGE_CHUNK,
) -> Tensor:
    """Sum of the rows of x that each CSR row lists, both sides scaled.

    out[i] = row_scale[i] * sum over j in row i of column_scale[j] * x[j].

    Args:
        csr: M rows of E entries, which are rows of x.
        x: shape (N, C).
        row_scale: shape (M,), or None for ones.
        column_scale: shape (N,), or None for ones.
        chunk_size: edges at a time; peak extra memory is chunk_size * (C * itemsize + 8) bytes.

    Returns:
        shape (M, C).
    """
    out = x.new_zeros(csr.num_rows, x.shape[1])
    for rows, columns in _edge_chunks(csr, chunk_size):
        messages = x[columns]  # (chunk, C)
        if column_scale is not None:
            messages *= column_scale[columns, None]
        out.index_add_(0, rows, messages)
    if row_scale is not None:
        out *= row_scale[:, None]
    return out


def attend(
    csr: Csr,
    rows: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    highest: Tensor,
    total: Tensor,
    weighted: Tensor,
    chunk_size: int = EDGE_CHUNK,
) -> None:
    """Add the edges of one type to a running softmax over all edges of each row (online softmax).

    "Online normalizer calculation for softmax" (arXiv:1805.02867), Alg. 3, with the weighted sum
    carried along. After the last edge type, weighted / total is the attention's result.

    Args:
        csr: E entries, which are rows of k and v.
        rows: the target row of each of the CSR's rows: int64, distinct.
        q: shape (M, H, d), queries.
        k: shape (n, H, d), keys, mapped by the edge type.
        v: shape (n, H, d), values, mapped by the edge type.
        scale: shape (H,), what the dot products are multiplied by.
        highest: shape (M, H), highest logit so far, -inf at first; changed in place.
        total: shape (M, H), sum of exp(logit - highest) so far; changed in place.
        weighted: shape (M, H, d), sum of exp(logit - highest) v so far; changed in place.
        chunk_size: edges at a time; peak extra memory is about 3 chunk_size H d values.
    """
    for at, columns in _edge_chunks(csr, chunk_size):
        row = rows[at]
        logits = (q[row] * k[columns]).sum(dim=-1) * scale  # (chunk, H)
        index = row[:, None].expand_as(logits)
        top = highest.scatter_reduce(0, index, logits, "amax", include_self=True)
        # A row without edges so far has nothing to shrink, and -inf - -inf is no number.
        shrink = torch.where(top > highest, torch.exp(highest - top), torch.ones_like(top))
        share = torch.exp(logits - top[row])
        total.mul_(shrink).index_add_(0, row, share)
        weighted.mul_(shrink[..., None]).index_add_(0, row, share[..., None] * v[columns])
        highest.copy_(top)


def attend_backward(
    by_target: Csr,
    by_source: Csr,
    rows: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    log_total: Tensor,
    delta: Tensor,
    grad: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    chunk_size: int = EDGE_CHUNK,
) -> Tensor:
    """Gradients of the attention by one edge type's queries, keys, values and scale.

    The logits are computed again, as in "FlashAttention" (arXiv:2205.14135), Alg. 4.

    Args:
        by_target: E entries, which are rows of k and v.
        by_source: its transpose; not needed by this path.
        rows: the target row of each of the CSR's rows: int64, distinct.
        q: shape (M, H, d).
        k: shape (n, H, d).
        v: shape (n, H, d).
        scale: shape (H,).
        log_total: shape (M, H), log-sum-exp of each row's logits over all edge types.
        delta: shape (M, H), sum of grad times result over d.
        grad: shape (M, H, d), gradient by the attention's result.
        grad_q: shape (M, H, d); the gradient by q is added in place.
        grad_k: shape (n, H, d); overwritten by the gradient by k.
        grad_v: shape (n, H, d); overwritten by the gradient by v.
        chunk_size: edges at a time; peak extra memory is about 5 chunk_size H d values.

    Returns:
        The gradient by scale, shape (H,).
    """
    del by_source
    grad_scale = torch.zeros_like(scale)
    grad_k.zero_()
    grad_v.zero_()
    for at, columns in _edge_chunks(by_target, chunk_size):
        row = rows[at]
        dots = (q[row] * k[columns]).sum(dim=-1)  # (chunk, H)
        share = torch.exp(dots * scale - log_total[row])
        grad_share = (grad[row] * v[columns]).sum(dim=-1)
        grad_logit = share * (grad_share - delta[row])
        grad_scale += (grad_logit * dots).sum(dim=0)
        factor = (grad_logit * scale)[..., None]
        grad_q.index_add_(0, row, factor * k[columns])
        grad_k.index_add_(0, columns, factor * q[row])
        grad_v.index_add_(0, columns, share[..., None] * grad[row])
    return grad_scale


def _edge_chunks(csr: Csr, chunk_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and entry of every edge, so many edges at a time."""
    for start in range(0, csr.indices.numel(), chunk_size):
        columns = csr.indices[start : start + chunk_size]
        edges = torch.arange(start, start + columns.numel(), device=columns.device)
        yield torch.bucketize(edges, csr.indptr[1:], right=True), columns
