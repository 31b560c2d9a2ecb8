"""Edge-sized operations in plain torch, in chunks of edges, for any device.

Notation: M target rows of a block, N nodes of the graph, n of one node type, H heads of d channels,
P = H d.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clinical_drug_discovery.blocks import Block

TRIPLE_CHUNK = 1 << 14
EDGE_CHUNK = 1 << 16  # with 256 float32 columns a chunk of messages is 64 MiB


def add_neighbors(
    messages: Tensor, block: Block, scale: Tensor, out: Tensor, chunk_size: int | None = None
) -> None:
    """Add to each row the messages of its sources, scaled.

    out[i] += scale[i] * sum over sources j of row i of messages[j].

    Args:
        messages: shape (N, at least C), of the graph's nodes.
        block: M target rows.
        scale: shape (M,).
        out: shape (M, C); changed in place.
        chunk_size: edges at a time; peak extra memory is chunk_size (2 C itemsize + 24) bytes.
    """
    for r, (src_type, dst_type) in enumerate(block.graph.ends):
        for place, sources in _edges(block, r, chunk_size):
            rows = place + block.row_ptr[dst_type]
            part = messages[sources + block.graph.bounds[src_type], : out.shape[1]]
            out.index_add_(0, rows, part.to(out.dtype) * scale[rows, None])


def add_neighbors_backward(
    messages: Tensor,
    block: Block,
    place: Tensor,
    node_type: int,
    out: Tensor,
    chunk_size: int | None = None,
) -> None:
    """Add to each node of a type the messages of its targets among a block's rows.

    Args:
        messages: shape (M, at least C), of the block's rows.
        block: M target rows.
        place: which row a node is; not needed by this path.
        node_type: of n nodes.
        out: shape (n, C); changed in place.
        chunk_size: as in `add_neighbors`.
    """
    del place
    for r, (src_type, dst_type) in enumerate(block.graph.ends):
        if src_type == node_type:
            for rows, sources in _edges(block, r, chunk_size):
                part = messages[rows + block.row_ptr[dst_type], : out.shape[1]]
                out.index_add_(0, sources, part.to(out.dtype))


def score(z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
    """Scores of triples; see `scores.score_triples`. Chunks of `TRIPLE_CHUNK` triples."""
    chunks = zip(*(part.split(TRIPLE_CHUNK) for part in (src, relation, dst)), strict=True)
    return torch.cat([(z[x] * weight[r] * z[y]).sum(dim=1) for x, r, y in chunks])


def score_backward(
    grad: Tensor, z: Tensor, weight: Tensor, src: Tensor, relation: Tensor, dst: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `score` by z and weight from that by the scores, shape (B,)."""
    grad_z, grad_weight = torch.zeros_like(z), torch.zeros_like(weight)
    parts = (part.split(TRIPLE_CHUNK) for part in (grad, src, relation, dst))
    for by_score, x, r, y in zip(*parts, strict=True):
        by_product = by_score[:, None] * weight[r]
        grad_z.index_add_(0, x, by_product * z[y])
        grad_z.index_add_(0, y, by_product * z[x])
        grad_weight.index_add_(0, r, by_score[:, None] * z[x] * z[y])
    return grad_z, grad_weight


def map_heads(nodes: Tensor, heads: Tensor, matrix: Tensor, out: Tensor, part: int) -> None:
    """Multiply each head of some rows by its matrix.

    Args:
        nodes: which rows, shape (m,), int64.
        heads: shape (n, P).
        matrix: shape (H, d, d).
        out: shape (n, 2, P); out[nodes, part] takes the products.
        part: 0 or 1.
    """
    out[nodes, part] = _multiply(heads[nodes], matrix).to(out.dtype)


