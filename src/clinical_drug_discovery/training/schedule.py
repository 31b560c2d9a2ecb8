"""The learning-rate schedule."""

from __future__ import annotations

import math


def cosine_decay(step: int, num_steps: int) -> float:
    """Return the fraction of the learning rate for a step, which falls from 1 to almost 0.

    Half a cosine wave, as in "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv:1608.03983, eq. 5), without restarts. At a constant rate, what a model finds depends on
    when the training stops.

    Args:
        step: counted from 0.
        num_steps: steps of the whole training.
    """
    return (1 + math.cos(math.pi * step / num_steps)) / 2
