"""The learning-rate schedule."""

from __future__ import annotations

import math


def cosine_decay(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate in a step, which falls from 1 to almost 0.

    The factor follows half a cosine wave, as in eq. 5 of "SGDR: Stochastic Gradient Descent with
    Warm Restarts" (arXiv:1608.03983), without restarts. With a constant learning rate, the quality
    of the model would depend on the epoch in which training stops.

    Args:
        step: number of the step, from 0.
        num_steps: number of steps in the whole training.
    """
    return (1 + math.cos(math.pi * step / num_steps)) / 2
