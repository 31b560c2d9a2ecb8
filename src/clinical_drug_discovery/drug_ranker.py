"""The ranker that is kept with a model: path evidence, what the model says, and probabilities.

score = log-softmax of the path networks + weight x log-softmax of the treatment decoder + 0.2 x
lift by the model's own decoder. The first weight is fitted on diseases of which neither has
learned anything, one for diseases with known drugs and one for those without. The model itself has
learned from every known pair: its weight cannot be fitted so, and of known pairs what it is
expected to say takes the place of what it says. Of diseases without known drugs it is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.blend import Expectation, fit_expectation, fit_weight
from clinical_drug_discovery.calibrate import Calibration, fit_calibration
from clinical_drug_discovery.decoder_fit import fit_decoders
from clinical_drug_discovery.embedding_score import EmbeddingScore
from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, span_of
from clinical_drug_discovery.network_scores import LinkScore, NetworkScores
from clinical_drug_discovery.pairs import DRUG
from clinical_drug_discovery.paths import PathEvidence
from clinical_drug_discovery.ranker import PathRanker, fit_ranker
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.treatments import treatments

# Of the weight by diseases that were left out: the model whose embeddings are asked has seen what
# treats them, of which the pairs that are looked for have no part.
_TRUST = 0.5
# Of the model's own decoder beside the paths, and beside the treatment decoder alone. With twice as
# much diseases' best 50 drugs get worse, with half of it the best one.
_OWN, _OWN_ALONE = 0.2, 0.4
_DIGITS = 4  # of a score: finer differences are rounding, and drugs alike in all should tie


@dataclass(frozen=True)
class Blend:
    """How scores of diseases of one kind are put together, and what they then mean."""

    weight: float  #: of the treatment decoder's log-chances beside those of the paths
    expected: Expectation | None  #: of the model's own decoder; None: it is not asked
    calibration: Calibration


@dataclass(frozen=True)
class DrugRanker:
    """All that it takes to rank drugs for a disease, beside the graph."""

    paths: PathRanker
    embedding: EmbeddingScore | None
    network: LinkScore | None
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
        self._add_own(evidence, diseases, scores, _OWN)
        return np.round(scores, _DIGITS)

    def network_scores(self, evidence: PathEvidence, diseases: IntArray) -> Floats:
        """What the model says without the paths: by the treatment decoder and by its own.

        Args:
            evidence: of the graph; says what is known.
            diseases: shape (n,), numbered within their type.

        Returns:
            Shape (n, D), comparable within a disease.

        Raises:
            ValueError: the ranker was fitted without a model.
        """
        if self.embedding is None:
            raise ValueError("a ranker of paths alone has no scores of a network")
        scores = self.embedding.log_chances(diseases)
        self._add_own(evidence, diseases, scores, _OWN_ALONE)
        return scores

    def _add_own(
        self, evidence: PathEvidence, diseases: IntArray, scores: Floats, weight: float
    ) -> None:
        """Add what the model's own decoder says, where it is asked."""
        for row, disease in zip(scores, diseases.tolist(), strict=True):
            expected = self._blend(evidence, disease).expected
            if self.network is not None and expected is not None:
                known = np.zeros(len(row), bool)
                known[evidence.known_drugs(disease)] = True
                own = self.network.log_lifts(np.array([disease]), known[None])[0]
                own[known] = expected.of(row[known])
                row += np.float32(weight) * own

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
    graph: KnowledgeGraph, *, network: NetworkScores | None = None, seed: int = 0
) -> DrugRanker:
    """Fit the ranker, its weights and its probabilities on all known pairs of a graph.

    Args:
        graph: on the CPU.
        network: a model of the graph; paths alone if None.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs; see `why_no_ranker`.
    """
    evidence = PathEvidence(graph, for_many=False)
    paths = fit_ranker(evidence, seed=seed)
    # A single disease is learned, and asked about all the same.
    asked = [out if len(out) else evidence.treated for out in paths.left_out]
    known = np.concatenate([evidence.known[:, s].toarray().T > 0 for s in asked])
    said: dict[bool, list[Floats] | None] = {True: None, False: None}
    embedding, links, own = None, None, None
    if network is not None:
        drugs = network.embeddings[slice(*span_of(graph, DRUG))]
        decoders = fit_decoders(graph, drugs, left_out=paths.left_out, asked=asked, seed=seed)
        said = {True: decoders.with_known, False: decoders.without_known}
        embedding, links = decoders.score, network.of_treatments(graph)
        own = links.log_lifts(np.concatenate(asked), known)
    blends = []
    for use_known in (True, False):
        by_paths = [
            paths.scores_by_network(evidence, diseases, use_known=use_known)[:, n]
            for n, diseases in enumerate(asked)
        ]
        seen = own if use_known else None
        blends.append(_blend(np.concatenate(by_paths), said[use_known], seen, known))
    return DrugRanker(paths, embedding, links, blends[0], blends[1], evidence.path_names)


def _blend(
    paths: Floats, embedding: list[Floats] | None, own: Floats | None, known: npt.NDArray[np.bool_]
) -> Blend:
    """Weight and probabilities by what each network and decoder says of what it left out."""
    scores: Floats = paths
    weight, expected = 0.0, None
    if embedding is not None:
        other = np.concatenate(embedding)
        weight = _TRUST * fit_weight(scores, other, known)
        scores = np.asarray(scores + weight * other, np.float32)
    if own is not None:
        expected = fit_expectation(scores, own, known)
        unseen = np.where(known, expected.of(scores), own)
        scores = np.asarray(scores + _OWN * unseen, np.float32)
    return Blend(weight, expected, fit_calibration(scores.ravel(), known.ravel()))
