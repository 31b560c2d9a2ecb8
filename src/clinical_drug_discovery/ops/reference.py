"""Edge-sized operations in plain torch, in chunks of edges, for any device.

Notation: M target rows of a block, N nodes of the graph, n of one node type, H heads of d channels,
P = H d.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from clinical_drug_discovery.ops.backend import uses_bfloat16, windows
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.edge_chunks import EDGE_CHUNK, EdgeChunk

_GROUP = 16  # chunks of edges whose logits are kept together: 16 MiB of them


def add_neighbors(
    messages: Tensor, block: Block, out: Tensor, chunk_size: int | None = None
) -> None:
    """Add to each row the messages of its sources: unscaled, which costs less once for each row.

    out[i] += sum over sources j of row i of messages[j].

    Args:
        messages: shape (N, at least C), of the graph's nodes.
        block: M target rows.
        out: shape (M, C); changed in place.
        chunk_size: edges at a time; peak extra memory is chunk_size (2 C itemsize + 40) bytes.
    """
    edges, types = block.edges, range(len(block.graph.endpoint_types))
    for some in [types] if edges.joined else [range(r, r + 1) for r in types]:
        for row, source, real in edges.chunks(some, chunk_size or edges.size(EDGE_CHUNK)):
            part = messages[source, : out.shape[1]].to(out.dtype)
            out.index_add_(0, row, part if real is None else part.mul_(real[:, None]))


def add_neighbors_backward(
    messages: Tensor,
    block: Block,
    place: Tensor,
    node_type: int,
    out: Tensor,
    chunk_size: int | None = None,
    *,
    first_node: int | None = None,
) -> None:
    """Add to each node of a type the messages of its targets among a block's rows.

    Args:
        messages: shape (M, at least C), of the block's rows.
        block: M target rows.
        place: which row a node is; not needed by this path.
        node_type: of n nodes.
        out: shape (at least n, C); changed in place.
        chunk_size: as in `add_neighbors`.
        first_node: of the graph, that the first row of out is of; the type's first if None.
    """
    del place
    edges, graph = block.edges, block.graph
    of_type = [r for r, (src_type, _) in enumerate(graph.endpoint_types) if src_type == node_type]
    if not of_type:
        return
    first_node = graph.type_offsets[node_type] if first_node is None else first_node
    some = range(of_type[0], of_type[-1] + 1)  # edge types are sorted by their source type
    size = chunk_size or edges.size(EDGE_CHUNK)
    for row, source, real in edges.chunks(some, size, first_node=first_node):
        part = messages[row, : out.shape[1]].to(out.dtype)
        out.index_add_(0, source, part if real is None else part.mul_(real[:, None]))


def map_heads(nodes: Tensor, heads: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Multiply each head of some rows by its matrix.

    Args:
        nodes: which rows, shape (m,), int64, ascending; the last one may be repeated.
        heads: shape (n, P).
        matrix: shape (H, d, d).
        out: shape (n, P); out[nodes] takes the products.
    """
    out[nodes] = _multiply(heads[nodes], matrix).to(out.dtype)


def map_heads_backward(
    nodes: Tensor, heads: Tensor, matrix: Tensor, grad: Tensor, grad_heads: Tensor
) -> Tensor:
    """Gradients of `map_heads`.

    Args:
        nodes: as in `map_heads`.
        heads: as in `map_heads`.
        matrix: as in `map_heads`.
        grad: shape (n, P), by the products; of interest are grad[nodes].
        grad_heads: shape (n, P); the gradient by `heads` is added.

    Returns:
        The gradient by `matrix`, shape (H, d, d).
    """
    num_heads, dim = matrix.shape[:2]
    by_product = grad[nodes]
    # Not index_add_: repeated nodes are written the same sum.
    grad_heads[nodes] = grad_heads[nodes] + _multiply(by_product, matrix.transpose(1, 2))
    repeated = torch.zeros_like(nodes, dtype=torch.bool)
    repeated[1:] = nodes[1:] == nodes[:-1]
    by_product = by_product.masked_fill_(repeated[:, None], 0).to(_multiplied_in(matrix))
    own = heads[nodes].to(by_product.dtype).view(-1, num_heads, dim)
    return torch.bmm(own.permute(1, 2, 0), by_product.view(-1, num_heads, dim).transpose(0, 1))


