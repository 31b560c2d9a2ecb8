"""HGT's attention over all edge types at once, streamed: exact, without any edge-sized buffer.

Notation: N nodes, M target rows, T node types, R edge types, H heads of d channels, C = H d.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    bytes beside x. Peak beside these, with n the nodes of the largest source type and P the numbers
    in all parameters: forward 4 (M C + 2 M H + 6 n C) bytes, backward 4 (N C + 3 M C + M H + 10 n C
    + P) bytes, plus one chunk of edges where `reference` runs.

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
        scratch = _Scratch(x, block, num_heads)
        for src_type, edge_types in _by_source_type(block):
            k, v = _keys_and_values(x, weight, bias, block, src_type, scratch)
            for r in edge_types:
                edges, rows = block.edges[r], _rows(block, r)
                _, mapped_k = _map(k, edges.sources, attention[r], scratch, "k")
                _, mapped_v = _map(v, edges.sources, message[r], scratch, "v")
                _backend(x).attend(
                    edges.by_target, edges.targets, q[rows], mapped_k, mapped_v,
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
        scratch = _Scratch(x, block, num_heads)
        for src_type, edge_types in _by_source_type(block):
            k, v = _keys_and_values(x, weight, bias, block, src_type, scratch)
            grad_k = scratch.rows("grad k", len(k)).zero_()
            grad_v = scratch.rows("grad v", len(v)).zero_()
            for r in edge_types:
                edges, rows = block.edges[r], _rows(block, r)
                if edges.by_source is None:
                    raise RuntimeError("a range_block has no backward pass")
                own_k, mapped_k = _map(k, edges.sources, attention[r], scratch, "k")
                own_v, mapped_v = _map(v, edges.sources, message[r], scratch, "v")
                by_k = scratch.rows("grad mapped k", len(mapped_k))
                by_v = scratch.rows("grad mapped v", len(mapped_v))
                grad_scale = _backend(x).attend_backward(
                    edges.by_target, edges.by_source, edges.targets, q[rows], mapped_k, mapped_v,
                    prior[r] / dim**0.5, ctx.log_total[rows], delta[rows], grad[rows],
                    grad_q[rows], by_k, by_v,
                )  # fmt: skip
                grad_prior[r] = grad_scale / dim**0.5
                grad_attention[r] = _outer(own_k, by_k)
                grad_message[r] = _outer(own_v, by_v)
                # The mapped keys and values are not needed again: their place is taken.
                for product, by_mapped, matrix, result in (
                    (mapped_k, by_k, attention[r], grad_k),
                    (mapped_v, by_v, message[r], grad_v),
                ):
                    _multiply(by_mapped, matrix.transpose(1, 2), product)
                    result.index_add_(0, edges.sources, product)
            nodes = slice(block.type_ptr[src_type], block.type_ptr[src_type + 1])
            for part, grad_part in ((0, grad_k), (2, grad_v)):
                flat, columns = grad_part.view(-1, width), slice(part * width, (part + 1) * width)
                grad_weight[src_type, columns].addmm_(flat.t(), x[nodes])
                grad_bias[src_type, columns] += flat.sum(dim=0)
                grad_x[nodes].addmm_(flat, weight[src_type, columns])
        flat = grad_q.view(-1, width)
        columns = slice(width, 2 * width)
        own = own_rows(x, block.rows)
        by_row = q.view(-1, width)  # the queries are not needed again: their place is taken
        for t, rows in _typed_rows(block):
            grad_weight[t, columns].addmm_(flat[rows].t(), own[rows])
            grad_bias[t, columns] += flat[rows].sum(dim=0)
            torch.mm(flat[rows], weight[t, columns], out=by_row[rows])
        if isinstance(block.rows, slice):
            grad_x[block.rows] += by_row
        else:
            grad_x.index_add_(0, block.rows, by_row)
        return grad_x, *grads, None


class _Scratch:
    """Buffers for the rows of one source type, used again for the next edge type.

    Memory that is given back and taken again has to be cleared by the system each time: without
    this the backward pass on PrimeKG spent a fifth of its time there.
    """

    def __init__(self, x: Tensor, block: TypedBlock, num_heads: int) -> None:
        self._shape = (num_heads, x.shape[1] // num_heads)
        types = {edges.src_type for edges in block.edges}
        self._most = max(block.type_ptr[t + 1] - block.type_ptr[t] for t in types)
        self._like = x
        self._buffers: dict[str, Tensor] = {}

    def rows(self, name: str, num_rows: int) -> Tensor:
        """The first rows of the buffer of that name, shape (num_rows, H, d)."""
        if name not in self._buffers:
            self._buffers[name] = self._like.new_empty(self._most, *self._shape)
        return self._buffers[name][:num_rows]


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
    x: Tensor, weight: Tensor, bias: Tensor, block: TypedBlock, src_type: int, scratch: _Scratch
) -> list[Tensor]:
    """Keys and values of all nodes of one type, each of shape (n, H, d)."""
    width = x.shape[1]
    nodes = x[block.type_ptr[src_type] : block.type_ptr[src_type + 1]]
    maps = []
    for name, part in (("k", 0), ("v", 2)):
        columns = slice(part * width, (part + 1) * width)
        out = scratch.rows(name, len(nodes))
        matrix = weight[src_type, columns].t()
        torch.addmm(bias[src_type, columns], nodes, matrix, out=out.view(-1, width))
        maps.append(out)
    return maps


def _map(
    heads: Tensor, sources: Tensor, matrix: Tensor, scratch: _Scratch, name: str
) -> tuple[Tensor, Tensor]:
    """Multiply each head of the sources by its matrix.

    Args:
        heads: shape (n, H, d), of all nodes of the type.
        sources: shape (m,), which of them are wanted.
        matrix: shape (H, d, d).
        scratch: where to put the results.
        name: of the buffers.

    Returns:
        The sources' rows of `heads` and their products, each of shape (m, H, d).
    """
    own = heads
    if len(sources) < len(heads):
        own = scratch.rows(f"own {name}", len(sources))
        torch.index_select(heads, 0, sources, out=own)
    product = scratch.rows(f"mapped {name}", len(sources))
    _multiply(own, matrix, product)
    return own, product


def _multiply(heads: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Multiply each head by its matrix: (m, H, d) and (H, d, d) to (m, H, d)."""
    torch.bmm(heads.transpose(0, 1), matrix, out=out.transpose(0, 1))


def _outer(heads: Tensor, grad: Tensor) -> Tensor:
    """Gradient of `_multiply` by its matrix, shape (H, d, d)."""
    return torch.bmm(heads.permute(1, 2, 0), grad.transpose(0, 1))
