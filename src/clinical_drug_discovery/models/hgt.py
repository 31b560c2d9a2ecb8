"""The Heterogeneous Graph Transformer (HGT) with a learned vector per node.

Notation: N nodes, M target rows of a block, T node types, R edge types, C hidden channels in H
heads of d, D embedding dimensions. The kernels pad the heads; all padded heads together have P
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..ops.attention import Parameters, attend, attend_backward, head_dots
from ..ops.backend import Backend
from ..ops.blocks import Block
from ..ops.buffers import empty, zeros, zeros_like
from ..ops.linear import multiply, product_of
from ..ops.mean import own_rows
from ..ops.norm import mix_and_normalize, mix_and_normalize_backward
from .initialisation import node_vectors, uniform
from .layers import TypedLinear


class Hgt(nn.Module):
    """An input map per node type, a stack of `HgtLayer`, and an output map per node type.

    Each node has a learned input vector: with one input per type, attention would average equal
    vectors. Each layer and the output map end in layer normalization without parameters, so all
    embeddings have length sqrt(D). A hidden layer keeps two (N, C) buffers for the backward pass:
    the layer's input and the result of the attention.
    """

    def __init__(
        self,
        type_ptr: tuple[int, ...],
        num_edge_types: int,
        hidden_dim: int,
        embedding_dim: int,
        num_layers: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        num_types = len(type_ptr) - 1
        self.node_embedding = node_vectors(type_ptr[-1], hidden_dim, generator)
        self.project = TypedLinear(num_types, hidden_dim, hidden_dim, generator)
        self.layers = nn.ModuleList(
            HgtLayer(num_types, num_edge_types, hidden_dim, num_heads, generator)
            for _ in range(num_layers)
        )
        self.out = TypedLinear(num_types, hidden_dim, embedding_dim, generator, norm=True)
        self.stages = [
            ("Projecting each node type", hidden_dim),
            *((f"Layer {index}/{num_layers}", hidden_dim) for index in range(1, num_layers + 1)),
            ("Output projection", embedding_dim),
        ]

    def forward(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: block of all nodes, for all layers except the last.
            target: block of the M rows to embed, for the last layer.
            vectors: shape (N, C), input vectors of the graph's nodes; None: `node_embedding`.

        Returns:
            shape (M, D).
        """
        x = self.project(self.node_embedding if vectors is None else vectors, hidden)
        *hidden_layers, last = self._layers()
        for layer in hidden_layers:
            x = _Layer.apply(x, hidden, *layer.weights())  # type: ignore[no-untyped-call]  # torch has no types for it
        x = _Layer.apply(x, target, *last.weights())  # type: ignore[no-untyped-call]  # as above
        embeddings: Tensor = self.out(x, target)
        return embeddings

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> None:
        """Do nothing: keys and values of all node types would take too much memory."""

    def apply_stage(self, index: int, x: Tensor, begun: None, block: Block) -> Tensor:
        """Apply the input map, one layer, or the output map to a block's target rows."""
        if index == 0:
            result: Tensor = self.project(own_rows(x, block.rows), block)
        elif index <= len(self.layers):
            result = self._layers()[index - 1](x, block)
        else:
            result = self.out(own_rows(x, block.rows), block)
        return result

    def _layers(self) -> list[HgtLayer]:
        return [cast(HgtLayer, layer) for layer in self.layers]


class HgtLayer(nn.Module):
    """One layer of "Heterogeneous Graph Transformer" (arXiv:2003.01332), eq. 3 to 5.

    With a = the result of `ops.attention`, and g = sigmoid(skip) of the node type:

        x' = norm(g out(gelu(a)) + (1 - g) x)

    `norm` is layer normalization without parameters, which the paper does not have.
    """

    def __init__(
        self,
        num_types: int,
        num_edge_types: int,
        dim: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        head_dim = dim // num_heads
        heads = (num_edge_types, num_heads, head_dim, head_dim)
        self.kqv = TypedLinear(num_types, dim, 3 * dim, generator)
        self.attention = nn.Parameter(uniform(heads, head_dim, generator))
        self.message = nn.Parameter(uniform(heads, head_dim, generator))
        self.prior = nn.Parameter(torch.ones(num_edge_types, num_heads))
        self.out = TypedLinear(num_types, dim, dim, generator)
        self.skip = nn.Parameter(torch.ones(num_types))

    def weights(self) -> tuple[Tensor, ...]:
        """Return the weights in the order of the arguments of `_Layer.apply`."""
        of_attention = self.kqv.weight, self.kqv.bias, self.attention, self.message, self.prior
        return *of_attention, self.out.weight, self.out.bias, self.skip

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Compute the block's target rows from all source rows.

        Args:
            x: shape (N, C), a vector for each node, ordered by node type.
            block: M target rows.

        Returns:
            shape (M, C).
        """
        updated: Tensor = _Layer.apply(x, block, *self.weights())  # type: ignore[no-untyped-call]  # torch has no types for it
        return updated


class _Layer(torch.autograd.Function):
    """`HgtLayer` as one autograd function, so that attention and update share buffers.

    Three arrays are kept for the backward pass: x, the result of the attention, and the layer's
    result, which the next layer keeps as well. The backward pass overwrites the incoming gradient.
    Plain autograd takes five more (N, C) buffers for a layer of all nodes, 0.6 GiB on PrimeKG.

    So nothing else may use the incoming gradient: a caller that passes a gradient to
    torch.autograd.grad, or uses the output twice, has to copy the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block, *weights: Tensor) -> Tensor:
        parameters = Parameters.padded(block.backend, *weights[:5])
        width, stored = parameters.weight.shape[1] // 3, block.backend.storage_dtype(x.dtype)
        queries = empty(x, block.num_rows, width, dtype=stored)
        attended, ctx.log_total = attend(x, parameters, block, queries)
        # With all nodes, later layers run before the backward pass: keep the storage dtype, in the
        # memory of the queries. New memory would have to be cleared first.
        kept = queries if isinstance(block.rows, slice) and stored != x.dtype else attended
        del queries
        own = own_rows(x, block.rows)
        out, ctx.scale = _update(attended, own, weights[5:], block, parameters.dim, kept)
        ctx.save_for_backward(x, *weights)
        ctx.attended = kept
        ctx.block, ctx.out = block, out.detach()  # out itself would keep ctx alive
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        block, attended, out = ctx.block, ctx.attended, ctx.out
        parameters = Parameters.padded(block.backend, *weights[:5])
        # These are overwritten below: a second backward pass must fail, not return wrong gradients.
        del ctx.attended, ctx.out
        fits = attended.shape == grad.shape and grad.is_contiguous()
        grad_attended = grad if fits else empty(grad, *attended.shape)
        fits = fits and attended.dtype == grad.dtype
        grad_own = attended if fits else empty(grad, *grad.shape)
        delta = grad.new_empty(len(grad), parameters.scale.shape[1])
        grad_update = _update_backward(
            grad, (attended, own_rows(x, block.rows), out, ctx.scale), weights[5:], block,
            parameters.dim, (grad_attended, grad_own, delta),
        )  # fmt: skip
        del attended, out, grad
        grad_x = grad_own
        if not isinstance(block.rows, slice):
            grad_x = zeros(x, *x.shape)
            grad_x[block.rows] = grad_own
        del grad_own
        grads = attend_backward(x, parameters, block, ctx.log_total, delta, grad_attended, grad_x)
        return grad_x, None, *parameters.cut(grads), *grad_update


