"""Attention over one edge type as CPU kernels, compiled by numba on first use and cached on disk.

Notation: M target rows, n source nodes, H heads, d channels per head. Every row is summed by one
thread in the order of its edges: results depend neither on the number of threads nor on the run.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr
from clinical_drug_discovery.ops.cpu import balanced_parts

_EDGES = 64  # of a row at a time: their logits stay in the first cache
# Sums may be reordered, which is what lets them be vectorised; infinities keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


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
) -> None:
    """The same as `reference.attend`, without any buffer of the size of the edges."""
    parts = balanced_parts(csr.indptr)
    _run(_attend, csr, (rows, q, k, v, scale, highest, total, weighted), parts)


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
) -> Tensor:
    """The same as `reference.attend_backward`, without any buffer of the size of the edges."""
    given = rows, q, k, v, scale, log_total, delta, grad
    parts = balanced_parts(by_target.indptr)
    grad_scale = torch.zeros(len(parts) - 1, scale.numel(), dtype=q.dtype)
    _run(_backward_by_target, by_target, (*given, grad_q, grad_scale), parts)
    parts = balanced_parts(by_source.indptr)
    _run(_backward_by_source, by_source, (*given, grad_k, grad_v), parts)
    return grad_scale.sum(dim=0)


def _run(
    kernel: Callable[..., None], csr: Csr, tensors: tuple[Tensor, ...], parts: npt.NDArray[np.int64]
) -> None:
    arrays = (tensor.detach().numpy() for tensor in (csr.indptr, csr.indices, *tensors))
    kernel(*arrays, parts)


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=_FAST)
def _attend(indptr, indices, rows, q, k, v, scale, highest, total, weighted, parts):  # type: ignore[no-untyped-def]  # numba infers its types  # noqa: C901  # one loop nest: a call per edge would cost more than the edge
    num_heads, dim = q.shape[1], q.shape[2]
    for part in numba.prange(len(parts) - 1):
        logits = np.empty((num_heads, _EDGES), q.dtype)
        for row in range(parts[part], parts[part + 1]):
            i = rows[row]
            for first in range(indptr[row], indptr[row + 1], _EDGES):
                count = min(_EDGES, indptr[row + 1] - first)
                for e in range(count):
                    j = indices[first + e]
                    for h in range(num_heads):
                        dot = q.dtype.type(0)
                        for c in range(dim):
                            dot += q[i, h, c] * k[j, h, c]
                        logits[h, e] = dot * scale[h]
                for h in range(num_heads):
                    top = highest[i, h]
                    for e in range(count):
                        top = max(top, logits[h, e])
                    shrink = np.exp(highest[i, h] - top)
                    highest[i, h] = top
                    part_sum = q.dtype.type(0)
                    for e in range(count):
                        logits[h, e] = np.exp(logits[h, e] - top)
                        part_sum += logits[h, e]
                    total[i, h] = total[i, h] * shrink + part_sum
                    for c in range(dim):
                        weighted[i, h, c] *= shrink
                for e in range(count):
                    j = indices[first + e]
                    for h in range(num_heads):
                        share = logits[h, e]
                        for c in range(dim):
                            weighted[i, h, c] += share * v[j, h, c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=_FAST)
def _backward_by_target(  # type: ignore[no-untyped-def]  # numba infers its types
    indptr, indices, rows, q, k, v, scale, log_total, delta, grad, grad_q, grad_scale, parts
):
    num_heads, dim = q.shape[1], q.shape[2]
    for part in numba.prange(len(parts) - 1):
        for row in range(parts[part], parts[part + 1]):
            i = rows[row]
            for edge in range(indptr[row], indptr[row + 1]):
                j = indices[edge]
                for h in range(num_heads):
                    dot = q.dtype.type(0)
                    grad_share = q.dtype.type(0)
                    for c in range(dim):
                        dot += q[i, h, c] * k[j, h, c]
                        grad_share += grad[i, h, c] * v[j, h, c]
                    share = np.exp(dot * scale[h] - log_total[i, h])
                    grad_logit = share * (grad_share - delta[i, h])
                    grad_scale[part, h] += grad_logit * dot
                    factor = grad_logit * scale[h]
                    for c in range(dim):
                        grad_q[i, h, c] += factor * k[j, h, c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=_FAST)
def _backward_by_source(  # type: ignore[no-untyped-def]  # numba infers its types
    indptr, indices, rows, q, k, v, scale, log_total, delta, grad, grad_k, grad_v, parts
):
    num_heads, dim = q.shape[1], q.shape[2]
    for part in numba.prange(len(parts) - 1):
        for j in range(parts[part], parts[part + 1]):
            grad_k[j] = 0
            grad_v[j] = 0
            for edge in range(indptr[j], indptr[j + 1]):
                i = rows[indices[edge]]
                for h in range(num_heads):
                    dot = q.dtype.type(0)
                    grad_share = q.dtype.type(0)
                    for c in range(dim):
                        dot += q[i, h, c] * k[j, h, c]
                        grad_share += grad[i, h, c] * v[j, h, c]
                    share = np.exp(dot * scale[h] - log_total[i, h])
                    factor = share * (grad_share - delta[i, h]) * scale[h]
                    for c in range(dim):
                        grad_k[j, h, c] += factor * q[i, h, c]
                        grad_v[j, h, c] += share * grad[i, h, c]
