"""HGT's attention over all edge types at once, streamed: exact, without any edge-sized buffer.

Notation: N nodes, M target rows, T node types, R edge types, H heads of d channels, C = H d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import (
    Window,
    choosing_once,
    chunks_of,
    uses_kernels,
    windows,
)
from clinical_drug_discovery.ops.blocks import Block
from clinical_drug_discovery.ops.buffers import empty, zeros, zeros_like
from clinical_drug_discovery.ops.cpu import attention as cpu_attention
from clinical_drug_discovery.ops.mean import own_rows
from clinical_drug_discovery.ops.precision import (
    linear,
    linear_backward,
    linear_into,
    padded,
    product_dtype,
    storage_dtype,
)
from clinical_drug_discovery.system.errors import check_shape


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
    check_shape("x", x, block.graph.num_nodes, attention.shape[1] * attention.shape[2])
    result: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
        x, weight, bias, attention, message, prior, block
    )
    return result


@dataclass(frozen=True)
class Parameters:
    """The weights of one layer's attention, heads padded to whole vectors of the kernels."""

    weight: Tensor  #: shape (T, 3 P, C)
    bias: Tensor  #: shape (T, 3 P)
    attention: Tensor  #: shape (R, H, D, D)
    message: Tensor  #: shape (R, H, D, D)
    scale: Tensor  #: shape (R, H)
    dim: int  #: d, of which D is the next multiple of what a vector holds

    @staticmethod
    def padded(
        weight: Tensor, bias: Tensor, attention: Tensor, message: Tensor, prior: Tensor
    ) -> Parameters:
        """Pad the arguments of `heterogeneous_attention`; nothing is copied where all fits."""
        num_heads, dim = attention.shape[1:3]
        more = padded(dim) - dim
        if more:
            parts = (len(weight), 3, num_heads, dim)
            weight = functional.pad(weight.unflatten(1, parts[1:]), (0, 0, 0, more)).flatten(1, 3)
            bias = functional.pad(bias.view(parts), (0, more)).flatten(1)
            attention, message = (
                functional.pad(m, (0, more, 0, more)) for m in (attention, message)
            )
        return Parameters(weight, bias, attention, message, prior / dim**0.5, dim)

    def cut(self, grads: Parameters) -> tuple[Tensor, ...]:
        """The gradients by the arguments of `padded` from those by its result."""
        num_heads, dim = self.attention.shape[1], self.dim
        parts = (3, num_heads, -1)
        return (
            grads.weight.unflatten(1, parts)[:, :, :, :dim].flatten(1, 3),
            grads.bias.unflatten(1, parts)[..., :dim].flatten(1),
            grads.attention[:, :, :dim, :dim].contiguous(),
            grads.message[:, :, :dim, :dim].contiguous(),
            grads.scale / dim**0.5,
        )


def attend(x: Tensor, parameters: Parameters, block: Block) -> tuple[Tensor, Tensor]:
    """`heterogeneous_attention` without a graph of gradients.

    Peak beside the result: the queries and the buffers of one source type, see `memory`.

    Returns:
        The result with padded heads, shape (M, P), and the log-sum-exp of the logits, shape (M, H).
    """
    stream = _Stream(x, parameters, block)
    num_heads, num_rows = parameters.scale.shape[1], block.num_rows
    q = empty(x, num_rows, stream.width, dtype=storage_dtype(x))
    stream.queries(q)
    highest = x.new_full((num_rows, num_heads), -torch.inf)
    sums = torch.zeros_like(highest)
    out = zeros(x, num_rows, stream.width)
    for src_type, edge_types in stream.by_source_type():
        stream.keys_and_values(src_type)
        for r in edge_types:
            rows = stream.rows(r)
            stream.backend.attend(
                block, r, q[rows], stream.mapped(r), parameters.scale[r],
                highest[rows], sums[rows], out[rows], **stream.numbering(src_type),
            )  # fmt: skip
    heads = out.view(num_rows, num_heads, -1)
    heads /= sums.clamp(min=torch.finfo(sums.dtype).tiny)[..., None]
    return out, sums.log_().add_(highest)


