"""Adam, without what `torch.optim` brings along: its first use imports a compiler of 70 MB."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_CHUNK = 1 << 18  # numbers at a time: what is computed of them stays in the cache
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Adam:
    """Alg. 1 of "Adam: A Method for Stochastic Optimization" (arXiv:1412.6980), usual constants.

    Equal to `torch.optim.Adam`. Keeps two numbers beside each weight.
    """

    def __init__(self, weights: Iterable[Tensor], learning_rate: float) -> None:
        self._weights = list(weights)
        self._moments = [
            (torch.zeros_like(w.detach()), torch.zeros_like(w.detach())) for w in self._weights
        ]
        self._learning_rate = learning_rate
        self._num_steps = 0

    @torch.no_grad()
    def step(self, share: float = 1.0) -> None:
        """Move every weight that has a gradient, and drop the gradients.

        They do not lie beside the next forward pass then.

        Args:
            share: of the learning rate, for a schedule.
        """
        self._num_steps += 1
        size = share * self._learning_rate / (1 - _BETA1**self._num_steps)
        root = (1 - _BETA2**self._num_steps) ** 0.5
        for weight, moments in zip(self._weights, self._moments, strict=True):
            if weight.grad is None:
                continue
            whole = (weight, weight.grad, *moments)
            chunks = zip(*(tensor.view(-1).split(_CHUNK) for tensor in whole), strict=True)
            for part, grad, mean, square in chunks:
                mean.lerp_(grad, 1 - _BETA1)
                square.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
                part.addcdiv_(mean, square.sqrt().div_(root).add_(_EPS), value=-size)
            weight.grad = None