def attend(
    block: Block,
    edge_type: int,
    q: Tensor,
    kv: Tensor,
    scale: Tensor,
    highest: Tensor,
    sums: Tensor,
    weighted: Tensor,
    chunk_size: int | None = None,
    *,
    first_node: int | None = None,
) -> None:
    """Add the edges of one type to a running softmax over all edges of each row (online softmax).

    "Online normalizer calculation for softmax" (arXiv:1805.02867), Alg. 3, with the weighted sum
    carried along, a group of chunks of edges at a time. After the last edge type, weighted / sums
    is the attention's result. Rows are those of the edge type's target type, m of the block's M, or
    all M of them: q, highest, sums and weighted alike.

    Args:
        block: M rows.
        edge_type: which edges.
        q: shape (m or M, P), queries.
        kv: shape (at least n, 2, P), keys and values of the source type, mapped by the edge type.
        scale: shape (H,), what the dot products are multiplied by.
        highest: shape (m or M, H), highest logit so far, -inf at first; changed in place.
        sums: shape (m or M, H), sum of exp(logit - highest) so far; changed in place.
        weighted: shape (m or M, P), sum of exp(logit - highest) v so far; changed in place.
        chunk_size: edges at a time; peak extra memory is about 3 chunk_size P values.
        first_node: of the graph, that the first row of kv is of; the source type's first if None.
    """
    num_heads = len(scale)
    shape = (-1, num_heads, weighted.shape[1] // num_heads)
    mine = _rows_of(block, edge_type, len(q))
    for group in _groups(_chunks(block, edge_type, len(q), chunk_size, first_node)):
        before, seen = highest.clone(), []
        for row, source, real in group:
            product = q[row].to(scale.dtype).mul_(kv[source, 0])
            logits = product.view(shape).sum(dim=-1).mul_(scale)  # (chunk, H)
            if real is not None:
                logits.masked_fill_(~real[:, None], -torch.inf)
            highest.scatter_reduce_(0, row[:, None].expand_as(logits), logits, "amax")
            seen.append((row, source, logits))
        # A row without edges so far has nothing to shrink, and -inf - -inf is no number.
        shrink = torch.where(highest > before, torch.exp(before - highest), 1.0)
        sums.mul_(shrink)
        for window in windows(weighted, mine.start, mine.stop):
            shares = window.only(shrink[window.rows], 1.0)
            weighted[window.rows].view(shape).mul_(shares[..., None])
        for row, source, logits in seen:
            share = logits.sub_(highest[row]).exp_()
            sums.index_add_(0, row, share)
            value = kv[source, 1].to(scale.dtype)
            value.view(shape).mul_(share[..., None])
            weighted.index_add_(0, row, value)


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
    chunk_size: int | None = None,
    *,
    first_node: int | None = None,
) -> Tensor:
    """Gradients of the attention by one edge type's queries, keys, values and scale.

    The logits are computed again, as in "FlashAttention" (arXiv:2205.14135), Alg. 4. Rows as in
    `attend`.

    Args:
        block: M rows.
        edge_type: which edges.
        qg: shape (m or M, 2, P), queries and gradients by the attention's result.
        kv: as in `attend`.
        scale: as in `attend`.
        log_total: shape (m or M, H), log-sum-exp of each row's logits over all edge types.
        delta: shape (m or M, H), sum of gradient times result over d.
        grad_q: shape (m or M, P); the gradient by the queries is added in place.
        grad_kv: shape (at least n, 2, P); overwritten by the gradient by kv.
        chunk_size: edges at a time; peak extra memory is about 7 chunk_size P values.
        first_node: as in `attend`.

    Returns:
        The gradient by scale, shape (H,).
    """
    num_heads, width = len(scale), grad_q.shape[1]
    shape = (-1, num_heads, width // num_heads)
    grad_scale = torch.zeros_like(scale)
    grad_kv.zero_()
    for row, source, real in _chunks(block, edge_type, len(qg), chunk_size, first_node):
        # Each gathered and, once used, overwritten by what is to be added.
        given = qg[row].to(scale.dtype).view(-1, 2, *shape[1:])
        wanted = kv[source].to(scale.dtype).view(-1, 2, *shape[1:])
        dots, by_share = (given * wanted).sum(dim=-1).unbind(dim=1)  # (chunk, H) each
        share = torch.exp(dots * scale - log_total[row])
        if real is not None:
            share.masked_fill_(~real[:, None], 0)
        by_logit = share * (by_share - delta[row])
        grad_scale += (by_logit * dots).sum(dim=0)
        by_dot = by_logit * scale
        by_query = wanted[:, 0].mul_(by_dot[..., None])
        grad_q.index_add_(0, row, by_query.reshape(-1, width))
        given.mul_(torch.stack([by_dot, share], dim=1)[..., None])
        grad_kv.index_add_(0, source, given.view(-1, 2, width).to(grad_kv.dtype))
    return grad_scale


def _rows_of(block: Block, edge_type: int, num_rows: int) -> slice:
    """Which of so many rows are those of the edge type's target type."""
    first, last = (
        block.row_ptr[(dst := block.graph.endpoint_types[edge_type][1])],
        block.row_ptr[dst + 1],
    )
    return slice(first, last) if num_rows == block.num_rows else slice(0, last - first)


def _chunks(
    block: Block, edge_type: int, num_rows: int, chunk_size: int | None, first_node: int | None
) -> Iterator[EdgeChunk]:
    """The edges of a type, with rows among `_rows_of`, and sources from a node on."""
    src_type, dst_type = block.graph.endpoint_types[edge_type]
    return block.edges.chunks(
        range(edge_type, edge_type + 1),
        chunk_size or block.edges.size(EDGE_CHUNK),
        block.row_ptr[dst_type] - _rows_of(block, edge_type, num_rows).start,
        block.graph.type_offsets[src_type] if first_node is None else first_node,
    )


def _groups(chunks: Iterator[EdgeChunk]) -> Iterator[list[EdgeChunk]]:
    while group := list(islice(chunks, _GROUP)):
        yield group


def _multiply(rows: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each head by its matrix: shape (m, P)."""
    num_heads, dim = matrix.shape[:2]
    dtype = _multiplied_in(matrix)
    heads = rows.to(dtype).view(-1, num_heads, dim).transpose(0, 1)
    return torch.bmm(heads, matrix.to(dtype)).transpose(0, 1).reshape(len(rows), -1)


def _multiplied_in(matrix: Tensor) -> torch.dtype:
    """As `precision.product_dtype`, but beside the kernels, whose oracle this is, nothing less."""
    half = matrix.dtype == torch.float32 and uses_bfloat16(matrix.device)
    return torch.bfloat16 if half else matrix.dtype
