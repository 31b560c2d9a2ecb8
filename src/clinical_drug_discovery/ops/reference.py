"""The torch backend: edge-sized operations in torch, in chunks of edges, for any device.

The tests compare the CPU kernels with these operations.

Notation: M target rows of a block, N nodes of the graph, n nodes of one type, H heads of d
channels, P = H d.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from .blocks import Block, EdgeChunk

EDGE_CHUNK = 1 << 15  # edges per chunk: 32 MiB of messages with 256 float32 columns
_GROUP = 16  # chunks per group: 16 MiB of logits in memory with 8 float32 heads


def add_neighbors(
    messages: Tensor, block: Block, scale: Tensor, out: Tensor, chunk_size: int | None = None
) -> None:
    """Sum the messages of the source nodes of each target row, and scale the sum.

    out[i] = scale[i] * (sum of messages[j] over the sources j of row i).

    Args:
        messages: shape (N, at least C), one row per node.
        block: M target rows.
        scale: shape (M,).
        out: shape (M, C), zeros; changed in place.
        chunk_size: edges per chunk; peak extra memory is chunk_size * (2 C itemsize + 40) bytes.
    """
    graph = block.graph
    for r, (src_type, _) in enumerate(graph.endpoint_types):
        of_type = messages[slice(*graph.node_range(src_type)), : out.shape[1]]
        rows = out[block.rows_into(r)]
        for row, source, real in block.edges.chunks(r, chunk_size or EDGE_CHUNK):
            part = of_type.index_select(0, source).to(out.dtype)
            rows.index_add_(0, row, part if real is None else part.mul_(real[:, None]))
    out *= scale[:, None]


def add_neighbors_backward(
    messages: Tensor, block: Block, node_type: int, out: Tensor, chunk_size: int | None = None
) -> None:
    """Add to each node of a type the messages of the target rows that the node has edges to.

    Args:
        messages: shape (M, at least C), one row per target row.
        block: M target rows.
        node_type: the type, with n nodes.
        out: shape (n, C); changed in place.
        chunk_size: as in `add_neighbors`.
    """
    graph = block.graph
    for r, (src_type, _) in enumerate(graph.endpoint_types):
        if src_type != node_type:
            continue
        rows = messages[block.rows_into(r), : out.shape[1]]
        for row, source, real in block.edges.chunks(r, chunk_size or EDGE_CHUNK):
            part = rows.index_select(0, row).to(out.dtype)
            out.index_add_(0, source, part if real is None else part.mul_(real[:, None]))


def normalize(
    product: Tensor, bias: Tensor, eps: float, out: Tensor, result: Tensor, before: Tensor | None
) -> None:
    """Add the bias to a product, and normalize the sum; see `norm.normalize`."""
    if before is None:
        torch.add(product, bias, out=out)
        result.copy_(functional.layer_norm(out, out.shape[1:], eps=eps))
    else:
        out.add_(product).add_(bias).relu_()
        torch.add(before, functional.layer_norm(out, out.shape[1:], eps=eps), out=result)


def normalize_backward(
    grad: Tensor, x: Tensor, eps: float, relu: bool, scale: Tensor, packed: Tensor
) -> None:
    """Compute the gradient with respect to what was normalized; see `norm.normalize_backward`."""
    _, mean, inverse = torch.native_layer_norm(x, x.shape[1:], None, None, eps)
    through = _layer_norm_backward(grad, x, mean, inverse)
    if relu:
        # masked_fill_ of the same numbers takes 25 times as long.
        torch.ops.aten.threshold_backward.grad_input(through, x, 0, grad_input=x)
    else:
        x.copy_(through)
    packed[:, : x.shape[1]] = x * scale[:, None]


def mix_and_normalize(
    product: Tensor, bias: Tensor, gate: Tensor, own: Tensor, eps: float, out: Tensor, scale: Tensor
) -> None:
    """Mix rows with a product, and normalize the mixture; see `norm.mix_and_normalize`."""
    mixed = torch.lerp(own, product + bias, gate)
    normal, _, inverse = torch.native_layer_norm(mixed, mixed.shape[1:], None, None, eps)
    out.copy_(normal)
    scale.copy_(inverse)


def mix_and_normalize_backward(
    grad: Tensor, out: Tensor, scale: Tensor, own: Tensor, gate: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `mix_and_normalize`; see `norm.mix_and_normalize_backward`."""
    mean, one = torch.zeros_like(scale), torch.ones_like(scale)
    by_sum = _layer_norm_backward(grad, out, mean, one).mul_(scale)
    # The mixture is out / scale plus its mean. Each row of by_sum sums to 0, so the mean does not
    # matter: by_sum . (product + bias - own) = by_sum . (out / scale - own) / gate.
    by_gate = torch.div(out, scale).sub_(own).mul_(by_sum).sum(dim=1)
    return by_sum, (by_sum * gate).to(dtype), by_gate


