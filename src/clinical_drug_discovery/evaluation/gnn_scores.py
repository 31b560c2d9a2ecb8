"""Scores of triples by the model's own decoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.knowledge_graph import IntArray
from ..models.layers import DistMult

Scores = npt.NDArray[np.floating]


class GnnScores:
    """Score triples with the embeddings and the DistMult decoder of a GNN, on the CPU.

    Args:
        embeddings: shape (N, D), on the CPU.
        decoder: trained together with the embeddings, on any device.
    """

    def __init__(self, embeddings: Tensor, decoder: DistMult) -> None:
        self.embeddings = embeddings
        self._weight = decoder.relation.detach().cpu() / embeddings.shape[1] ** 0.5

    def __call__(self, sources: IntArray, relation: int, candidates: tuple[int, int]) -> Scores:
        """Return the scores of all triples (source, relation, candidate), shape (n, M), float32.

        Args:
            sources: shape (n,), node numbers.
            relation: index into the graph's `relations`.
            candidates: (first, stop) of a range of M node numbers; stop is excluded.
        """
        weighted = self.embeddings[torch.from_numpy(sources)] * self._weight[relation]
        return np.asarray((weighted @ self.embeddings[slice(*candidates)].T).numpy())
