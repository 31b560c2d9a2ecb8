"""CPU kernels of the attention over one edge type.

Numba compiles the kernels on first use and caches them on disk. Each row is summed by one thread in
the order of the edges, so results do not depend on the number of threads. The key and value of a
node are adjacent in memory, and so are the query and gradient of a row: an edge reads one place.
These rows may be stored in bfloat16.

Notation: M target rows, n source nodes, H heads of d channels, P = H d. Padding makes d a multiple
of `LANES`. Kernels take flattened arrays of rows.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from ..blocks import Block
from .head_maps import head_dots, map_heads, map_heads_backward
from .kernel import kernel
from .neighbors import AHEAD, edges_of, flat, next_row, prefetch_row, prefetch_sources
from .ranges import NUM_PARTS, balanced_parts, pieces, tables
from .simd import (
    FAST,
    LANES,
    add,
    add_products,
    exp,
    fma,
    larger,
    load,
    load_splat,
    mul,
    narrow,
    prefetch,
    splat,
    store,
    store_totals,
    sub,
    total,
)

__all__ = ["attend", "attend_backward", "head_dots", "map_heads", "map_heads_backward"]

PIECE_EDGES = 1 << 18  #: edges per piece of a backward pass; bounds the size of `factors`
_EDGES = 8  # edges of a row per step; the intermediate results of a step stay in the L1 cache


def attend(
    block: Block,
    edge_type: int,
    q: Tensor,
    kv: Tensor,
    scale: Tensor,
    running_max: Tensor,
    denominator: Tensor,
    numerator: Tensor,
) -> None:
    """Do the same as `reference.attend`, without any edge-sized buffer."""
    graph, (src_type, dst_type) = block.graph, block.graph.endpoint_types[edge_type]
    nodes, indptr = block.nodes_of(dst_type).numpy(), graph.indptr_of(edge_type).numpy()
    degree = indptr[nodes + 1] - indptr[nodes]
    parts = balanced_parts(degree)
    first, last = graph.node_range(src_type)
    typical = block.typical_degree(degree, indptr)
    for low, high in tables(first, last, kv[0].nbytes, typical):
        _attend(
            parts, nodes, indptr, graph.src.numpy(), low, high, first, flat(q), q.stride(0),
            flat(kv), scale.numpy(), running_max.numpy(), denominator.numpy(), numerator.numpy(),
        )  # fmt: skip


def attend_backward(
    block: Block,
    edge_type: int,
    qg: Tensor,
    kv: Tensor,
    scale: Tensor,
    log_total: Tensor,
    delta: Tensor,
    grad_q: Tensor,
    grad_kv: Tensor,
) -> Tensor:
    """Do the same as `reference.attend_backward`, with a buffer for about `PIECE_EDGES` edges."""
    graph, (src_type, dst_type) = block.graph, block.graph.endpoint_types[edge_type]
    nodes, indptr = block.nodes_of(dst_type).numpy(), graph.indptr_of(edge_type).numpy()
    reverse_indptr = graph.indptr_of(graph.reverse_edge_type[edge_type]).numpy()
    src = graph.src.numpy()
    first_src, first_dst = graph.type_offsets[src_type], graph.type_offsets[dst_type]
    given = scale.numpy(), log_total.numpy(), delta.numpy(), grad_q.numpy()
    grad_scale = torch.zeros(NUM_PARTS, len(scale), dtype=scale.dtype)
    source_degree = np.diff(reverse_indptr)
    source_parts = balanced_parts(source_degree)
    cut = pieces(indptr, qg[0].nbytes, source_degree, PIECE_EDGES)
    most = max(int(indptr[stop] - indptr[start]) for start, stop in cut)
    # The kernels read the factors of the last edge in whole vectors, too.
    factors = flat(torch.empty(most * 2 * len(scale) + LANES, dtype=qg.dtype))
    for start, stop in cut:
        rows = slice(*np.searchsorted(nodes, (start, stop)))
        degree = indptr[nodes[rows] + 1] - indptr[nodes[rows]]
        parts = rows.start + balanced_parts(degree)
        for low, high in tables(*graph.node_range(src_type), kv[0].nbytes, degree):
            _backward_by_target(
                parts, nodes, indptr, src, low, high, first_src, indptr[start], flat(qg),
                flat(kv), *given, grad_scale.numpy(), factors,
            )  # fmt: skip
        _backward_by_source(
            source_parts, reverse_indptr, src, first_dst + start, first_dst + stop, start == 0,
            block.rows_of_nodes().numpy(), block.row_ptr[dst_type], graph.reverse_edges.numpy(),
            indptr[start], flat(qg), factors, scale.numpy(), flat(grad_kv), grad_q.shape[1],
        )  # fmt: skip
    return grad_scale.sum(dim=0)


@numba.njit(inline="always")
def _prefetch_target(  # type: ignore[no-untyped-def]  # numba infers its types
    edge, dst, row_of_node, first_row, reverse, first_edge, qg, factors, heads, width
):
    """Prefetch the row of an edge's target, and the factors of the reverse edge."""
    row = row_of_node[dst[edge]] - first_row
    if row >= 0:
        prefetch(factors, (reverse[edge] - first_edge) * 2 * heads)
        prefetch_row(qg, row * 2 * width, 2 * width)


