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

from clinical_drug_discovery.blocks import Block, own_rows
from clinical_drug_discovery.ops import cpu_attention, reference
from clinical_drug_discovery.ops.precision import (
    CHUNK_ROWS,
    linear_backward,
    linear_into,
    padded,
    product_dtype,
    storage_dtype,
)
from clinical_drug_discovery.runtime import check_shape


def heterogeneous_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    attention: Tensor,
    message: Tensor,
    prior: Tensor,
    block: Block,
) -> Tensor:
    """Mutual attention and message passing over typed edges.

    "Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 3 and 4 and the sum of eq. 2: for an
    edge of type r from j to i, logit = q_i (k_j A_r) prior_r / sqrt(d); softmax over ALL incoming
    edges of i across edge types; result = sum of its shares times v_j M_r; 0 without edges.

    The edge types are streamed, grouped by their source type, with a running maximum and sum per
    row and head. Kept for the backward pass are x, the result and the log-sum-exp. Peak beside
    these: see `memory`.

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
    num_types = len(block.graph.node_type_names)
    check_shape("x", x, block.graph.num_nodes, num_heads * dim)
    check_shape("weight", weight, num_types, 3 * num_heads * dim, num_heads * dim)
    check_shape("prior", prior, len(block.graph.edge_types), num_heads)
    scale = prior / dim**0.5
    more = padded(dim) - dim  # channels of zeros, so that heads are whole vectors of the kernels
    if more:
        parts = (num_types, 3, num_heads, dim)
        weight = functional.pad(weight.unflatten(1, parts[1:]), (0, 0, 0, more)).flatten(1, 3)
        bias = functional.pad(bias.view(parts), (0, more)).flatten(1)
        attention, message = (functional.pad(m, (0, more, 0, more)) for m in (attention, message))
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
        x, weight, bias, attention, message, scale, block
    )
    if more:
        result = result.unflatten(1, (num_heads, -1))[..., :dim].flatten(1)
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
        scale: Tensor,
        block: Block,
    ) -> Tensor:
        step = _Stream(x, weight, bias, block)
        num_heads, num_rows, width = scale.shape[1], block.num_rows, weight.shape[1] // 3
        q = x.new_empty(num_rows, width, dtype=storage_dtype(x))
        step.queries(q)
        highest = x.new_full((num_rows, num_heads), -torch.inf)
        sums = torch.zeros_like(highest)
        out = x.new_zeros(num_rows, width)
        for src_type, edge_types in step.by_source_type():
            step.keys_and_values(src_type)
            for r in edge_types:
                rows = step.rows(r)
                kv = step.mapped(r, attention[r], message[r])
                step.backend.attend(
                    block, r, q[rows], kv, scale[r], highest[rows], sums[rows], out[rows]
                )
        heads = out.view(num_rows, num_heads, -1)
        heads /= sums.clamp(min=torch.finfo(sums.dtype).tiny)[..., None]
        ctx.save_for_backward(x, weight, bias, attention, message, scale, out)
        ctx.block, ctx.log_total = block, sums.log_().add_(highest)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, attention, message, scale, out = ctx.saved_tensors
        block: Block = ctx.block
        step = _Stream(x, weight, bias, block)
        num_rows, width = out.shape
        qg = x.new_empty(num_rows, 2, width, dtype=storage_dtype(x))
        step.queries(qg[:, 0])
        qg[:, 1] = grad
        delta = _dots(grad, out, scale.shape[1])
        grad_q = torch.zeros_like(out)
        grad_x = torch.zeros_like(x)
        grads = [torch.zeros_like(p) for p in (weight, bias, attention, message, scale)]
        grad_weight, grad_bias, grad_attention, grad_message, grad_scale = grads
        for src_type, edge_types in step.by_source_type():
            step.keys_and_values(src_type)
            nodes = step.nodes(src_type)
            by_k, by_v = (step.buffer(f"grad {name}", nodes, 1).zero_() for name in "kv")
            for r in edge_types:
                rows = step.rows(r)
                kv = step.mapped(r, attention[r], message[r])
                by_kv = step.buffer("grad kv", nodes, 2)
                shares = step.shares(r, scale.shape[1])
                grad_scale[r] = step.backend.attend_backward(
                    block, r, qg[rows], kv, scale[r], ctx.log_total[rows], delta[rows],
                    grad_q[rows], by_kv, shares,
                )  # fmt: skip
                of = block.graph.sources[r]
                for part, name, matrix, grad_matrix, by in (
                    (0, "k", attention, grad_attention, by_k),
                    (1, "v", message, grad_message, by_v),
                ):
                    heads = step.buffer(name, nodes, 1)[:, 0]
                    grad_matrix[r] = step.backend.map_heads_backward(
                        of, heads, matrix[r], by_kv, part, by[:, 0]
                    )
            for part, by in ((0, by_k), (2, by_v)):
                columns = slice(part * width, (part + 1) * width)
                linear_backward(
                    by[:, 0], x[nodes], weight[src_type, columns], grad_x[nodes],
                    grad_weight[src_type, columns], grad_bias[src_type, columns],
                )  # fmt: skip
        columns = slice(width, 2 * width)
        for t, rows in block.typed_rows:
            own, whole = step.own(t, rows), isinstance(block.rows, slice)
            by_own = grad_x[block.rows][rows] if whole else torch.zeros_like(own)
            linear_backward(
                grad_q[rows], own, weight[t, columns], by_own,
                grad_weight[t, columns], grad_bias[t, columns],
            )  # fmt: skip
            if not whole:
                grad_x.index_add_(0, block.rows[rows], by_own)
        return grad_x, *grads, None


class _Stream:
    """One pass over the edge types: what belongs to which, and buffers for one source type.

    The buffers are used again for the next type. Memory that is given back and taken again has to
    be cleared by the system each time: that was a fifth of the time of a backward pass.
    """

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor, block: Block) -> None:
        self.x, self.weight, self.bias, self.block = x, weight, bias, block
        self.width = weight.shape[1] // 3
        self.backend: ModuleType = cpu_attention if x.device.type == "cpu" else reference
        graph = block.graph
        self._most = max(
            graph.bounds[s + 1] - graph.bounds[s] for s, _ in self.by_source_type() or [(0, [])]
        )
        self._buffers: dict[str, Tensor] = {}
        self._dtypes = {"k": product_dtype(x), "v": product_dtype(x), "kv": storage_dtype(x)}

    def by_source_type(self) -> list[tuple[int, list[int]]]:
        """Source types with their edge types that lead to rows of the block."""
        groups: dict[int, list[int]] = {}
        for r, (src_type, dst_type) in enumerate(self.block.graph.ends):
            if self.block.row_ptr[dst_type] < self.block.row_ptr[dst_type + 1]:
                groups.setdefault(src_type, []).append(r)
        return list(groups.items())

    def nodes(self, node_type: int) -> slice:
        """The graph's nodes of a type."""
        return slice(*self.block.graph.bounds[node_type : node_type + 2])

    def rows(self, edge_type: int) -> slice:
        """The target rows of an edge type."""
        dst_type = self.block.graph.ends[edge_type][1]
        return slice(*self.block.row_ptr[dst_type : dst_type + 2])

    def buffer(self, name: str, nodes: slice, parts: int) -> Tensor:
        """The first rows of the buffer of that name, shape (n, parts, P)."""
        if name not in self._buffers:
            dtype = self._dtypes.get(name, self.x.dtype)
            shape = (self._most, parts, self.width)
            self._buffers[name] = self.x.new_empty(shape, dtype=dtype)
        return self._buffers[name][: nodes.stop - nodes.start]

    def shares(self, edge_type: int, num_heads: int) -> Tensor:
        """Room for two numbers for each edge of a type and head; none where it is not used."""
        if self.backend is reference:
            return self.x.new_empty(0)
        if "shares" not in self._buffers:
            most = int(self.block.graph.edge_type_counts.max())
            shape, dtype = (most, 2, num_heads), storage_dtype(self.x)
            self._buffers["shares"] = self.x.new_empty(shape, dtype=dtype)
        return self._buffers["shares"][: self.block.graph.edge_type_counts[edge_type]]

    def own(self, node_type: int, rows: slice) -> Tensor:
        """The rows of x that are the block's targets of one type, shape (m, C)."""
        if isinstance(self.block.rows, slice):
            return self.x[self.block.rows][rows]
        return own_rows(self.x, self.block.rows[rows])

    def queries(self, out: Tensor) -> None:
        """Write the queries of the target rows, shape (M, P)."""
        columns = slice(self.width, 2 * self.width)
        for t, rows in self.block.typed_rows:
            linear_into(
                out[rows], self.own(t, rows), self.weight[t, columns], self.bias[t, columns]
            )

    def keys_and_values(self, src_type: int) -> None:
        """Put keys and values of all nodes of one type into their buffers."""
        nodes = self.nodes(src_type)
        for name, part in (("k", 0), ("v", 2)):
            columns = slice(part * self.width, (part + 1) * self.width)
            linear_into(
                self.buffer(name, nodes, 1)[:, 0], self.x[nodes],
                self.weight[src_type, columns], self.bias[src_type, columns],
            )  # fmt: skip

    def mapped(self, edge_type: int, attention: Tensor, message: Tensor) -> Tensor:
        """Keys and values of the sources of an edge type, mapped by it: shape (n, 2, P)."""
        nodes = self.nodes(self.block.graph.ends[edge_type][0])
        kv = self.buffer("kv", nodes, 2)
        for part, (name, matrix) in enumerate((("k", attention), ("v", message))):
            heads = self.buffer(name, nodes, 1)[:, 0]
            self.backend.map_heads(self.block.graph.sources[edge_type], heads, matrix, kv, part)
        return kv


def _dots(a: Tensor, b: Tensor, num_heads: int) -> Tensor:
    """Dot products of the heads of two arrays of rows, shape (M, H)."""
    shape = (-1, num_heads, a.shape[1] // num_heads)
    chunks = zip(a.split(CHUNK_ROWS), b.split(CHUNK_ROWS), strict=True)
    return torch.cat([(x * y).view(shape).sum(dim=-1) for x, y in chunks])
