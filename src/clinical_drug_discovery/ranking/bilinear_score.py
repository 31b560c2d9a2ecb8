"""Scores that are inner products of vectors: drugs with diseases, and any two nodes of a triple."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import DISEASE, DRUG, EdgeType, IntArray, KnowledgeGraph, node_range_of
from ..models.layers import DistMult
from .treatments import TREATS

Scores = npt.NDArray[np.floating]
_NO_PAIRS, _NO_SCORES = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


@dataclass(frozen=True)
class BilinearScore:
    """Score pairs of a drug and a disease, numbered within their types, by inner products.

    Known pairs may have scores of their own, computed as if the graph did not contain them. These
    replace the inner products.
    """

    drugs: Tensor  #: shape (D, dim), float32
    diseases: Tensor  #: shape (S, dim), float32
    known_disease: Tensor = _NO_PAIRS  #: shape (K,), int64, ascending
    known_drug: Tensor = _NO_PAIRS  #: shape (K,), int64
    known_score: Tensor = _NO_SCORES  #: shape (K,), float32

    def logits(self, diseases: IntArray) -> Tensor:
        """Return the scores of all drugs for diseases of shape (n,), as shape (n, D)."""
        rows = torch.from_numpy(np.asarray(diseases, np.int64))
        logits = self.diseases[rows] @ self.drugs.T
        first, stop = (
            torch.searchsorted(self.known_disease, rows, right=right).tolist()
            for right in (False, True)
        )
        for row, start, end in zip(logits, first, stop, strict=True):
            row[self.known_drug[start:end]] = self.known_score[start:end]
        return logits

    def log_softmax(self, diseases: IntArray) -> Floats:
        """Return the log-softmax of `logits` over all drugs, shape (n, D)."""
        return np.asarray(torch.log_softmax(self.logits(diseases), dim=1).numpy())

    def log_lifts(self, diseases: IntArray, known: npt.NDArray[np.bool_]) -> Floats:
        """Return the log of each drug's probability over that of a random drug, shape (n, D).

        The softmax runs over the drugs that are not known (`known`, shape (n, D)), so the scale is
        the same for all diseases, even where the model has learned the known drugs by heart. Known
        drugs get the same shift.
        """
        logits, excluded = self.logits(diseases), torch.from_numpy(known)
        total = logits.masked_fill(excluded, -torch.inf).logsumexp(dim=1, keepdim=True)
        number = (~excluded).sum(dim=1, keepdim=True)
        lifts = logits - torch.where(number > 0, total - number.log(), 0.0)
        return np.asarray(lifts.numpy(), np.float32)


def mean_score(scores: Sequence[BilinearScore]) -> BilinearScore:
    """Return the score whose logits are the mean of several with the same known pairs."""
    return BilinearScore(
        torch.cat([score.drugs for score in scores], dim=1),
        torch.cat([score.diseases * (1 / len(scores)) for score in scores], dim=1),
        scores[0].known_disease,
        scores[0].known_drug,
        torch.stack([score.known_score for score in scores]).mean(dim=0),
    )


class GnnScores:
    """Score triples by a GNN's embeddings and its DistMult decoder, on the CPU.

    Args:
        embeddings: shape (N, D), on the CPU.
        decoder: trained together with them, on any device.
    """

    def __init__(self, embeddings: Tensor, decoder: DistMult) -> None:
        self.embeddings = embeddings
        self._weight = decoder.relation.detach().cpu() / embeddings.shape[1] ** 0.5

    def __call__(self, sources: IntArray, relation: int, candidates: tuple[int, int]) -> Scores:
        """Score the triples (source, relation, candidate), shape (n, M), float32.

        Args:
            sources: shape (n,), node numbers.
            relation: index into the graph's `relations`.
            candidates: first and stop of a range of M nodes.
        """
        weighted = self.embeddings[torch.from_numpy(sources)] * self._weight[relation]
        return np.asarray((weighted @ self.embeddings[slice(*candidates)].T).numpy())

    def of_treatments(self, graph: KnowledgeGraph) -> BilinearScore:
        """Return the scores of drugs for diseases under the GNN's most frequent one of `TREATS`."""
        counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        relation = max(TREATS, key=lambda name: counts.get(EdgeType(DRUG, name, DISEASE), 0))
        drugs, diseases = (
            self.embeddings[slice(*node_range_of(graph, kind))] for kind in (DRUG, DISEASE)
        )
        return BilinearScore(drugs, diseases * self._weight[graph.relations.index(relation)])
