"""The weights of a model and its decoder, and how a step of training moves them."""

from __future__ import annotations

import math

from torch import Tensor

from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.optimizer import Adam, LazyAdam


class Learner:
    """Adam for all weights; where steps see parts of the graph, lazy for the nodes' vectors."""

    def __init__(
        self,
        model: GraphSage | Hgt,
        decoder: DistMult,
        learning_rate: float,
        num_steps: int,
        *,
        by_parts: bool,
    ) -> None:
        """Start with no step taken.

        Args:
            model: on the device.
            decoder: on the device.
            learning_rate: step size of the first step.
            num_steps: how many are taken.
            by_parts: whether each step sees some nodes alone.
        """
        weights = [*model.parameters(), *decoder.parameters()]
        self._table = model.node_embedding
        self._lazy = LazyAdam(self._table.detach(), learning_rate) if by_parts else None
        if by_parts:
            weights = [weight for weight in weights if weight is not self._table]
        self._adam = Adam(weights, learning_rate)
        self._step, self._num_steps = 0, num_steps

    def vectors(self, nodes: Tensor | None) -> Tensor:
        """The vectors that a step starts from: of some nodes, shape (n, C), or of all if None."""
        if nodes is None or self._lazy is None:
            return self._table
        return self._lazy.take(nodes)

    def step(self) -> None:
        """Move the weights by their gradients, and drop these.

        The learning rate falls to nothing in a half wave ("SGDR", arXiv:1608.03983, eq. 5, without
        restarts): at a constant one, what a network finds depends on when it is stopped.
        """
        share = (1 + math.cos(math.pi * self._step / self._num_steps)) / 2
        self._step += 1
        self._adam.step(share)
        if self._lazy is not None:
            self._lazy.step(share)
