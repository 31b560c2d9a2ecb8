"""Layer normalization, alone and together with the operations before and after it.

"Layer Normalization" (arXiv:1607.06450), eq. 3 and 4, without gain and bias.

Notation: m rows of C columns.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from . import reference
from .backend import Backend
from .cpu import gates as cpu_gates
from .cpu import norms as cpu_norms

_EPS = 1e-5


def layer_norm(x: Tensor) -> Tensor:
    """Normalize each row to mean 0 and length sqrt(C)."""
    return functional.layer_norm(x, x.shape[1:], eps=_EPS)


def normalize(
    product: Tensor,
    bias: Tensor,
    out: Tensor,
    result: Tensor,
    backend: Backend,
    before: Tensor | None = None,
) -> None:
    """End a layer: add the bias to a product, and normalize the sum.

    A hidden layer has rows `before` it. Then `out` becomes relu(out + product + bias), and the
    result is before + layer_norm(out). Otherwise `out` becomes product + bias, and the result is
    layer_norm(out).

    Args:
        product: shape (m, C), of any dtype.
        bias: shape (C,).
        out: shape (m, C), changed in place.
        result: shape (m, C), overwritten; it may be `before`.
        backend: computes.
        before: shape (m, C), or None.
    """
    computing = backend.implementation(cpu_norms, reference)
    computing.normalize(product, bias, _EPS, out, result, before)


def normalize_backward(
    grad: Tensor,
    x: Tensor,
    packed: Tensor,
    backend: Backend,
    *,
    relu: bool,
    scale: Tensor | None = None,
) -> None:
    """Compute the gradient of `normalize` with respect to the sum that it normalizes.

    Args:
        grad: shape (m, C), the gradient with respect to layer_norm(x).
        x: shape (m, C), `out` of `normalize`; overwritten by the gradient.
        packed: shape (m, at least C), overwritten by a copy of the gradient in its own dtype.
        backend: computes.
        relu: the sum passed through ReLU before the normalization.
        scale: shape (m,), a factor for each row of the copy; None for ones.
    """
    factors = x.new_ones(len(x)) if scale is None else scale
    computing = backend.implementation(cpu_norms, reference)
    computing.normalize_backward(grad, x, _EPS, relu, factors, packed)


def mix_and_normalize(
    product: Tensor,
    bias: Tensor,
    gate: Tensor,
    own: Tensor,
    out: Tensor,
    scale: Tensor,
    backend: Backend,
) -> None:
    """End a layer with a gate: out = layer_norm(gate (product + bias) + (1 - gate) own).

    Args:
        product: shape (m, C), of any dtype.
        bias: shape (C,).
        gate: one number between 0 and 1.
        own: shape (m, C).
        out: shape (m, C), overwritten by the normalized rows.
        scale: shape (m, 1), overwritten by 1 / standard deviation of each row before it was
            normalized.
        backend: computes.
    """
    computing = backend.implementation(cpu_gates, reference)
    computing.mix_and_normalize(product, bias, gate, own, _EPS, out, scale)


def mix_and_normalize_backward(
    grad: Tensor, out: Tensor, scale: Tensor, own: Tensor, gate: Tensor, backend: Backend
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gradients of `mix_and_normalize` from its results; the product is not needed.

    Args:
        grad: shape (m, C), the gradient with respect to `out`.
        out: as in `mix_and_normalize`.
        scale: likewise.
        own: likewise.
        gate: likewise.
        backend: computes.

    Returns:
        The gradient with respect to the rows before they were normalized, shape (m, C); `gate`
        times this gradient, in the product dtype; and for each row, shape (m,), `gate` times the
        gradient with respect to the gate.
    """
    dtype = backend.product_dtype(out.dtype)
    computing = backend.implementation(cpu_gates, reference)
    found: tuple[Tensor, Tensor, Tensor] = computing.mix_and_normalize_backward(
        grad, out, scale, own, gate, dtype
    )
    return found