def attend_backward(
    x: Tensor,
    parameters: Parameters,
    block: Block,
    log_total: Tensor,
    delta: Tensor,
    grad: Tensor,
    grad_x: Tensor,
) -> Parameters:
    """Gradients of `attend`.

    Args:
        x: shape (N, C).
        parameters: as in `attend`.
        block: as in `attend`.
        log_total: shape (M, H), what `attend` gave.
        delta: shape (M, H), dot products of each head's result and gradient.
        grad: shape (M, P), by the result; its place is taken by the gradient by the queries.
        grad_x: shape (N, C); the gradient by x is added.

    Returns:
        The gradients by `parameters`.
    """
    stream = _Stream(x, parameters, block)
    num_rows, width = grad.shape
    qg = empty(x, num_rows, 2, width, dtype=storage_dtype(x))
    stream.queries(qg[:, 0])
    qg[:, 1] = grad
    grad_q = grad.zero_()
    scale = parameters.scale
    given = parameters.weight, parameters.bias, parameters.attention, parameters.message, scale
    by_weight, by_bias, by_attention, by_message, by_scale = zeros_like(given)
    grads = Parameters(by_weight, by_bias, by_attention, by_message, by_scale, parameters.dim)
    for src_type, edge_types in stream.by_source_type():
        stream.keys_and_values(src_type)
        nodes = stream.nodes(src_type)
        by_heads = stream.buffer("grad heads", nodes).flatten(1).zero_()
        for r in edge_types:
            rows = stream.rows(r)
            kv, by_kv = stream.mapped(r), stream.buffer("grad kv", nodes)
            grads.scale[r] = stream.backend.attend_backward(
                block, r, qg[rows], kv, scale[r], log_total[rows], delta[rows],
                grad_q[rows], by_kv, **stream.numbering(src_type),
            )  # fmt: skip
            heads = stream.buffer("heads", nodes).flatten(1)
            by_matrices = torch.zeros_like(stream.matrices(r))
            for of in stream.sources(r):
                by_matrices += stream.backend.map_heads_backward(
                    of, heads, stream.matrices(r), by_kv.flatten(1), by_heads
                )
            grads.attention[r], grads.message[r] = by_matrices.chunk(2)
        weight, bias = stream.maps(src_type)
        by_weight, by_bias = zeros_like((weight, bias))
        linear_backward(
            by_heads, x[nodes], weight, grad_x[nodes], by_weight, by_bias,
            stream.own_nodes(src_type),
        )  # fmt: skip
        for part, columns in enumerate(stream.columns):
            grads.weight[src_type, columns] = by_weight[part * width : (part + 1) * width]
            grads.bias[src_type, columns] = by_bias[part * width : (part + 1) * width]
    columns = slice(width, 2 * width)
    for t, window in stream.targets(grad_q):
        own = stream.own(window.rows)
        whole = isinstance(block.rows, slice)
        by_own = grad_x[block.rows][window.rows] if whole else torch.zeros_like(own)
        linear_backward(
            window.only(grad_q[window.rows]), own, parameters.weight[t, columns], by_own,
            grads.weight[t, columns], grads.bias[t, columns],
        )  # fmt: skip
        if not isinstance(block.rows, slice):
            grad_x.index_add_(0, block.rows[window.rows], by_own)
    return grads


@choosing_once
class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        *weights, block = given
        parameters = Parameters.padded(*weights)
        out, ctx.log_total = attend(x, parameters, block)
        ctx.save_for_backward(x, out, *weights)
        ctx.block = block
        heads: Tensor = out.unflatten(1, (weights[2].shape[1], -1))
        return heads[..., : parameters.dim].flatten(1).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, *weights = ctx.saved_tensors
        parameters = Parameters.padded(*weights)
        num_heads = parameters.scale.shape[1]
        by_out = zeros(out, *out.shape)
        by_out.unflatten(1, (num_heads, -1))[..., : parameters.dim] = grad.unflatten(
            1, (num_heads, -1)
        )
        delta = head_dots(out, by_out, num_heads)
        grad_x = zeros(x, *x.shape)
        grads = attend_backward(x, parameters, ctx.block, ctx.log_total, delta, by_out, grad_x)
        return grad_x, *parameters.cut(grads), None


