"""The training settings of both models, and the checks that do not need a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..system.errors import InputError
from ..system.limits.parameters import check_fields

FULL, SAMPLED = "full", "sampled"  #: the two values of `training`
SUBGRAPH_SIZE = 20_000  #: default number of nodes in a subgraph


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
        if self.hidden_dim % self.num_heads:
            raise InputError(
                f"hidden_dim (got {self.hidden_dim}) must be divisible by num_heads "
                f"(got {self.num_heads})"
            )


Settings = SageSettings | HgtSettings


def _check_common(settings: Settings) -> None:
    """Check the settings that both models have."""
    check_fields(settings)
    if settings.subgraph_size is not None and settings.training == FULL:
        raise InputError(
            f"subgraph_size (got {settings.subgraph_size}) needs training {SAMPLED!r} "
            f"(got {FULL!r})"
        )
