"""Initial weights."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(shape: tuple[int, ...], in_dim: int, generator: torch.Generator) -> Tensor:
    """Weights that keep the variance of what they map from `in_dim` numbers."""
    bound = (3.0 / in_dim) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
