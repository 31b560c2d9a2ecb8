"""The learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

LATER_FRACTION = 0.1  #: a cycle that was added later starts at this fraction of the learning rate
#: A training of at least so many steps moves the input vectors far enough at their usual rate.
_ENOUGH_STEPS = 100
_MOST_FASTER = 10.0  #: most by which a shorter training raises this rate; more was not measured


def learning_rate_fraction(step: int, cycles: Sequence[int]) -> float:
    """Return the fraction of the learning rate for a step of a training with one or more cycles.

    The first cycle is a cosine decay from 1. Each later one, which made a finished training longer,
    is a cosine decay from `LATER_FRACTION`: the weights are near a minimum already, and a restart
    at the full rate would leave it.

    Args:
        step: from 0.
        cycles: number of steps of each cycle.
    """
    fraction = 1.0
    for num_steps in cycles[:-1]:
        if step < num_steps:
            return fraction * cosine_decay(step, num_steps)
        step, fraction = step - num_steps, LATER_FRACTION
    return fraction * cosine_decay(step, cycles[-1])


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


def vector_rate_factor(num_steps: int) -> float:
    """Return the factor of the learning rate of the input vectors, which is 1 from 100 steps on.

    Adam moves each number of a vector by about the learning rate in a step. So a short training
    would leave the vectors where they started, whatever the loss asks for. With a rate that is
    higher by as much as the training is shorter, they can move as far as in 100 steps.

    Args:
        num_steps: number of steps of the first cycle.

    Example:
        >>> [vector_rate_factor(number) for number in (5, 10, 40, 100, 200)]
        [10.0, 10.0, 2.5, 1.0, 1.0]
    """
    return min(max(_ENOUGH_STEPS / num_steps, 1.0), _MOST_FASTER)
