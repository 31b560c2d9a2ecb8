"""Layer normalisation without parameters, in which both models' layers end.

"Layer Normalization" (arXiv:1607.06450), eq. 3 and 4, without gain and bias: rows of mean 0 and
length sqrt(dim).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_MEAN = 0.5  # of these weights, in standard deviations

_FIRST_WEIGHT = 3.0  # root mean square: the softmax of random embeddings is sharp enough then


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


class DistMult(nn.Module):
    """Scores a triple as sum_d z_src[d] * w_relation[d] * z_dst[d] / sqrt(D).

    "Embedding Entities and Relations for Learning and Inference in Knowledge Bases"
    (arXiv:1412.6575), eq. 2 with a diagonal matrix. It is symmetric, as the facts are; the division
    keeps what random vectors of any dimension score near `_FIRST_WEIGHT`. Scores compare targets of
    one source and relation; they are no probabilities.

    The weights of a relation start spread around a mean of half their deviation. Were all alike,
    each fact would draw its ends together in every dimension, and the drugs nearest to a statin
    would be those that it must not be taken with; so it is rather what relates to the same nodes.
    With a mean of 0 training is slower, since it starts from vectors that are alike where nodes are
    near: see docs/evaluation.md.
    """

    def __init__(self, num_relations: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        spread = torch.randn(num_relations, dim, generator=generator)
        self.relation = nn.Parameter(_FIRST_WEIGHT * (_MEAN + spread) / (1 + _MEAN**2) ** 0.5)

    def forward(self, z: Tensor, src: Tensor, relation: Tensor, dst: Tensor) -> Tensor:
        """Score triples.

        Args:
            z: shape (M, D), embeddings.
            src: shape (B,), int64, rows of z.
            relation: shape (B,), int64.
            dst: shape (B,), int64, rows of z.

        Returns:
            shape (B,).
        """
        products = z[src] * self.relation[relation] * z[dst]
        scores: Tensor = products.sum(dim=1) / z.shape[1] ** 0.5
        return scores
