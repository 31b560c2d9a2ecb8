"""Layer normalisation without parameters, in which both models' layers end.

"Layer Normalization" (arXiv:1607.06450), eq. 3 and 4, without gain and bias: rows of mean 0 and
length sqrt(dim).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPS = 1e-5


def normed(x: Tensor) -> Tensor:
    """Normalise each row."""
    return functional.layer_norm(x, x.shape[1:], eps=_EPS)


def normed_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised rows, and 1 / their deviation, shape (m, 1)."""
    out, _, scale = torch.native_layer_norm(x, x.shape[1:], None, None, _EPS)
    return out, scale


def normed_gradient_of(grad: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    """`normed_gradient`, from what `normed_and_scale` gave in place of x."""
    mean, one = torch.zeros_like(scale), torch.ones_like(scale)
    by_x: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, out, out.shape[1:], mean, one, None, None, [True, False, False]
    )[0]
    return by_x.mul_(scale)


def normed_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `normed` by x, from that by its result."""
    shape = x.shape[1:]
    _, mean, scale = torch.native_layer_norm(x, shape, None, None, _EPS)
    by_x: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad, x, shape, mean, scale, None, None, [True, False, False]
    )[0]
    return by_x