def _update(
    attended: Tensor,
    own: Tensor,
    weights: Sequence[Tensor],
    block: Block,
    head_dim: int,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute x' = norm(g out(gelu(attended)) + (1 - g) own).

    Args:
        attended: shape (M, P), the result of the attention; overwritten by x' if P = C and `kept`
            is another array, to save new memory.
        own: shape (M, C), the block's target rows of x.
        weights: weight and bias of the output map, and skip: shapes (T, C, C), (T, C), (T,).
        block: M target rows.
        head_dim: d.
        kept: shape (M, P), receives `attended`; it may be the same array.

    Returns:
        x', shape (M, C), and 1 / standard deviation of each row before `norm`, shape (M, 1).
    """
    weight, bias, skip = weights
    in_place = kept is not attended and attended.shape == own.shape
    out = attended if in_place else empty(own, *own.shape)
    scale = own.new_empty(len(own), 1)
    for t, rows in block.typed_chunks():
        if kept is not attended:
            kept[rows] = attended[rows]
        active = functional.gelu(_cut(attended[rows], own.shape[1], head_dim))
        product = product_of([active], [weight[t]], block.backend)
        gate = skip[t].sigmoid()
        mix_and_normalize(product, bias[t], gate, own[rows], out[rows], scale[rows], block.backend)
    return out, scale


def _update_backward(
    grad: Tensor,
    given: tuple[Tensor, Tensor, Tensor, Tensor],
    weights: Sequence[Tensor],
    block: Block,
    head_dim: int,
    results: tuple[Tensor, Tensor, Tensor],
) -> list[Tensor]:
    """Compute the gradients of `_update` without repeating its matrix products.

    Args:
        grad: shape (M, C), the gradient with respect to x'.
        given: attended, own, and the two results of `_update`.
        weights: as in `_update`.
        block: as in `_update`.
        head_dim: as in `_update`.
        results: buffers to write: the gradients with respect to attended, shape (M, P), and own,
            shape (M, C), and `delta` of `attend_backward`, shape (M, H). The first may be `grad`
            itself, the second may be attended.

    Returns:
        The gradients with respect to the weights.
    """
    attended, own, out, scale = given
    weight, _, skip = weights
    grad_attended, grad_own, delta = results
    grads = zeros_like(weights)
    for t, rows in block.typed_chunks():
        channels = _cut(attended[rows].to(grad.dtype), own.shape[1], head_dim)
        gate = skip[t].sigmoid()
        by_mixed, by_mapped, by_gate = mix_and_normalize_backward(
            grad[rows], out[rows], scale[rows], own[rows], gate, block.backend
        )
        active = functional.gelu(channels).to(by_mapped.dtype)
        grads[0][t] += multiply(by_mapped.t(), active)
        grads[1][t] += by_mixed.sum(dim=0) * gate
        grads[2][t] += by_gate.sum() * (1 - gate)
        grad_active = multiply(by_mapped, weight[t].to(by_mapped.dtype)).to(grad.dtype)
        grad_heads = torch.ops.aten.gelu_backward(grad_active, channels)
        grad_heads = _pad(grad_heads, attended.shape[1], head_dim)
        delta[rows] = head_dots(attended[rows], grad_heads, delta.shape[1], block.backend)
        grad_attended[rows] = grad_heads
        torch.mul(by_mixed, 1 - gate, out=grad_own[rows])
    return grads


def _cut(rows: Tensor, dim: int, head_dim: int) -> Tensor:
    """Remove the padding of the heads: shape (m, C)."""
    if rows.shape[1] == dim:
        return rows
    heads: Tensor = rows.unflatten(1, (dim // head_dim, -1))
    return heads[..., :head_dim].flatten(1)


def _pad(rows: Tensor, width: int, head_dim: int) -> Tensor:
    """Pad the heads with zeros: shape (m, P)."""
    if rows.shape[1] == width:
        return rows
    heads = rows.unflatten(1, (-1, head_dim))
    return functional.pad(heads, (0, width // heads.shape[1] - head_dim)).flatten(1)
