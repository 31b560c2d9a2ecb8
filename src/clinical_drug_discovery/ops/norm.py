"""Layer normalization, alone and together with the operations before and after it.

"Layer Normalization" (arXiv:1607.06450), eq. 3 and 4, without gain and bias.

Notation: m rows of C columns.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from . import reference
from .backend import Backend
from .cpu import norms as cpu_norms

_EPS = 1e-5


def layer_norm(x: Tensor) -> Tensor:
    """Normalize each row to mean 0 and length sqrt(C)."""
    return functional.layer_norm(x, x.shape[1:], eps=_EPS)


def layer_norm_with_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the normalized rows, and 1 / standard deviation of each row, shape (m, 1)."""
    out, _, scale = torch.native_layer_norm(x, x.shape[1:], None, None, _EPS)
    return out, scale


def layer_norm_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient with respect to x, given the one with respect to `layer_norm(x)`."""
    _, mean, scale = torch.native_layer_norm(x, x.shape[1:], None, None, _EPS)
    return reference.layer_norm_backward(grad, x, mean, scale)


def layer_norm_backward_from_result(grad: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    """Return the same gradient, given the results of `layer_norm_with_scale` instead of x."""
    mean, one = torch.zeros_like(scale), torch.ones_like(scale)
    return reference.layer_norm_backward(grad, out, mean, one).mul_(scale)


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
    _operations(backend).normalize(product, bias, _EPS, out, result, before)


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
    _operations(backend).normalize_backward(grad, x, _EPS, relu, factors, packed)


def _operations(backend: Backend) -> ModuleType:
    return cpu_norms if backend.kernels else reference
