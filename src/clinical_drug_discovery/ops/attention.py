"""HGT's attention over all edge types at once, streamed: exact, without any edge-sized buffer.

Notation: N nodes, M target rows, T node types, R edge types, H heads of d channels, C = H d.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.blocks import own_rows
from clinical_drug_discovery.ops import cpu_attention, reference
from clinical_drug_discovery.runtime import check_shape
from clinical_drug_discovery.typed_blocks import TypedBlock


def heterogeneous_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    attention: Tensor,
    message: Tensor,
    prior: Tensor,
    block: TypedBlock,
) -> Tensor:
    """Mutual attention and message passing over typed edges.

    "Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 3 and 4 and the sum of eq. 2: for an
    edge of type r from j to i, logit = q_i (k_j A_r) prior_r / sqrt(d); softmax over ALL incoming
    edges of i across edge types; result = sum of its shares times v_j M_r; 0 without edges.

    The edge types are streamed, grouped by their source type, with a running maximum and sum per
    row and head. Kept for the backward pass are x, the result and the log-sum-exp: 4 (M C + M H)
    bytes beside x. Peak beside these, with n the nodes of the largest source type: forward
    4 (2 M C + 2 M H + 4 n C) bytes, backward 4 (N C + 3 M C + M H + 8 n C), plus one chunk of
    edges where `reference` runs.

    Args:
        x: shape (N, C), the nodes in order of their types.
        weight: shape (T, 3 C, C), maps of each node type to keys, queries and values.
        bias: shape (T, 3 C).
        attention: shape (R, H, d, d), A of each edge type and head.
        message: shape (R, H, d, d), M of each edge type and head.
        prior: shape (R, H).
        block: M target rows.

    Returns:
        shape (M, C).
    """
    num_heads, dim = attention.shape[1:3]
    check_shape("x", x, block.type_ptr[-1], num_heads * dim)
    check_shape("prior", prior, len(block.edges), num_heads)
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
        x, weight, bias, attention, message, prior, block
    )
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        attention: Tensor,
        message: Tensor,
        prior: Tensor,
        block: TypedBlock,
    ) -> Tensor:
        num_heads, dim = attention.shape[1:3]
        q = _queries(x, weight, bias, block).view(-1, num_heads, dim)
        highest = q.new_full((block.num_rows, num_heads), -torch.inf)
        total = torch.zeros_like(highest)
        out = torch.zeros_like(q)
        for src_type, edge_types in _by_source_type(block):
            k, v = _keys_and_values(x, weight, bias, block, src_type, num_heads)
            for r in edge_types:
                rows = _rows(block, r)
                _backend(x).attend(
                    block.edges[r].by_target, q[rows], _map(k, attention[r]), _map(v, message[r]),
                    prior[r] / dim**0.5, highest[rows], total[rows], out[rows],
                )  # fmt: skip
        out /= total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
        ctx.save_for_backward(x, weight, bias, attention, message, prior, out)
        ctx.block, ctx.log_total = block, total.log_().add_(highest)
        return out.view(-1, num_heads * dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, attention, message, prior, out = ctx.saved_tensors
        block: TypedBlock = ctx.block
        num_heads, dim = attention.shape[1:3]
        grad = grad.contiguous().view_as(out)
        delta = (grad * out).sum(dim=-1)  # (M, H)
        q = _queries(x, weight, bias, block).view_as(out)
        grad_q = torch.zeros_like(q)
        grad_x = torch.zeros_like(x)
        grads = [torch.zeros_like(p) for p in (weight, bias, attention, message, prior)]
        grad_weight, grad_bias, grad_attention, grad_message, grad_prior = grads
        width = num_heads * dim
        for src_type, edge_types in _by_source_type(block):
            k, v = _keys_and_values(x, weight, bias, block, src_type, num_heads)
            grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
            for r in edge_types:
                edges, rows = block.edges[r], _rows(block, r)
                if edges.by_source is None:
                    raise RuntimeError("a range_block has no backward pass")
                grad_mapped_k, grad_mapped_v, grad_scale = _backend(x).attend_backward(
                    edges.by_target, edges.by_source, q[rows], _map(k, attention[r]),
                    _map(v, message[r]), prior[r] / dim**0.5, ctx.log_total[rows], delta[rows],
                    grad[rows], grad_q[rows],
                )  # fmt: skip
                grad_prior[r] = grad_scale / dim**0.5
                grad_attention[r] = _outer(k, grad_mapped_k)
                grad_message[r] = _outer(v, grad_mapped_v)
                grad_k += _map(grad_mapped_k, attention[r].transpose(1, 2))
                grad_v += _map(grad_mapped_v, message[r].transpose(1, 2))
            nodes = slice(block.type_ptr[src_type], block.type_ptr[src_type + 1])
            for part, grad_part in ((0, grad_k), (2, grad_v)):
                flat, columns = grad_part.view(-1, width), slice(part * width, (part + 1) * width)
                grad_weight[src_type, columns] += flat.t() @ x[nodes]
                grad_bias[src_type, columns] += flat.sum(dim=0)
                grad_x[nodes].addmm_(flat, weight[src_type, columns])
        flat = grad_q.view(-1, width)
        columns = slice(width, 2 * width)
        own = own_rows(x, block.rows)
        by_row = torch.empty_like(flat)
        for t, rows in _typed_rows(block):
            grad_weight[t, columns] += flat[rows].t() @ own[rows]
            grad_bias[t, columns] += flat[rows].sum(dim=0)
            torch.mm(flat[rows], weight[t, columns], out=by_row[rows])
        if isinstance(block.rows, slice):
            grad_x[block.rows] += by_row
        else:
            grad_x.index_add_(0, block.rows, by_row)
        return grad_x, *grads, None


def _backend(x: Tensor) -> ModuleType:
    return cpu_attention if x.device.type == "cpu" else reference


def _by_source_type(block: TypedBlock) -> list[tuple[int, list[int]]]:
    """Source types with their edge types that have edges in the block."""
    groups: dict[int, list[int]] = {}
    for r, edges in enumerate(block.edges):
        if edges.by_target.indices.numel():
            groups.setdefault(edges.src_type, []).append(r)
    return list(groups.items())


def _typed_rows(block: TypedBlock) -> list[tuple[int, slice]]:
    """Node types with their target rows, where there are any."""
    ends = enumerate(zip(block.row_ptr, block.row_ptr[1:], strict=False))
    return [(t, slice(start, stop)) for t, (start, stop) in ends if stop > start]


def _rows(block: TypedBlock, r: int) -> slice:
    """The target rows of an edge type."""
    t = block.edges[r].dst_type
    return slice(block.row_ptr[t], block.row_ptr[t + 1])


def _queries(x: Tensor, weight: Tensor, bias: Tensor, block: TypedBlock) -> Tensor:
    """Queries of the target rows, shape (M, C)."""
    width = x.shape[1]
    own = own_rows(x, block.rows)
    q = torch.empty_like(own)
    for t, rows in _typed_rows(block):
        columns = slice(width, 2 * width)
        torch.addmm(bias[t, columns], own[rows], weight[t, columns].t(), out=q[rows])
    return q


def _keys_and_values(
    x: Tensor, weight: Tensor, bias: Tensor, block: TypedBlock, src_type: int, num_heads: int
) -> tuple[Tensor, Tensor]:
    """Keys and values of all nodes of one type, each of shape (n, H, d)."""
    width = x.shape[1]
    nodes = x[block.type_ptr[src_type] : block.type_ptr[src_type + 1]]
    k, v = (
        functional.linear(nodes, weight[src_type, columns], bias[src_type, columns])
        for columns in (slice(0, width), slice(2 * width, 3 * width))
    )
    return k.view(len(nodes), num_heads, -1), v.view(len(nodes), num_heads, -1)


def _map(heads: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each head by its matrix: (n, H, d) and (H, d, d) to (n, H, d), contiguous."""
    out = torch.empty_like(heads)
    torch.bmm(heads.transpose(0, 1), matrix, out=out.transpose(0, 1))
    return out


def _outer(heads: Tensor, grad: Tensor) -> Tensor:
    """Gradient of `_map` by its matrix, shape (H, d, d)."""
    return torch.bmm(heads.permute(1, 2, 0), grad.transpose(0, 1))