def head_dots(a: Tensor, b: Tensor, num_heads: int) -> Tensor:
    """Return the dot product of a and b for each row and head; see `attention.head_dots`."""
    shape = (num_heads, a.shape[1] // num_heads)
    dots: Tensor = (a * b).unflatten(1, shape).sum(dim=-1)
    return dots


def map_heads(nodes: Tensor | slice, heads: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Multiply each head of some rows by the matrix of the head.

    Args:
        nodes: indices of the m rows: shape (m,), int64, ascending, or a range.
        heads: shape (n, P).
        matrix: shape (H, d, d), one matrix per head.
        out: shape (n, P); the products are written to out[nodes].
    """
    out[nodes] = _multiply(heads[nodes], matrix).to(out.dtype)


def map_heads_backward(
    nodes: Tensor | slice, heads: Tensor, matrix: Tensor, grad: Tensor, grad_heads: Tensor
) -> Tensor:
    """Compute the gradients of `map_heads`.

    Args:
        nodes: as in `map_heads`.
        heads: as in `map_heads`.
        matrix: as in `map_heads`.
        grad: shape (n, P), the gradient with respect to the products; only grad[nodes] is used.
        grad_heads: shape (n, P); the gradient with respect to `heads` is added.

    Returns:
        The gradient with respect to `matrix`, shape (H, d, d).
    """
    num_heads, dim = matrix.shape[:2]
    grad_out = grad[nodes].to(matrix.dtype)
    grad_heads[nodes] += _multiply(grad_out, matrix.transpose(1, 2))
    own = heads[nodes].to(matrix.dtype).view(-1, num_heads, dim)
    return torch.bmm(own.permute(1, 2, 0), grad_out.view(-1, num_heads, dim).transpose(0, 1))


def attend(
    block: Block,
    edge_type: int,
    q: Tensor,
    kv: Tensor,
    scale: Tensor,
    running_max: Tensor,
    denominator: Tensor,
    numerator: Tensor,
    chunk_size: int | None = None,
) -> None:
    """Add the edges of one type to the online softmax of each target row.

    "Online normalizer calculation for softmax" (arXiv:1805.02867), Alg. 3, extended by the weighted
    sum of values. The m target rows are those of the edge type's target type. After the last edge
    type, the result is numerator / denominator.

    Args:
        block: M target rows.
        edge_type: type of the edges.
        q: shape (m, P), queries.
        kv: shape (n, 2, P), keys and values of the source type, mapped by the edge type.
        scale: shape (H,), factors of the dot products.
        running_max: shape (m, H), the highest logit so far, -inf at first; changed in place.
        denominator: shape (m, H), sum of exp(logit - running_max) so far; changed in place.
        numerator: shape (m, P), sum of exp(logit - running_max) v so far; changed in place.
        chunk_size: edges per chunk; peak extra memory is about 3 * chunk_size * P values.
    """
    num_heads = len(scale)
    shape = (-1, num_heads, numerator.shape[1] // num_heads)
    for group in _groups(block.edges.chunks(edge_type, chunk_size or EDGE_CHUNK)):
        before, seen = running_max.clone(), []
        for row, source, real in group:
            product = q.index_select(0, row).to(scale.dtype).mul_(kv[:, 0].index_select(0, source))
            logits = product.view(shape).sum(dim=-1).mul_(scale)  # (chunk, H)
            if real is not None:
                logits.masked_fill_(~real[:, None], -torch.inf)
            running_max.scatter_reduce_(0, row[:, None].expand_as(logits), logits, "amax")
            seen.append((row, source, logits))
        # For a row without edges so far both maxima are -inf, and -inf - -inf is NaN.
        shrink = torch.where(running_max > before, torch.exp(before - running_max), 1.0)
        denominator.mul_(shrink)
        numerator.view(shape).mul_(shrink[..., None])
        for row, source, logits in seen:
            weight = logits.sub_(running_max[row]).exp_()
            denominator.index_add_(0, row, weight)
            value = kv[:, 1].index_select(0, source).to(scale.dtype)
            value.view(shape).mul_(weight[..., None])
            numerator.index_add_(0, row, value)


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
    """Compute the gradients of one edge type with respect to queries, keys, values and scale.

    The logits are computed again, as in "FlashAttention" (arXiv:2205.14135), Alg. 4.

    Args:
        block: M target rows.
        edge_type: type of the edges, which lead to m rows.
        qg: shape (m, 2, P), queries, and gradients with respect to the attention's result.
        kv: as in `attend`.
        scale: as in `attend`.
        log_total: shape (m, H), log-sum-exp of each row's logits over all edge types.
        delta: shape (m, H), the dot product of result and gradient for each row and head.
        grad_q: shape (m, P); the gradient with respect to the queries is added.
        grad_kv: shape (n, 2, P); overwritten by the gradient with respect to kv.
        chunk_size: edges per chunk; peak extra memory is about 7 * chunk_size * P values.

    Returns:
        The gradient with respect to scale, shape (H,).
    """
    num_heads, width = len(scale), grad_q.shape[1]
    shape = (-1, num_heads, width // num_heads)
    grad_scale = torch.zeros_like(scale)
    grad_kv.zero_()
    for row, source, real in block.edges.chunks(edge_type, chunk_size or EDGE_CHUNK):
        # To save memory, gradients later overwrite `of_row` and `of_source`.
        of_row = qg.index_select(0, row).to(scale.dtype).view(-1, 2, *shape[1:])
        of_source = kv.index_select(0, source).to(scale.dtype).view(-1, 2, *shape[1:])
        dots, grad_weight = (of_row * of_source).sum(dim=-1).unbind(dim=1)  # (chunk, H) each
        weight = torch.exp(dots * scale - log_total[row])
        if real is not None:
            weight.masked_fill_(~real[:, None], 0)
        grad_logit = weight * (grad_weight - delta[row])
        grad_scale += (grad_logit * dots).sum(dim=0)
        grad_dot = grad_logit * scale
        grad_query = of_source[:, 0].mul_(grad_dot[..., None])
        grad_q.index_add_(0, row, grad_query.reshape(-1, width))
        of_row.mul_(torch.stack([grad_dot, weight], dim=1)[..., None])
        grad_kv.index_add_(0, source, of_row.view(-1, 2, width).to(grad_kv.dtype))
    return grad_scale


def _layer_norm_backward(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient with respect to x, given the one with respect to the normalized rows."""
    grad_x: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, x, x.shape[1:], mean, scale, None, None, [True, False, False]
    )[0]
    return grad_x


def _groups(chunks: Iterable[EdgeChunk]) -> Iterator[list[EdgeChunk]]:
    left = iter(chunks)
    while group := list(islice(left, _GROUP)):
        yield group


def _multiply(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return each head of `rows` times the matrix of the head, shape (m, P)."""
    num_heads, dim = matrix.shape[:2]
    heads = rows.to(matrix.dtype).view(-1, num_heads, dim).transpose(0, 1)
    return torch.bmm(heads, matrix).transpose(0, 1).flatten(1)
