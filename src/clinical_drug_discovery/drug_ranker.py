"""The ranker that is kept with a model: path evidence, what the embeddings say, and probabilities.

score = log-softmax of the path networks + weight x log-softmax of the embeddings' own scores. The
weight is 0 as long as the embeddings have learned the very pairs that they would be asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.calibrate import Calibration, fit_calibration
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.paths import PathEvidence
from clinical_drug_discovery.ranker import PathRanker, fit_ranker
from clinical_drug_discovery.treatments import treatments
from clinical_drug_discovery.typed import Floats

_DIGITS = 4  # of a score: finer differences are rounding, and drugs alike in all should tie


@dataclass(frozen=True)
class EmbeddingScore:
    """What a trained decoder gives a drug and a disease, up to what is the same for all drugs."""

    drugs: Tensor  #: shape (D, dim), float32
    diseases: Tensor  #: shape (S, dim), float32, times the relation's vector, over sqrt(dim)
    weight: float  #: of its log-softmax in the score

    def log_chances(self, diseases: IntArray) -> Floats:
        """Log-softmax over all drugs, shape (n, D)."""
        logits = self.diseases[torch.from_numpy(diseases)] @ self.drugs.T
        result: Floats = torch.log_softmax(logits, dim=1).numpy()
        return result


@dataclass(frozen=True)
class DrugRanker:
    """All that it takes to rank drugs for a disease, beside the graph."""

    paths: PathRanker
    embedding: EmbeddingScore | None
    with_known: Calibration  #: for diseases with a known drug
    without_known: Calibration  #: for diseases without any
    path_names: tuple[str, ...]  #: what the features count: must be what the graph gives

    def scores(self, evidence: PathEvidence, diseases: IntArray) -> Floats:
        """Score all drugs for diseases.

        Args:
            evidence: of the graph.
            diseases: shape (n,), numbered within their type.

        Returns:
            Shape (n, D), comparable within a disease.
        """
        scores = self.paths.scores(evidence, diseases)
        return np.round(_with_embedding(scores, self.embedding, diseases), _DIGITS)

    def probabilities(self, evidence: PathEvidence, diseases: IntArray, scores: Floats) -> Floats:
        """The probability that each pair is a recorded indication, shape (n, D)."""
        out = np.zeros_like(scores)
        for i, disease in enumerate(diseases.tolist()):
            has_known = evidence.num_known(disease) > 0
            curve = self.with_known if has_known else self.without_known
            out[i] = curve.probability(scores[i])
        return out


def why_no_ranker(graph: KnowledgeGraph) -> str | None:
    """Why no ranker can be fitted on a graph; None if one can."""
    try:
        known = treatments(graph)
    except InputError as error:
        return str(error)
    treated = int((known.sum(axis=0) > 0).sum())
    return None if treated > 1 else "a single disease is treated in the graph"


def fit_drug_ranker(
    graph: KnowledgeGraph, *, embedding: EmbeddingScore | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        embedding: what embeddings say, from a model that has not learned the pairs it scores.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs; see `why_no_ranker`.
    """
    evidence = PathEvidence(graph, for_many=False)
    paths = fit_ranker(evidence, seed=seed)
    curves = [_calibrate(evidence, paths, embedding, use_known=use) for use in (True, False)]
    return DrugRanker(paths, embedding, curves[0], curves[1], evidence.path_names)


def _calibrate(
    evidence: PathEvidence, paths: PathRanker, embedding: EmbeddingScore | None, *, use_known: bool
) -> Calibration:
    """Probabilities of one network's scores for the diseases that it has left out."""
    scores, known = [], []
    for n, diseases in enumerate(paths.left_out):
        asked = diseases if len(diseases) else evidence.treated  # a single disease
        found = paths.scores_by_network(evidence, asked, use_known=use_known)[:, n]
        scores.append(_with_embedding(found, embedding, asked).ravel())
        known.append(evidence.known[:, asked].toarray().T.ravel() > 0)
    return fit_calibration(np.concatenate(scores), np.concatenate(known))


def _with_embedding(scores: Floats, embedding: EmbeddingScore | None, diseases: IntArray) -> Floats:
    if embedding is None or not embedding.weight:
        return scores
    return scores + np.float32(embedding.weight) * embedding.log_chances(diseases)
