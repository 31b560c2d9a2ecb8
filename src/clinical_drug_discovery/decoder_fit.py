"""Decoders beside the networks of a path ranker, each without what its network has left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clinical_drug_discovery.embedding_score import EmbeddingScore, mean_score
from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.propagation import Propagation
from clinical_drug_discovery.treatment_decoder import decode, fit_treatment_decoder

NUM_STEPS = 4  #: from a drug to a disease


@dataclass(frozen=True)
class FittedDecoders:
    """What several decoders say together, and each of the diseases that it was asked about."""

    score: EmbeddingScore
    with_known: list[Floats]  #: log-chances (n, D), of known pairs with a tenth of all hidden
    without_known: list[Floats]  #: as if nothing were known to treat these diseases


def fit_decoders(
    graph: KnowledgeGraph,
    embeddings: Tensor,
    *,
    left_out: Sequence[IntArray],
    asked: Sequence[IntArray],
    seed: int,
) -> FittedDecoders:
    """Fit one decoder for each set of diseases to leave out.

    Args:
        graph: on the CPU.
        embeddings: shape (drugs, any), of a model of the graph.
        left_out: for each decoder diseases that it learns nothing from, numbered within their type.
        asked: for each decoder the diseases to ask it about.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs.
    """
    propagation = Propagation(graph, NUM_STEPS)
    scores: list[EmbeddingScore] = []
    with_known, without_known = [], []
    for n, (never, diseases) in enumerate(zip(left_out, asked, strict=True)):
        decoder = fit_treatment_decoder(
            propagation, embeddings, left_out=never, seed=seed * 1000 + n
        )
        scores.append(decode(decoder, propagation))
        with_known.append(scores[-1].log_chances(diseases))
        unseen = decode(decoder, propagation, unseen=diseases)
        without_known.append(unseen.log_chances(diseases))
    return FittedDecoders(mean_score(scores), with_known, without_known)