def map_heads_backward(
    nodes: Tensor, heads: Tensor, matrix: Tensor, grad: Tensor, part: int, grad_heads: Tensor
) -> Tensor:
    """Gradients of `map_heads`.

    Args:
        nodes: as in `map_heads`.
        heads: as in `map_heads`.
        matrix: as in `map_heads`.
        grad: shape (n, 2, P), by the products; of interest are grad[nodes, part].
        part: 0 or 1.
        grad_heads: shape (n, P); the gradient by `heads` is added.

    Returns:
        The gradient by `matrix`, shape (H, d, d).
    """
    num_heads, dim = matrix.shape[:2]
    by_product = grad[nodes, part]
    grad_heads.index_add_(0, nodes, _multiply(by_product, matrix.transpose(1, 2)))
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
) -> None:
    """Add the edges of one type to a running softmax over all edges of each row (online softmax).

    "Online normalizer calculation for softmax" (arXiv:1805.02867), Alg. 3, with the weighted sum
    carried along. After the last edge type, weighted / sums is the attention's result.

    Args:
        block: M rows, of which m of the edge type's target type.
        edge_type: which edges.
        q: shape (m, P), queries.
        kv: shape (n, 2, P), keys and values of the source type, mapped by the edge type.
        scale: shape (H,), what the dot products are multiplied by.
        highest: shape (m, H), highest logit so far, -inf at first; changed in place.
        sums: shape (m, H), sum of exp(logit - highest) so far; changed in place.
        weighted: shape (m, P), sum of exp(logit - highest) v so far; changed in place.
        chunk_size: edges at a time; peak extra memory is about 4 chunk_size P values.
    """
    shape = (-1, len(scale), weighted.shape[1] // len(scale))
    for row, source in _edges(block, edge_type, chunk_size):
        key, value = (kv[source, part].to(scale.dtype).view(shape) for part in (0, 1))
        logits = (q[row].to(scale.dtype).view(shape) * key).sum(dim=-1) * scale  # (chunk, H)
        index = row[:, None].expand_as(logits)
        top = highest.scatter_reduce(0, index, logits, "amax", include_self=True)
        # A row without edges so far has nothing to shrink, and -inf - -inf is no number.
        shrink = torch.where(top > highest, torch.exp(highest - top), torch.ones_like(top))
        share = torch.exp(logits - top[row])
        sums.mul_(shrink).index_add_(0, row, share)
        running = weighted.view(shape).mul_(shrink[..., None])
        running.index_add_(0, row, share[..., None] * value)
        highest.copy_(top)


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
) -> Tensor:
    """Gradients of the attention by one edge type's queries, keys, values and scale.

    The logits are computed again, as in "FlashAttention" (arXiv:2205.14135), Alg. 4.

    Args:
        block: M rows, of which m of the edge type's target type.
        edge_type: which edges.
        qg: shape (m, 2, P), queries and gradients by the attention's result.
        kv: as in `attend`.
        scale: as in `attend`.
        log_total: shape (m, H), log-sum-exp of each row's logits over all edge types.
        delta: shape (m, H), sum of gradient times result over d.
        grad_q: shape (m, P); the gradient by the queries is added in place.
        grad_kv: shape (n, 2, P); the rows of nodes with edges are overwritten by the gradient.
        chunk_size: edges at a time; peak extra memory is about 6 chunk_size P values.

    Returns:
        The gradient by scale, shape (H,).
    """
    shape = (-1, len(scale), grad_q.shape[1] // len(scale))
    grad_scale = torch.zeros_like(scale)
    grad_kv.zero_()
    by_key, by_value = (grad_kv[:, part].unflatten(-1, shape[1:]) for part in (0, 1))
    for row, source in _edges(block, edge_type, chunk_size):
        query, grad = (qg[row, part].to(scale.dtype).view(shape) for part in (0, 1))
        key, value = (kv[source, part].to(scale.dtype).view(shape) for part in (0, 1))
        dots = (query * key).sum(dim=-1)  # (chunk, H)
        share = torch.exp(dots * scale - log_total[row])
        by_logit = share * ((grad * value).sum(dim=-1) - delta[row])
        grad_scale += (by_logit * dots).sum(dim=0)
        factor = (by_logit * scale)[..., None]
        grad_q.view(shape).index_add_(0, row, factor * key)
        by_key.index_add_(0, source, factor * query)
        by_value.index_add_(0, source, share[..., None] * grad)
    return grad_scale


def _multiply(rows: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each head by its matrix: shape (m, P)."""
    num_heads, dim = matrix.shape[:2]
    heads = rows.to(matrix.dtype).view(-1, num_heads, dim)
    return torch.bmm(heads.transpose(0, 1), matrix).transpose(0, 1).reshape(len(rows), -1)


def _edges(block: Block, edge_type: int, chunk_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and source of every edge of a type, numbered within their node types."""
    graph, (src_type, dst_type) = block.graph, block.graph.ends[edge_type]
    size = chunk_size or EDGE_CHUNK
    nodes, indptr = block.nodes_of(dst_type), graph.indptr_of(edge_type)
    ends = (indptr[nodes + 1] - indptr[nodes]).cumsum(0)
    before = indptr[nodes + 1] - ends  # what to add to a place among the rows' edges
    num_edges = int(ends[-1]) if len(nodes) else 0
    for start in range(0, num_edges, size):
        places = torch.arange(start, min(start + size, num_edges), device=graph.device)
        rows = torch.bucketize(places, ends, right=True)
        yield rows, graph.src[places + before[rows]].long() - graph.bounds[src_type]
