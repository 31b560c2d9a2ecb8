"""The training settings of both models, and the checks that do not need a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..system.errors import InputError, check_at_least, check_between

FULL, SAMPLED = "full", "sampled"  #: the two values of `training`
SUBGRAPH_SIZE = 20_000  #: default number of nodes in a subgraph
# Adam moves each weight by about the learning rate, and float32 cannot hold the squares of more.
_MOST_LEARNING_RATE = 1e18


@dataclass(frozen=True)
class SageSettings:
    """The settings of GraphSAGE; see `lib.gnn_embeddings` for meanings and defaults."""

    model: ClassVar[str] = "graphsage"
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    learning_rate: float
    edge_batch_size: int
    training: str
    subgraph_size: int | None

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: a setting is invalid; the message names the setting.
        """
        _check_common(self)
        check_at_least("edge_batch_size", self.edge_batch_size, 1)


@dataclass(frozen=True)
class HgtSettings:
    """The settings of HGT; see `lib.gnn_hgt` for meanings and defaults."""

    model: ClassVar[str] = "hgt"
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_epochs: int
    learning_rate: float
    contrastive_weight: float
    edge_sample_size: int
    training: str
    subgraph_size: int | None
    similarity_threshold: float
    temperature: float

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: a setting is invalid; the message names the setting.
        """
        _check_common(self)
        check_at_least("num_heads", self.num_heads, 1)
        check_at_least("edge_sample_size", self.edge_sample_size, 1)
        if self.hidden_dim % self.num_heads:
            raise InputError(
                f"hidden_dim (got {self.hidden_dim}) must be divisible by num_heads "
                f"(got {self.num_heads})"
            )
        check_between("contrastive_weight", self.contrastive_weight, 0, 1, low_allowed=True)
        check_between("similarity_threshold", self.similarity_threshold, 0, 1)
        check_between("temperature", self.temperature, 0.001, math.inf, low_allowed=True)


Settings = SageSettings | HgtSettings


def _check_common(settings: Settings) -> None:
    """Check the settings that both models have."""
    # At least 2 numbers per vector: layer normalization would turn a single number into 0.
    least = {"embedding_dim": 2, "hidden_dim": 2, "num_layers": 1, "num_epochs": 1}
    for name, minimum in least.items():
        check_at_least(name, getattr(settings, name), minimum)
    check_between("learning_rate", settings.learning_rate, 0, _MOST_LEARNING_RATE)
    if settings.training not in (FULL, SAMPLED):
        raise InputError(f"training (got {settings.training!r}) must be {FULL!r} or {SAMPLED!r}")
    if settings.subgraph_size is not None:
        check_at_least("subgraph_size", settings.subgraph_size, 1)
        if settings.training == FULL:
            raise InputError(
                f"subgraph_size (got {settings.subgraph_size}) needs training {SAMPLED!r} "
                f"(got {FULL!r})"
            )
