"""TODO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from clinical_drug_discovery.system.errors import InputError, check_at_least, check_between
from clinical_drug_discovery.training.batches import check_training


def check_sizes(settings: Any, *at_least_one: str) -> None:
    """Refuse sizes that no model can have.

    Args:
        settings: of a model.
        at_least_one: what this model has beside embedding_dim, hidden_dim, num_layers and
            num_epochs, names of whole numbers of at least 1.

    Raises:
        InputError: it names the parameter.
    """
    # Layer normalisation leaves nothing of one number.
    least = {"embedding_dim": 2, "hidden_dim": 2, "num_layers": 1, "num_epochs": 1}
    for name, minimum in (least | dict.fromkeys(at_least_one, 1)).items():
        check_at_least(name, getattr(settings, name), minimum)
    check_between("learning_rate", settings.learning_rate, 0, math.inf)


@dataclass(frozen=True)
class SageSettings:
    """What GraphSAGE is trained with; `lib.gnn_embeddings` says what it means, and the defaults."""

    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    learning_rate: float
    edge_batch_size: int
    training: str
    subgraph_size: int | None
    bfloat16: bool

    def check(self) -> None:
        """Refuse what breaks a rule whatever the graph.

        Raises:
            InputError: it names the parameter.
        """
        check_sizes(self, "edge_batch_size")
        check_training(self.training, self.subgraph_size)


@dataclass(frozen=True)
class HgtSettings:
    """What HGT is trained with; `lib.gnn_hgt` says what it means, and the defaults."""

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
    disease_type: str
    gene_type: str
    disease_gene_relation: str
    bfloat16: bool

    def check(self) -> None:
        """Refuse what breaks a rule whatever the graph.

        Raises:
            InputError: it names the parameter.
        """
        check_sizes(self, "num_heads", "edge_sample_size")
        check_training(self.training, self.subgraph_size)
        if self.hidden_dim % self.num_heads:
            raise InputError(
                f"hidden_dim (got {self.hidden_dim}) must be divisible by num_heads "
                f"(got {self.num_heads})"
            )
        check_between("contrastive_weight", self.contrastive_weight, 0, 1, low_allowed=True)
        check_between("similarity_threshold", self.similarity_threshold, 0, 1)
        check_between("temperature", self.temperature, 0.001, math.inf, low_allowed=True)

    @property
    def alike(self) -> dict[str, str]:
        """What makes two nodes alike, as `similarity` names it."""
        return {
            "node_type": self.disease_type,
            "neighbor_type": self.gene_type,
            "relation": self.disease_gene_relation,
        }
