"""TODO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from clinical_drug_discovery.models.collapse import Collapse
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.optimizer import Learner

History = list[dict[str, Any]]  #: one record per epoch


@dataclass(frozen=True)
class Trained:
    """A trained model, and what it made of all nodes."""

    model: nn.Module
    decoder: DistMult
    parameters: dict[str, Any]  #: "model", its name, and its settings
    embeddings: Tensor  #: shape (N, D), on the CPU
    history: History
    predicted_memory: int  #: peak bytes of the process, by the plan
    collapse: Collapse
    similarity: dict[str, float | int | None] | None  #: see `stats.EmbeddingStats`


def take_step(run: Run, loss: Tensor, learner: Learner, epoch: int) -> float:
    """One step down the loss; returns the loss.

    Raises:
        InputError: the loss is no finite number.
    """
    loss.backward()
    run.peak.sample()
    learner.step()
    value = loss.item()
    if not math.isfinite(value):
        raise InputError(
            f"learning_rate (got {run.learning_rate}) is too high: "
            f"the loss of epoch {epoch} is {value}"
        )
    return value
