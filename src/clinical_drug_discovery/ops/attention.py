"""HGT's attention over all edge types at once: exact, without any edge-sized buffer.

"Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 2 to 4. For an edge of type r from node j
to node i, logit = q_i . (A_r k_j) prior_r / sqrt(d). The softmax of node i is over all edges into
i, of all types. The result of node i is the sum of attention weight times M_r v_j over these edges,
and 0 for a node without edges.

The edge types are processed one after the other, grouped by source type. Each target row and head
has a running maximum and a running denominator (online softmax).

Notation: N nodes, M target rows, T node types, R edge types, H heads of d channels, C = H d. The
kernels pad each head to D channels, and P = H D. The torch backend has D = d.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from . import reference
from .backend import Backend
from .blocks import Block
from .buffers import empty, zeros, zeros_like
from .cpu import attention as cpu_attention
from .fixed_shapes import needs_fixed_shapes
from .linear import linear_backward, linear_into
from .mean import own_rows


@dataclass(frozen=True)
class Parameters:
    """The weights of one layer's attention, with each head padded from d to D channels."""

    weight: Tensor  #: shape (T, 3 P, C): maps of each node type to keys, queries and values
    bias: Tensor  #: shape (T, 3 P)
    attention: Tensor  #: shape (R, H, D, D): A of each edge type and head
    message: Tensor  #: shape (R, H, D, D): M of each edge type and head
    scale: Tensor  #: shape (R, H): prior / sqrt(d)
    dim: int  #: d, the channels of a head without padding

    @staticmethod
    def padded(
        backend: Backend,
        weight: Tensor,
        bias: Tensor,
        attention: Tensor,
        message: Tensor,
        prior: Tensor,
    ) -> Parameters:
        """Pad the heads of the weights from d to D channels; copy none of them if D = d.

        Args:
            backend: determines D.
            weight: shape (T, 3 C, C).
            bias: shape (T, 3 C).
            attention: shape (R, H, d, d).
            message: shape (R, H, d, d).
            prior: shape (R, H).
        """
        num_heads, dim = attention.shape[1:3]
        more = backend.padded(dim) - dim
        if more:
            parts = (len(weight), 3, num_heads, dim)
            weight = functional.pad(weight.unflatten(1, parts[1:]), (0, 0, 0, more)).flatten(1, 3)
            bias = functional.pad(bias.view(parts), (0, more)).flatten(1)
            attention, message = (
                functional.pad(m, (0, more, 0, more)) for m in (attention, message)
            )
        return Parameters(weight, bias, attention, message, prior / dim**0.5, dim)

    def cut(self, grads: Parameters) -> tuple[Tensor, ...]:
        """Convert gradients of the padded weights to gradients of the arguments of `padded`."""
        num_heads, dim = self.attention.shape[1], self.dim
        parts = (3, num_heads, -1)
        return (
            grads.weight.unflatten(1, parts)[:, :, :, :dim].flatten(1, 3),
            grads.bias.unflatten(1, parts)[..., :dim].flatten(1),
            grads.attention[:, :, :dim, :dim].contiguous(),
            grads.message[:, :, :dim, :dim].contiguous(),
            grads.scale / dim**0.5,
        )


