"""Rank all drugs for the diseases of a split, and say how well.

Everything that ranks drugs for the diseases of one training graph, side by side.

A ranker is a function from n diseases (node numbers) to scores, shape (n, number of drugs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.boosting import fit_boosted
from clinical_drug_discovery.evaluation.baselines import BASELINES
from clinical_drug_discovery.evaluation.metrics import Metrics, ranking_metrics
from clinical_drug_discovery.evaluation.split import Split
from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.ranking.bilinear_score import NetworkScores, Scores
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.ranking.metapath_features import PathEvidence
from clinical_drug_discovery.ranking.treatments import INDICATION, Pairs, pairs_of
from clinical_drug_discovery.system.errors import InputError

Part = Literal["validation", "test", "held_out"]


@dataclass(frozen=True)
class Question:
    """Which drugs are to be found for which diseases, as the functions of `metrics` take it."""

    diseases: IntArray  #: shape (n,), node numbers, ascending
    known: npt.NDArray[np.bool_]  #: shape (n, number of drugs)
    row: IntArray  #: shape (K,), of each held-out pair the disease's place in `diseases`
    candidate: IntArray  #: shape (K,), of each held-out pair the drug, numbered within its type

    @staticmethod
    def of(split: Split, part: Part) -> Question:
        """What a part of a split asks.

        Raises:
            InputError: the part is empty.
        """
        pairs: Pairs = getattr(split, part)
        if not len(pairs):
            raise InputError(f"part (got {part!r}) must hold pairs; see validation_share")
        diseases = pairs.diseases
        row = np.searchsorted(diseases, pairs.disease)
        candidate = pairs.drug - node_range_of(split.graph, DRUG)[0]
        return Question(diseases, known_drugs(split, diseases), row, candidate)


def rank_metrics_of(
    split: Split,
    scores_of: Callable[[IntArray], Scores],
    *,
    part: Part = "test",
    seed: int = 0,
) -> Metrics:
    """How well scores find the held-out drugs of diseases among all drugs.

    Args:
        split: gives the pairs to find and, with the pairs of both parts and of the training graph,
            what is known.
        scores_of: from n node numbers of diseases to their scores, shape (n, number of drugs).
        part: the pairs to find; `held_out` for both parts.
        seed: see `metrics.ranking_metrics`.

    Returns:
        See `metrics.ranking_metrics`.

    Raises:
        InputError: the part is empty, or scores have another shape or are not finite.
    """
    asked = Question.of(split, part)
    scores = scores_of(asked.diseases)
    return ranking_metrics(scores, asked.known, asked.row, asked.candidate, seed=seed)


def known_drugs(split: Split, diseases: IntArray) -> npt.NDArray[np.bool_]:
    """Which drugs help some diseases, by the training graph or by what is held out.

    Args:
        split: see `split.Split`.
        diseases: shape (n,), node numbers, ascending.

    Returns:
        shape (n, number of drugs).
    """
    first, stop = node_range_of(split.graph, DRUG)
    known = np.zeros((len(diseases), stop - first), bool)
    for pairs in (pairs_of(split.graph), split.held_out):
        asked = np.isin(pairs.disease, diseases)
        known[np.searchsorted(diseases, pairs.disease[asked]), pairs.drug[asked] - first] = True
    return known


Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, network: NetworkScores, *, seed: int
) -> Iterator[tuple[str, Ranker]]:
    """Make the rankers, one when it is asked for; those over typed paths share what is dear.

    Args:
        graph: for training, on the CPU.
        network: trained on it.
        seed: of the fits.

    Yields:
        Name and ranker: `network`, by the relation "indication"; `network, treatment decoder`, that
        of `treatment_decoder` on the same embeddings; `network, both decoders`, the two together;
        `ranker`, what `cdd embed` keeps for `cdd rank`; `paths, listwise` and `paths, boosted`,
        networks and trees over the evidence of typed paths alone; those of `baselines.BASELINES`.

    Raises:
        InputError: the graph has no drugs, no diseases, or knows of no drug that helps.
    """
    drugs, first_disease = node_range_of(graph, DRUG), node_range_of(graph, DISEASE)[0]
    indication = graph.relations.index(INDICATION)
    yield "network", lambda diseases: network(diseases, indication, drugs)

    ranker = fit_drug_ranker(graph, network=network, seed=seed)
    decoder = ranker.embedding
    assert decoder is not None

    evidence = PathEvidence(graph)  # not before: the fit has its own
    for name, scores_of in (
        ("network, treatment decoder", lambda _, diseases: decoder.log_chances(diseases)),
        ("network, both decoders", ranker.network_scores),
    ):
        yield name, partial(of_nodes, scores_of, evidence, first_disease)

    for name, scores_of in (("ranker", ranker.scores), ("paths, listwise", ranker.paths.scores)):
        yield name, partial(of_nodes, scores_of, evidence, first_disease)
    boosted = fit_boosted(evidence, seed=seed)
    yield "paths, boosted", partial(of_nodes, boosted.scores, evidence, first_disease)

    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)


def of_nodes(
    scores_of: Callable[[PathEvidence, IntArray], Floats],
    evidence: PathEvidence,
    first_disease: int,
    diseases: IntArray,
) -> Floats:
    """Typed paths number diseases within their type."""
    return scores_of(evidence, diseases - first_disease)
