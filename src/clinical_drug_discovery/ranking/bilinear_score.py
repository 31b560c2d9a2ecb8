"""Inner products of vectors as scores of drug-disease pairs and of triples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph, node_range_of
from ..models.layers import DistMult

Scores = npt.NDArray[np.floating]
_NO_PAIRS, _NO_SCORES = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


@dataclass(frozen=True)
class BilinearScore:
    """The scores of all pairs of a drug and a disease, both numbered within their types.

    score(drug, disease) = drugs[drug] @ diseases[disease], except for K listed known pairs. Each
    listed pair has a `known_score`, computed as if the graph did not contain the pair.
    """

    drugs: Tensor  #: shape (D, dim), float32
    diseases: Tensor  #: shape (S, dim), float32
    known_disease: Tensor = _NO_PAIRS  #: shape (K,), int64, ascending: disease of each listed pair
    known_drug: Tensor = _NO_PAIRS  #: shape (K,), int64: drug of each listed pair
    known_score: Tensor = _NO_SCORES  #: shape (K,), float32: score of each listed pair

    def logits(self, diseases: IntArray) -> Tensor:
        """Return the scores of all D drugs for n diseases, shape (n, D)."""
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
        """Return the log-softmax over the drugs in each row of `logits`, shape (n, D)."""
        return np.asarray(torch.log_softmax(self.logits(diseases), dim=1).numpy())

    def log_lifts(self, diseases: IntArray, known: npt.NDArray[np.bool_]) -> Floats:
        """Return each drug's score relative to the unknown drugs of the disease, shape (n, D).

        result = logit - logsumexp(logits of unknown drugs) + log(number of unknown drugs)

        The model has memorized the known drugs (`known` is true, shape (n, D)), so they are left
        out of the sum. If all drugs of a disease are known, result = logit.
        """
        logits, excluded = self.logits(diseases), torch.from_numpy(known)
        total = logits.masked_fill(excluded, -torch.inf).logsumexp(dim=1, keepdim=True)
        number = (~excluded).sum(dim=1, keepdim=True)
        lifts = logits - torch.where(number > 0, total - number.log(), 0.0)
        return np.asarray(lifts.numpy(), np.float32)


def mean_score(scores: Sequence[BilinearScore]) -> BilinearScore:
    """Return a score with the mean logits of `scores`, which must list the same known pairs."""
    return BilinearScore(
        torch.cat([score.drugs for score in scores], dim=1),
        torch.cat([score.diseases * (1 / len(scores)) for score in scores], dim=1),
        scores[0].known_disease,
        scores[0].known_drug,
        torch.stack([score.known_score for score in scores]).mean(dim=0),
    )


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

    def of_treatments(self, graph: KnowledgeGraph) -> BilinearScore:
        """Return all drug-disease scores for the treating relation with the most edges."""
        words = graph.vocabulary
        ends = (words.drug_type, words.disease_type)
        counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        kinds = {name: EdgeType(ends[0], name, ends[1]) for name in words.treats}
        relation = max(kinds, key=lambda name: counts.get(kinds[name], 0))
        drugs, diseases = (self.embeddings[slice(*node_range_of(graph, kind))] for kind in ends)
        return BilinearScore(drugs, diseases * self._weight[graph.relations.index(relation)])
