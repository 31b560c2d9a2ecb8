"""What a trained network says of triples: its decoder on its embeddings, all on the CPU.

What embeddings say of a drug and a disease, ready to be asked: no graph is needed any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    EdgeType,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.ranking.treatments import TREATS

Scores = npt.NDArray[np.floating]


class NetworkScores:
    """The scores of all triples, a few sources at a time; see `losses.DistMult`."""

    def __init__(self, embeddings: Tensor, decoder: DistMult) -> None:
        """Keep what scoring takes.

        Args:
            embeddings: shape (N, D), on the CPU.
            decoder: of the same training, on any device.
        """
        self.embeddings = embeddings
        self._weight = decoder.relation.detach().cpu() / embeddings.shape[1] ** 0.5

    def __call__(self, sources: IntArray, relation: int, span: tuple[int, int]) -> Scores:
        """Score all nodes of a range for sources.

        Args:
            sources: shape (n,), node numbers.
            relation: index into the graph's `relations`.
            span: first and stop of the M candidates.

        Returns:
            shape (n, M), float32.
        """
        of_source = self.embeddings[torch.from_numpy(sources)] * self._weight[relation]
        scores: Scores = (of_source @ self.embeddings[slice(*span)].T).numpy()
        return scores

    def of_treatments(self, graph: KnowledgeGraph) -> LinkScore:
        """Those of drugs for diseases, by the relation that most often says what treats what.

        Args:
            graph: that the network was trained on; it has such a relation.
        """
        counts = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        treats = max(TREATS, key=lambda name: counts.get(EdgeType(DRUG, name, DISEASE), 0))
        drugs, diseases = (
            self.embeddings[slice(*node_range_of(graph, k))] for k in (DRUG, DISEASE)
        )
        return LinkScore(drugs, diseases * self._weight[graph.relations.index(treats)])


@dataclass(frozen=True)
class LinkScore:
    """A product of vectors for every pair of a drug and a disease."""

    drugs: Tensor  #: shape (D, dim), float32: embeddings
    diseases: Tensor  #: shape (S, dim), float32: embeddings, with the weights of the relation

    def log_lifts(self, diseases: IntArray, known: npt.NDArray[np.bool_]) -> Floats:
        """How many times as likely as by chance each drug is among those not known, shape (n, D).

        Logarithms: of those not known a log-softmax, plus that of their number, so that nothing is
        shifted between diseases, however well the known ones have been learned. Of known ones by
        the same scale.

        Args:
            diseases: shape (n,), numbered within their type.
            known: shape (n, D).
        """
        asked = self.diseases[torch.from_numpy(np.asarray(diseases, np.int64))]
        logits, out = asked @ self.drugs.T, torch.from_numpy(known)
        total = logits.masked_fill(out, -torch.inf).logsumexp(dim=1, keepdim=True)
        number = (~out).sum(dim=1, keepdim=True)
        lifts = logits - torch.where(number > 0, total - number.log(), 0.0)
        return np.asarray(lifts.numpy(), np.float32)


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
