"""What embeddings say of a drug and a disease, ready to be asked: no graph is needed any more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray


@dataclass(frozen=True)
class KnownPairs:
    """The scores that known pairs have when the graph does not say that they are known."""

    disease: Tensor  #: shape (K,), int64, ascending, numbered within their type
    drug: Tensor  #: shape (K,), int64
    logits: Tensor  #: shape (K,), float32


@dataclass(frozen=True)
class EmbeddingScore:
    """A product of vectors for every pair, but for the known ones, which would only be repeated."""

    drugs: Tensor  #: shape (D, dim), float32
    diseases: Tensor  #: shape (S, dim), float32
    known: KnownPairs

    def log_chances(self, diseases: IntArray) -> Floats:
        """Log-softmax over all drugs, shape (n, D).

        Args:
            diseases: shape (n,), numbered within their type.
        """
        asked = torch.from_numpy(np.asarray(diseases, np.int64))
        logits = self.diseases[asked] @ self.drugs.T
        first, stop = (
            torch.searchsorted(self.known.disease, asked, right=right) for right in (False, True)
        )
        for row, (start, end) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            logits[row, self.known.drug[start:end]] = self.known.logits[start:end]
        result: Floats = torch.log_softmax(logits, dim=1).numpy()
        return result


def mean_score(scores: list[EmbeddingScore]) -> EmbeddingScore:
    """The score whose log-softmax is, but for a constant of the disease, the mean of several.

    Args:
        scores: of the same known pairs.
    """
    part = 1 / len(scores)
    return EmbeddingScore(
        torch.cat([score.drugs for score in scores], dim=1),
        torch.cat([score.diseases * part for score in scores], dim=1),
        KnownPairs(
            scores[0].known.disease,
            scores[0].known.drug,
            torch.stack([score.known.logits for score in scores]).mean(dim=0),
        ),
    )
