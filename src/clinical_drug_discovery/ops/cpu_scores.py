"""Scores of triples as CPU kernels, compiled by numba on first use and cached on disk.

Notation: B triples, M rows of D numbers, R relations.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.ops.buffers import zeros
from clinical_drug_discovery.ops.cpu import balanced_parts
from clinical_drug_discovery.ops.simd import (
    FAST,
    LANES,
    fma,
    load,
    load_splat,
    mul,
    splat,
    store,
    total,
)

_PARTS = 64  # not by the number of threads: sums are made by part, and must not depend on it


def score(z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
    """The same as `reference.score`, without any buffer of the triples times the dimension."""
    out = torch.empty(len(src), dtype=z.dtype)
    _score(
        z.shape[1], z.view(-1).numpy(), weight.view(-1).numpy(), src.numpy(), relation.numpy(),
        dst.numpy(), out.numpy(),
    )  # fmt: skip
    return out


def score_backward(
    grad: Tensor, z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor
) -> tuple[Tensor, Tensor]:
    """The same as `reference.score_backward`, by row, so that no two threads collide."""
    grad_z, num_triples = zeros(z, *z.shape), len(src)
    ends = torch.cat([src, dst])
    order = ends.argsort(stable=True).numpy()
    indptr = np.zeros(len(z) + 1, np.int64)
    np.cumsum(torch.bincount(ends, minlength=len(z)).numpy(), out=indptr[1:])
    dim = z.shape[1]
    given = z.view(-1).numpy(), src.numpy(), relation.numpy(), dst.numpy(), grad.numpy()
    _backward_by_row(
        balanced_parts(np.diff(indptr)), dim, indptr, order, num_triples, *given,
        weight.view(-1).numpy(), grad_z.view(-1).numpy(),
    )  # fmt: skip
    by_part = torch.zeros(_PARTS, *weight.shape, dtype=z.dtype)
    _backward_by_relation(dim, *given, by_part.view(_PARTS, -1).numpy())
    return grad_z, by_part.sum(dim=0)


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _score(dim, z, weight, src, relation, dst, out):  # type: ignore[no-untyped-def]  # numba infers its types
    count, whole = len(src), dim // LANES * LANES
    for part in numba.prange(_PARTS):
        for b in range(part * count // _PARTS, (part + 1) * count // _PARTS):
            x, w, y = src[b] * dim, relation[b] * dim, dst[b] * dim
            acc = splat(out.dtype.type(0))
            for c in range(0, whole, LANES):
                acc = fma(mul(load(z, x + c), load(z, y + c)), load(weight, w + c), acc)
            rest = total(acc)
            for c in range(whole, dim):
                rest += z[x + c] * weight[w + c] * z[y + c]
            out[b] = rest


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _backward_by_row(  # type: ignore[no-untyped-def]  # numba infers its types
    parts, dim, indptr, order, num_triples, z, src, relation, dst, grad, weight, grad_z
):
    whole = dim // LANES * LANES
    for part in numba.prange(len(parts) - 1):
        for row in range(parts[part], parts[part + 1]):
            own = row * dim
            for i in range(indptr[row], indptr[row + 1]):
                b = order[i]
                if b < num_triples:  # the row is the triple's source
                    other = dst[b] * dim
                else:
                    b -= num_triples
                    other = src[b] * dim
                w = relation[b] * dim
                factor = load_splat(grad, b)
                for c in range(0, whole, LANES):
                    by = mul(factor, load(weight, w + c))
                    store(grad_z, own + c, fma(by, load(z, other + c), load(grad_z, own + c)))
                for c in range(whole, dim):
                    grad_z[own + c] += grad[b] * weight[w + c] * z[other + c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath=FAST)
def _backward_by_relation(dim, z, src, relation, dst, grad, by_part):  # type: ignore[no-untyped-def]  # numba infers its types
    count, whole = len(src), dim // LANES * LANES
    for part in numba.prange(_PARTS):
        sums = by_part[part]
        for b in range(part * count // _PARTS, (part + 1) * count // _PARTS):
            x, w, y = src[b] * dim, relation[b] * dim, dst[b] * dim
            factor = load_splat(grad, b)
            for c in range(0, whole, LANES):
                product = mul(load(z, x + c), load(z, y + c))
                store(sums, w + c, fma(factor, product, load(sums, w + c)))
            for c in range(whole, dim):
                sums[w + c] += grad[b] * z[x + c] * z[y + c]
