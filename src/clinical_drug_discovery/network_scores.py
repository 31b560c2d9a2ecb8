"""What a trained network says of triples: its decoder on its embeddings, all on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.graph import EdgeType, IntArray, KnowledgeGraph
from clinical_drug_discovery.losses import DistMult
from clinical_drug_discovery.metrics import Scores
from clinical_drug_discovery.pairs import DISEASE, DRUG, TREATS, span_of
from clinical_drug_discovery.typed import Floats


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
        """Those of drugs for diseases, by the first relation that says what treats what.

        Args:
            graph: that the network was trained on; it has such a relation.
        """
        kinds = set(graph.edge_types)
        treats = next(name for name in TREATS if EdgeType(DRUG, name, DISEASE) in kinds)
        drugs, diseases = (self.embeddings[slice(*span_of(graph, k))] for k in (DRUG, DISEASE))
        return LinkScore(drugs, diseases * self._weight[graph.relations.index(treats)])


@dataclass(frozen=True)
class LinkScore:
    """A product of vectors for every pair of a drug and a disease."""

    drugs: Tensor  #: shape (D, dim), float32: embeddings
    diseases: Tensor  #: shape (S, dim), float32: embeddings, with the weights of the relation

    def log_chances(self, diseases: IntArray) -> Floats:
        """Log-softmax over all drugs, shape (n, D).

        Args:
            diseases: shape (n,), numbered within their type.
        """
        asked = self.diseases[torch.from_numpy(np.asarray(diseases, np.int64))]
        chances: Floats = torch.log_softmax(asked @ self.drugs.T, dim=1).numpy()
        return chances
