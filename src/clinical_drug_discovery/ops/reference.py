"""Edge-sized operations in plain torch, in chunks of edges, for any device."""

from __future__ import annotations

import torch
from torch import Tensor

EDGE_CHUNK = 1 << 16  # with 256 float32 columns a chunk of messages is 64 MiB


def csr_sum(
    indptr: Tensor,
    indices: Tensor,
    x: Tensor,
    row_scale: Tensor | None,
    column_scale: Tensor | None,
    chunk_size: int = EDGE_CHUNK,
) -> Tensor:
    """Sum of the rows of x that each CSR row lists, both sides scaled.

    out[i] = row_scale[i] * sum over j in row i of column_scale[j] * x[j].

    Args:
        indptr: shape (M + 1,), int64.
        indices: shape (E,), int32, rows of x.
        x: shape (N, C).
        row_scale: shape (M,), or None for ones.
        column_scale: shape (N,), or None for ones.
        chunk_size: edges at a time; peak extra memory is chunk_size * (C * itemsize + 8) bytes.

    Returns:
        shape (M, C).
    """
    num_rows, num_edges = indptr.numel() - 1, indices.numel()
    out = x.new_zeros(num_rows, x.shape[1])
    for start in range(0, num_edges, chunk_size):
        columns = indices[start : start + chunk_size]
        edges = torch.arange(start, start + columns.numel(), device=x.device)
        rows = torch.bucketize(edges, indptr[1:], right=True)
        messages = x[columns]  # (chunk, C)
        if column_scale is not None:
            messages *= column_scale[columns, None]
        out.index_add_(0, rows, messages)
    if row_scale is not None:
        out *= row_scale[:, None]
    return out