@numba.njit(inline="always")
def _repeat(values, count, out):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write `count` copies of `values` to `out`, one after the other."""
    size = np.uint64(len(values))  # unsigned: saves the test for negative indices
    for i in range(np.uint64(count)):
        for j in range(size):
            out[i * size + j] = values[j]


@numba.njit(forceinline=True, fastmath=FAST)
def _dots(own, first, rows, at, out, place, num_heads, dim):  # type: ignore[no-untyped-def]  # numba infers its types
    """Write the dot product of two rows for each head to out[place : place + H]."""
    zero = splat(out.dtype.type(0))
    if num_heads % 4 == 0 and dim % (2 * LANES) == 0:
        for h in range(0, num_heads, 4):
            s0 = s1 = s2 = s3 = zero
            for c in range(h * dim, (h + 1) * dim, 2 * LANES):
                a, b = first + c, at + c
                s0 = add_products(own, a, rows, b, s0)
                s1 = add_products(own, a + dim, rows, b + dim, s1)
                s2 = add_products(own, a + 2 * dim, rows, b + 2 * dim, s2)
                s3 = add_products(own, a + 3 * dim, rows, b + 3 * dim, s3)
            store_totals(out, place + h, s0, s1, s2, s3)
    else:
        for h in range(num_heads):
            s0 = zero
            for c in range(h * dim, (h + 1) * dim, LANES):
                s0 = fma(load(own, first + c), load(rows, at + c), s0)
            out[place + h] = total(s0)


@numba.njit(forceinline=True, fastmath=FAST)
def _add_heads(count, factors, places, rows, starts, out, first, num_heads, dim):  # type: ignore[no-untyped-def]  # numba infers its types
    """Multiply each head of some rows by a factor, and add the rows to out[first:].

    Row e starts at rows[starts[e]]. Its H factors start at factors[places[e]]. Four rows are added
    at a time, so that the sum is read and written a quarter as often.
    """
    e = 0
    while e + 4 <= count:
        p0, p1, p2, p3 = places[e], places[e + 1], places[e + 2], places[e + 3]
        r0, r1, r2, r3 = starts[e], starts[e + 1], starts[e + 2], starts[e + 3]
        for h in range(num_heads):
            f0, f1 = load_splat(factors, p0 + h), load_splat(factors, p1 + h)
            f2, f3 = load_splat(factors, p2 + h), load_splat(factors, p3 + h)
            for c in range(h * dim, (h + 1) * dim, LANES):
                left = fma(f0, load(rows, r0 + c), load(out, first + c))
                right = fma(f2, load(rows, r2 + c), mul(f3, load(rows, r3 + c)))
                store(out, first + c, add(fma(f1, load(rows, r1 + c), left), right))
        e += 4
    while e < count:
        for h in range(num_heads):
            factor = load_splat(factors, places[e] + h)
            for c in range(h * dim, (h + 1) * dim, LANES):
                store(out, first + c, fma(factor, load(rows, starts[e] + c), load(out, first + c)))
        e += 1


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _attend(  # type: ignore[no-untyped-def]  # numba infers its types  # noqa: C901  # one loop nest, because a function call per edge is slow
    parts, nodes, indptr, src, low, high, first, q, stride, kv, scale, running_max, denominator,
    numerator,
):  # fmt: skip
    """Add the edges into each row to the online softmax of the row.

    Edges whose source is not in low:high are skipped. NaN in a logit makes NaN of the row's result,
    as in `reference.attend`.
    """
    num_heads, width = len(scale), numerator.shape[1]
    dim = width // num_heads
    wide = -(-num_heads // LANES) * LANES  # numbers per edge: one for each head, in whole vectors
    for part in numba.prange(len(parts) - 1):
        acc = np.empty(width, scale.dtype)
        logits = np.zeros(_EDGES * wide, scale.dtype)
        factor, highest, shrink, sums = np.zeros((4, wide), scale.dtype)
        factor[:num_heads] = scale
        starts = np.empty(_EDGES, np.int64)
        factor_at = np.arange(_EDGES) * wide
        last = parts[part + 1]
        row, begin, end = next_row(parts[part], last, nodes, indptr, src, low, high)
        while row < last:
            later, later_begin, later_end = next_row(row + 1, last, nodes, indptr, src, low, high)
            prefetch_sources(kv, src, later_begin, later_end, first, 2 * width)
            for c in range(width):
                acc[c] = numerator[row, c]
            for h in range(num_heads):
                highest[h] = running_max[row, h]
                sums[h] = denominator[row, h]
            for start in range(begin, end, _EDGES):
                count = min(_EDGES, end - start)
                for e in range(count):
                    if start + e + AHEAD < end:
                        coming = src[start + e + AHEAD] - first
                        prefetch_row(kv, coming * 2 * width, 2 * width)
                    key = (src[start + e] - first) * 2 * width
                    starts[e] = key + width
                    _dots(q, row * stride, kv, key, logits, e * wide, num_heads, dim)
                for h in range(0, wide, LANES):
                    before = load(highest, h)
                    top = before
                    for at in range(h, count * wide, wide):
                        logit = mul(load(logits, at), load(factor, h))
                        store(logits, at, logit)
                        top = larger(top, logit)
                    less = exp(sub(before, top))
                    total_weight = mul(load(sums, h), less)
                    for at in range(h, count * wide, wide):
                        weight = exp(sub(load(logits, at), top))
                        store(logits, at, weight)
                        total_weight = add(total_weight, weight)
                    store(shrink, h, less)
                    store(highest, h, top)
                    store(sums, h, total_weight)
                for h in range(num_heads):
                    less = load_splat(shrink, h)
                    for c in range(h * dim, (h + 1) * dim, LANES):
                        store(acc, c, mul(load(acc, c), less))
                _add_heads(count, logits, factor_at, kv, starts, acc, 0, num_heads, dim)
            for h in range(num_heads):
                running_max[row, h] = highest[h]
                denominator[row, h] = sums[h]
            for c in range(width):
                numerator[row, c] = acc[c]
            row, begin, end = later, later_begin, later_end


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _backward_by_target(  # type: ignore[no-untyped-def]  # numba infers its types  # noqa: C901  # see `_attend`
    parts, nodes, indptr, src, low, high, first, first_edge, qg, kv, scale, log_total, delta,
    grad_q, grad_scale, factors,
):  # fmt: skip
    """Add the gradients with respect to queries and scale; write factors for `_backward_by_source`.

    Each edge and head has two factors: gradient of key = factor 1 * query, and gradient of value =
    factor 2 * gradient of result. Factor 2 is the attention weight.
    """
    num_heads, width = len(scale), grad_q.shape[1]
    dim = width // num_heads
    size = -(-_EDGES * num_heads // LANES) * LANES
    for part in numba.prange(len(parts) - 1):
        acc = np.empty(width, scale.dtype)
        dots, grad_weight, grad_factor = np.zeros((3, size + LANES), scale.dtype)
        kept = np.empty(2 * _EDGES * num_heads + LANES, scale.dtype)
        # Scale, log_total and delta of all heads, once per edge of a step, because a vector holds
        # the heads of several edges.
        factor, log_totals, deltas = np.zeros((3, size), scale.dtype)
        _repeat(scale, _EDGES, factor)
        zero = splat(scale.dtype.type(0))
        starts = np.empty(_EDGES, np.int64)
        factor_at = np.arange(_EDGES) * num_heads
        last = parts[part + 1]
        row, begin, end = next_row(parts[part], last, nodes, indptr, src, low, high)
        while row < last:
            later, later_begin, later_end = next_row(row + 1, last, nodes, indptr, src, low, high)
            prefetch_sources(kv, src, later_begin, later_end, first, 2 * width)
            own = row * 2 * width
            _repeat(log_total[row], min(end - begin, _EDGES), log_totals)
            _repeat(delta[row], min(end - begin, _EDGES), deltas)
            for c in range(0, width, LANES):
                store(acc, c, zero)
            for start in range(begin, end, _EDGES):
                count = min(_EDGES, end - start)
                for e in range(count):
                    if start + e + AHEAD < end:
                        coming = src[start + e + AHEAD] - first
                        prefetch_row(kv, coming * 2 * width, 2 * width)
                    key = (src[start + e] - first) * 2 * width
                    starts[e] = key
                    _dots(qg, own, kv, key, dots, e * num_heads, num_heads, dim)
                    at = e * num_heads
                    _dots(qg, own + width, kv, key + width, grad_weight, at, num_heads, dim)
                if count < _EDGES:  # the rest of the last vector adds nothing to grad_factor
                    store(dots, count * num_heads, zero)
                for i in range(0, count * num_heads, LANES):
                    dot, scaling = load(dots, i), load(factor, i)
                    logit = fma(dot, scaling, sub(zero, load(log_totals, i)))
                    weight = exp(sub(zero, larger(zero, sub(zero, logit))))
                    grad_logit = mul(weight, sub(load(grad_weight, i), load(deltas, i)))
                    store(grad_factor, i, fma(grad_logit, dot, load(grad_factor, i)))
                    store(dots, i, mul(grad_logit, scaling))
                    store(grad_weight, i, weight)
                _add_heads(count, dots, factor_at, kv, starts, acc, 0, num_heads, dim)
                # A vector may write numbers of the next places as well. They are written again.
                for e in range(count):
                    for h in range(0, num_heads, LANES):
                        store(kept, 2 * e * num_heads + h, load(dots, e * num_heads + h))
                    for h in range(0, num_heads, LANES):
                        at = e * num_heads + h
                        store(kept, (2 * e + 1) * num_heads + h, load(grad_weight, at))
                many = count * 2 * num_heads
                at = (start - first_edge) * 2 * num_heads
                whole = many // LANES * LANES
                for i in range(0, whole, LANES):
                    store(factors, at + i, load(kept, i))
                for i in range(np.uint64(whole), np.uint64(many)):
                    factors[np.uint64(at) + i] = narrow(kept[i], factors)
            for c in range(width):
                grad_q[row, c] += acc[c]
            row, begin, end = later, later_begin, later_end
        for i in range(_EDGES * num_heads):
            grad_scale[part, i % num_heads] += grad_factor[i]


@kernel(parallel=True, nogil=True, fastmath=FAST)
def _backward_by_source(  # type: ignore[no-untyped-def]  # numba infers its types  # noqa: C901  # see `_attend`
    parts, indptr, dst, low, high, fresh, row_of_node, first_row, reverse, first_edge, qg,
    factors, scale, grad_kv, width,
):  # fmt: skip
    """Add the gradients with respect to keys and values, for source nodes that have edges.

    `row_of_node` holds the row of each target, or a negative number if the block does not have it.
    With `fresh`, the gradients overwrite `grad_kv` instead.
    """
    num_heads = len(scale)
    dim = width // num_heads
    wide = -(-2 * num_heads // LANES) * LANES
    zero = scale.dtype.type(0)
    for part in numba.prange(len(parts) - 1):
        acc = np.empty(2 * width, scale.dtype)
        starts = np.empty(_EDGES, np.int64)
        widened = np.empty(_EDGES * wide, scale.dtype)  # the factors of a step
        key_at = np.arange(_EDGES) * wide
        value_at = key_at + num_heads
        last = parts[part + 1]
        begin, end = edges_of(parts[part], last, indptr, dst, low, high)
        for j in range(parts[part], last):
            later_begin, later_end = edges_of(j + 1, last, indptr, dst, low, high)
            for edge in range(later_begin, min(later_begin + AHEAD, later_end)):
                _prefetch_target(
                    edge, dst, row_of_node, first_row, reverse, first_edge, qg, factors, num_heads,
                    width,
                )  # fmt: skip
            if begin < end or (fresh and indptr[j] < indptr[j + 1]):
                for c in range(0, 2 * width, LANES):
                    store(acc, c, splat(zero) if fresh else load(grad_kv, j * 2 * width + c))
                edge = begin
                while edge < end:
                    count = 0
                    while edge < end and count < _EDGES:
                        if edge + AHEAD < end:
                            _prefetch_target(
                                edge + AHEAD, dst, row_of_node, first_row, reverse, first_edge, qg,
                                factors, num_heads, width,
                            )  # fmt: skip
                        row = row_of_node[dst[edge]] - first_row
                        if row >= 0:
                            starts[count] = row * 2 * width
                            at = (reverse[edge] - first_edge) * 2 * num_heads
                            for h in range(0, 2 * num_heads, LANES):
                                store(widened, count * wide + h, load(factors, at + h))
                            count += 1
                        edge += 1
                    _add_heads(count, widened, key_at, qg, starts, acc, 0, num_heads, dim)
                    for e in range(count):
                        starts[e] += width
                    _add_heads(count, widened, value_at, qg, starts, acc, width, num_heads, dim)
                for c in range(0, 2 * width, LANES):
                    store(grad_kv, j * 2 * width + c, load(acc, c))
            begin, end = later_begin, later_end
