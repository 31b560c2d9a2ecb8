"""The ranker that is kept with a model: path evidence, what the embeddings say, and probabilities.

score = log-softmax of the path networks + weight x log-softmax of the treatment decoder. The weight
is fitted on diseases of which neither has learned anything, one for diseases with known drugs and
one for those without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clinical_drug_discovery.blend import fit_weight
from clinical_drug_discovery.calibrate import Calibration, fit_calibration
from clinical_drug_discovery.decoder_fit import fit_decoders
from clinical_drug_discovery.embedding_score import EmbeddingScore
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.paths import PathEvidence
from clinical_drug_discovery.ranker import PathRanker, fit_ranker
from clinical_drug_discovery.treatments import treatments
from clinical_drug_discovery.typed import Floats

# Of the weight by diseases that were left out: the model whose embeddings are asked has seen what
# treats them, of which the pairs that are looked for have no part.
_TRUST = 0.5
_DIGITS = 4  # of a score: finer differences are rounding, and drugs alike in all should tie


@dataclass(frozen=True)
class Blend:
    """How scores of diseases of one kind are put together, and what they then mean."""

    weight: float  #: of the embeddings' log-chances beside those of the paths
    calibration: Calibration


@dataclass(frozen=True)
class DrugRanker:
    """All that it takes to rank drugs for a disease, beside the graph."""

    paths: PathRanker
    embedding: EmbeddingScore | None
    with_known: Blend  #: for diseases with a known drug
    without_known: Blend  #: for diseases without any
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
        if self.embedding is not None:
            weights = [self._blend(evidence, disease).weight for disease in diseases.tolist()]
            scores += np.array(weights, np.float32)[:, None] * self.embedding.log_chances(diseases)
        return np.round(scores, _DIGITS)

    def probabilities(self, evidence: PathEvidence, diseases: IntArray, scores: Floats) -> Floats:
        """The probability that each pair is a recorded indication, shape (n, D)."""
        out = np.zeros_like(scores)
        for i, disease in enumerate(diseases.tolist()):
            out[i] = self._blend(evidence, disease).calibration.probability(scores[i])
        return out

    def _blend(self, evidence: PathEvidence, disease: int) -> Blend:
        return self.with_known if evidence.num_known(disease) > 0 else self.without_known


def why_no_ranker(graph: KnowledgeGraph) -> str | None:
    """Why no ranker can be fitted on a graph; None if one can."""
    try:
        known = treatments(graph)
    except InputError as error:
        return str(error)
    treated = int((known.sum(axis=0) > 0).sum())
    return None if treated > 1 else "a single disease is treated in the graph"


def fit_drug_ranker(
    graph: KnowledgeGraph, *, embeddings: Tensor | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker, its weights and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        embeddings: shape (drugs, any), of a model of the graph; paths alone if None.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs; see `why_no_ranker`.
    """
    evidence = PathEvidence(graph, for_many=False)
    paths = fit_ranker(evidence, seed=seed)
    # A single disease is learned, and asked about all the same.
    asked = [out if len(out) else evidence.treated for out in paths.left_out]
    known = [evidence.known[:, diseases].toarray().T > 0 for diseases in asked]
    said: dict[bool, list[Floats] | None] = {True: None, False: None}
    embedding = None
    if embeddings is not None:
        decoders = fit_decoders(graph, embeddings, left_out=paths.left_out, asked=asked, seed=seed)
        said = {True: decoders.with_known, False: decoders.without_known}
        embedding = decoders.score
    blends = []
    for use_known in (True, False):
        own = [
            paths.scores_by_network(evidence, diseases, use_known=use_known)[:, n]
            for n, diseases in enumerate(asked)
        ]
        blends.append(_blend(own, said[use_known], known))
    return DrugRanker(paths, embedding, blends[0], blends[1], evidence.path_names)


def _blend(
    paths: list[Floats], embedding: list[Floats] | None, known: list[npt.NDArray[np.bool_]]
) -> Blend:
    """Weight and probabilities by what each network and decoder says of what it left out."""
    scores, has = np.concatenate(paths), np.concatenate(known)
    weight = 0.0
    if embedding is not None:
        other = np.concatenate(embedding)
        weight = _TRUST * fit_weight(scores, other, has)
        scores = scores + np.float32(weight) * other
    return Blend(weight, fit_calibration(scores.ravel(), has.ravel()))