def attend(
    x: Tensor, parameters: Parameters, block: Block, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the attention of a block's target rows to their sources, without autograd.

    Peak memory besides the result: buffers for the largest source type.

    Args:
        x: shape (N, C), a vector for each node, ordered by node type.
        parameters: weights of the layer's attention.
        block: M target rows.
        queries: shape (M, P), in the storage dtype; overwritten by the queries.

    Returns:
        The result with padded heads, shape (M, P), and the log-sum-exp of the logits, shape (M, H).
    """
    stream = _Stream(x, parameters, block)
    num_heads, num_rows = parameters.scale.shape[1], block.num_rows
    stream.queries(queries)
    running_max = x.new_full((num_rows, num_heads), -torch.inf)
    denominator = torch.zeros_like(running_max)
    numerator = zeros(x, num_rows, stream.width)
    for src_type, edge_types in stream.by_source_type():
        stream.keys_and_values(src_type)
        for r in edge_types:
            rows = block.rows_into(r)
            stream.operations.attend(
                block, r, queries[rows], stream.mapped(r), parameters.scale[r],
                running_max[rows], denominator[rows], numerator[rows],
            )  # fmt: skip
    heads = numerator.unflatten(1, (num_heads, -1))
    heads /= denominator.clamp(min=torch.finfo(x.dtype).tiny)[..., None]
    return numerator, denominator.log_().add_(running_max)


def attend_backward(
    x: Tensor,
    parameters: Parameters,
    block: Block,
    log_total: Tensor,
    delta: Tensor,
    grad: Tensor,
    grad_x: Tensor,
) -> Parameters:
    """Compute the gradients of `attend`.

    Args:
        x: shape (N, C).
        parameters: as in `attend`.
        block: as in `attend`.
        log_total: shape (M, H), from `attend`.
        delta: shape (M, H), the dot product of result and gradient for each row and head.
        grad: shape (M, P), the gradient with respect to the result; overwritten.
        grad_x: shape (N, C); the gradient with respect to x is added to it.

    Returns:
        The gradients with respect to `parameters`.
    """
    stream, backend = _Stream(x, parameters, block), block.backend
    num_rows, width = grad.shape
    qg = empty(x, num_rows, 2, width, dtype=backend.storage_dtype(x.dtype))
    stream.queries(qg[:, 0])
    qg[:, 1] = grad
    grad_q = grad.zero_()
    scale = parameters.scale
    given = parameters.weight, parameters.bias, parameters.attention, parameters.message, scale
    of_weight, of_bias, of_attention, of_message, of_scale = zeros_like(given)
    grads = Parameters(of_weight, of_bias, of_attention, of_message, of_scale, parameters.dim)
    for src_type, edge_types in stream.by_source_type():
        stream.keys_and_values(src_type)
        nodes = slice(*block.graph.node_range(src_type))
        heads = stream.buffer("heads", src_type).flatten(1)
        grad_heads = stream.buffer("grad heads", src_type).flatten(1).zero_()
        for r in edge_types:
            rows = block.rows_into(r)
            kv, grad_kv = stream.mapped(r), stream.buffer("grad kv", src_type)
            grads.scale[r] = stream.operations.attend_backward(
                block, r, qg[rows], kv, scale[r], log_total[rows], delta[rows],
                grad_q[rows], grad_kv,
            )  # fmt: skip
            grad_matrices = stream.operations.map_heads_backward(
                stream.sources(r), heads, stream.matrices(r), grad_kv.flatten(1), grad_heads
            )
            grads.attention[r], grads.message[r] = grad_matrices.chunk(2)
        weight, bias = stream.maps(src_type)
        grad_weight, grad_bias = zeros_like((weight, bias))
        linear_backward(
            grad_heads, x[nodes], weight, grad_x[nodes], grad_weight, grad_bias, backend
        )
        for part, columns in enumerate(stream.columns):
            grads.weight[src_type, columns] = grad_weight[part * width : (part + 1) * width]
            grads.bias[src_type, columns] = grad_bias[part * width : (part + 1) * width]
    columns = slice(width, 2 * width)
    for t, rows in block.typed_rows:
        own = stream.own(rows)
        whole = isinstance(block.rows, slice)
        grad_own = grad_x[block.rows][rows] if whole else torch.zeros_like(own)
        linear_backward(
            grad_q[rows], own, parameters.weight[t, columns], grad_own,
            grads.weight[t, columns], grads.bias[t, columns], backend,
        )  # fmt: skip
        if not isinstance(block.rows, slice):
            grad_x.index_add_(0, block.rows[rows], grad_own)
    return grads


def head_dots(a: Tensor, b: Tensor, num_heads: int, backend: Backend) -> Tensor:
    """Return the dot product of two rows with padded heads, for each row and head.

    Args:
        a: shape (m, P), in the dtype of b or in the storage dtype.
        b: shape (m, P).
        num_heads: H.
        backend: computes.

    Returns:
        shape (m, H), in the dtype of b.
    """
    computing = backend.implementation(cpu_attention, reference)
    dots: Tensor = computing.head_dots(a, b, num_heads)
    return dots


class _Stream:
    """One pass over the edge types, with buffers that hold one source type at a time.

    All source types use the same buffers. The system clears new memory: new buffers for each type
    took a fifth of a backward pass.
    """

    def __init__(self, x: Tensor, parameters: Parameters, block: Block) -> None:
        self.x, self.parameters, self.block = x, parameters, block
        self.width = parameters.weight.shape[1] // 3
        self.operations = block.backend.implementation(cpu_attention, reference)
        ranges = [block.graph.node_range(src_type) for src_type, _ in self.by_source_type()]
        self._most = max((last - first for first, last in ranges), default=0)
        self._buffers: dict[str, Tensor] = {}
        stored = block.backend.storage_dtype(x.dtype)
        self._dtypes = {
            "heads": block.backend.product_dtype(x.dtype),
            "kv": stored,
            "grad heads": x.dtype,
            "grad kv": stored,  # the kernels round once per sum, not once per edge
        }
        #: positions of keys and of values among the 3 P rows of `Parameters.weight`
        self.columns = slice(0, self.width), slice(2 * self.width, 3 * self.width)

    def by_source_type(self) -> list[tuple[int, list[int]]]:
        """Return each source type with the edge types that lead from it to rows of the block."""
        groups: dict[int, list[int]] = {}
        for r, (src_type, dst_type) in enumerate(self.block.graph.endpoint_types):
            if self.block.row_ptr[dst_type] < self.block.row_ptr[dst_type + 1]:
                groups.setdefault(src_type, []).append(r)
        return list(groups.items())

    def buffer(self, name: str, node_type: int) -> Tensor:
        """Return the named buffer, cut to the n nodes of a type: shape (n, 2, P)."""
        if name not in self._buffers:
            dtype = self._dtypes[name]
            self._buffers[name] = empty(self.x, self._most, 2, self.width, dtype=dtype)
        first, last = self.block.graph.node_range(node_type)
        return self._buffers[name][: last - first]

    def own(self, rows: slice) -> Tensor:
        """Return the vectors of the nodes of m target rows, shape (m, C); `rows` selects them."""
        if isinstance(self.block.rows, slice):
            return self.x[self.block.rows][rows]
        return own_rows(self.x, self.block.rows[rows])

    def queries(self, out: Tensor) -> None:
        """Write the queries of all target rows to `out`, shape (M, P)."""
        columns = slice(self.width, 2 * self.width)
        for t, rows in self.block.typed_rows:
            weight, bias = self.parameters.weight[t, columns], self.parameters.bias[t, columns]
            for part in self.block.chunks(rows):
                linear_into(out[part], self.own(part), weight, bias, self.block.backend)

    def maps(self, node_type: int) -> tuple[Tensor, Tensor]:
        """Return the weight and bias that make keys and values: shapes (2 P, C) and (2 P,)."""
        parts = (self.parameters.weight, self.parameters.bias)
        weight, bias = (torch.cat([p[node_type, at] for at in self.columns]) for p in parts)
        return weight, bias

    def keys_and_values(self, src_type: int) -> None:
        """Write keys and values of all nodes of a type to the buffer "heads"."""
        nodes = slice(*self.block.graph.node_range(src_type))
        out = self.buffer("heads", src_type).flatten(1)
        linear_into(out, self.x[nodes], *self.maps(src_type), self.block.backend)

    def mapped(self, edge_type: int) -> Tensor:
        """Return A_r k and M_r v for the sources of an edge type r, shape (n, 2, P)."""
        src_type = self.block.graph.endpoint_types[edge_type][0]
        heads, kv = self.buffer("heads", src_type), self.buffer("kv", src_type)
        self.operations.map_heads(
            self.sources(edge_type), heads.flatten(1), self.matrices(edge_type), kv.flatten(1)
        )
        return kv

    def matrices(self, edge_type: int) -> Tensor:
        """Return A of all heads, then M of all heads, for an edge type: shape (2 H, D, D)."""
        parts = self.parameters.attention, self.parameters.message
        return torch.cat([matrices[edge_type] for matrices in parts])

    def sources(self, edge_type: int) -> Tensor | slice:
        """Return the sources of edges of a type; on GPUs, all nodes of the source type."""
        graph = self.block.graph
        return slice(None) if needs_fixed_shapes(graph.device) else graph.sources[edge_type]