def head_dots(a: Tensor, b: Tensor, num_heads: int) -> Tensor:
    """Dot products of the heads of two arrays of rows, shape (M, H)."""
    shape = (num_heads, a.shape[1] // num_heads)
    dots = b.new_empty(len(a), num_heads)  # a may be stored in less precision
    for rows in chunks_of(a, 0, len(a)):
        dots[rows] = (a[rows] * b[rows]).unflatten(1, shape).sum(dim=-1)
    return dots


class _Stream:
    """One pass over the edge types: what belongs to which, and buffers for one source type.

    The buffers are used again for the next type. Memory that is given back and taken again has to
    be cleared by the system each time: that was a fifth of the time of a backward pass.
    """

    def __init__(self, x: Tensor, parameters: Parameters, block: Block) -> None:
        self.x, self.parameters, self.block = x, parameters, block
        self.width = parameters.weight.shape[1] // 3
        self._kernels = uses_kernels(x.device)
        self.backend: ModuleType = cpu_attention if self._kernels else reference
        graph, sources = block.graph, [s for s, _ in self.by_source_type()] or [0]
        most = max(graph.type_offsets[s + 1] - graph.type_offsets[s] for s in sources)
        self._room = most if self._kernels else graph.room
        self._buffers: dict[str, Tensor] = {}
        stored = storage_dtype(x)
        self._dtypes = {"heads": product_dtype(x), "kv": stored}
        if (
            self._kernels
        ):  # which round each sum once; plain torch adds edge by edge to what is there
            self._dtypes["grad kv"] = stored
        #: of the keys and of the values among the rows of the maps
        self.columns = slice(0, self.width), slice(2 * self.width, 3 * self.width)

    def by_source_type(self) -> list[tuple[int, list[int]]]:
        """Source types with their edge types that lead to rows of the block."""
        groups: dict[int, list[int]] = {}
        for r, (src_type, dst_type) in enumerate(self.block.graph.endpoint_types):
            if self.block.row_ptr[dst_type] < self.block.row_ptr[dst_type + 1]:
                groups.setdefault(src_type, []).append(r)
        return list(groups.items())

    def nodes(self, node_type: int) -> slice:
        """The graph's nodes of a type; on GPUs with some before and after them."""
        graph = self.block.graph
        return slice(*graph.node_range(node_type)) if self._kernels else graph.view_of(node_type)

    def own_nodes(self, node_type: int) -> slice:
        """Which of `nodes` are of the type."""
        (first, last), start = self.block.graph.node_range(node_type), self.nodes(node_type).start
        return slice(first - start, last - start)

    def numbering(self, node_type: int) -> dict[str, int]:
        """What the backend has to know of `nodes`, where it cannot know it."""
        return {} if self._kernels else {"first_node": self.nodes(node_type).start}

    def targets(self, x: Tensor) -> Iterator[tuple[int, Window]]:
        """The block's rows by node type: whole, or in windows where their shapes matter."""
        for t, rows in self.block.typed_rows:
            for window in [Window(rows)] if self._kernels else windows(x, rows.start, rows.stop):
                yield t, window

    def rows(self, edge_type: int) -> slice:
        """The target rows that the backend is given for an edge type.

        Those of its target type, or all, of one shape, where another shape costs another kernel.
        """
        if not self._kernels:
            return slice(0, self.block.num_rows)
        dst_type = self.block.graph.endpoint_types[edge_type][1]
        return slice(*self.block.row_ptr[dst_type : dst_type + 2])

    def buffer(self, name: str, nodes: slice) -> Tensor:
        """The rows of the buffer of that name for some nodes, shape (n, 2, P)."""
        if name not in self._buffers:
            dtype = self._dtypes.get(name, self.x.dtype)
            self._buffers[name] = empty(self.x, self._room, 2, self.width, dtype=dtype)
        return self._buffers[name][: nodes.stop - nodes.start]

    def own(self, rows: slice) -> Tensor:
        """The rows of x that are some of the block's targets, shape (m, C)."""
        if isinstance(self.block.rows, slice):
            return self.x[self.block.rows][rows]
        return own_rows(self.x, self.block.rows[rows])

    def queries(self, out: Tensor) -> None:
        """Write the queries of the target rows, shape (M, P)."""
        columns = slice(self.width, 2 * self.width)
        for t, window in self.targets(out):
            own = self.own(window.rows)
            weight, bias = self.parameters.weight[t, columns], self.parameters.bias[t, columns]
            if self._kernels:
                linear_into(out[window.rows], own, weight, bias)
            else:
                window.put(out, linear(own, weight, bias))

    def maps(self, node_type: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of keys and values, shapes (2 P, C) and (2 P,)."""
        parts = (self.parameters.weight, self.parameters.bias)
        weight, bias = (torch.cat([p[node_type, at] for at in self.columns]) for p in parts)
        return weight, bias

    def keys_and_values(self, src_type: int) -> None:
        """Put keys and values of all nodes of one type into their buffer."""
        nodes = self.nodes(src_type)
        out = self.buffer("heads", nodes).flatten(1)
        linear_into(out, self.x[nodes], *self.maps(src_type), self.own_nodes(src_type))

    def mapped(self, edge_type: int) -> Tensor:
        """Keys and values of the sources of an edge type, mapped by it: shape (n, 2, P)."""
        nodes = self.nodes(self.block.graph.endpoint_types[edge_type][0])
        heads, kv = self.buffer("heads", nodes), self.buffer("kv", nodes)
        for of in self.sources(edge_type):
            self.backend.map_heads(of, heads.flatten(1), self.matrices(edge_type), kv.flatten(1))
        return kv

    def matrices(self, edge_type: int) -> Tensor:
        """What the heads of keys and then those of values are mapped by, shape (2 H, D, D)."""
        parts = self.parameters.attention, self.parameters.message
        return torch.cat([matrices[edge_type] for matrices in parts])

    def sources(self, edge_type: int) -> tuple[Tensor, ...]:
        """Which of `nodes` have edges of a type; in chunks of one size where shapes matter."""
        graph = self.block.graph
        return (graph.sources[edge_type],) if self._kernels else graph.source_chunks[edge_type]
