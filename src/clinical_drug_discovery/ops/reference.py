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


def _edge_chunks(csr: Csr, chunk_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and entry of every edge, so many edges at a time."""
    for start in range(0, csr.indices.numel(), chunk_size):
        columns = csr.indices[start : start + chunk_size]
        edges = torch.arange(start, start + columns.numel(), device=columns.device)
        yield torch.bucketize(edges, csr.indptr[1:], right=True), columns
