"""Rank all drugs for the diseases of a split: the rankers that are compared, and their task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.evaluation.baselines import BASELINES
from clinical_drug_discovery.evaluation.split import Split
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.ranking.bilinear_score import GnnScores, Scores
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.treatments import INDICATION, Pairs, pairs_of
from clinical_drug_discovery.system.errors import InputError

#: From node numbers of diseases, shape (n,), to scores of all drugs, shape (n, number of drugs).
Ranker = Callable[[IntArray], Scores]


@dataclass(frozen=True)
class RankingTask:
    """The drugs to find for some diseases, in the form that the functions of `metrics` take."""

    diseases: IntArray  #: shape (n,), node numbers, ascending
    known: npt.NDArray[np.bool_]  #: shape (n, number of drugs), drugs that treat the disease
    row: IntArray  #: shape (K,), for each pair the position of its disease in `diseases`
    candidate: IntArray  #: shape (K,), for each pair its drug, numbered within the node type


def ranking_task(split: Split, pairs: Pairs) -> RankingTask:
    """Return the task of finding some pairs: `split.test`, `split.validation` or both.

    Raises:
        InputError: `pairs` is empty.
    """
    if not len(pairs):
        raise InputError("pairs (got none) must hold at least 1 held-out pair to find")
    diseases = pairs.diseases
    row = np.searchsorted(diseases, pairs.disease)
    candidate = pairs.drug - node_range_of(split.graph, DRUG)[0]
    return RankingTask(diseases, known_drugs(split, diseases), row, candidate)


def known_drugs(split: Split, diseases: IntArray) -> npt.NDArray[np.bool_]:
    """Return which drugs treat some diseases, in the training graph or among the held-out pairs.

    Args:
        split: the training graph and the held-out pairs.
        diseases: shape (n,), node numbers, ascending.

    Returns:
        Bools, shape (n, number of drugs).
    """
    first, stop = node_range_of(split.graph, DRUG)
    known = np.zeros((len(diseases), stop - first), bool)
    for pairs in (pairs_of(split.graph), split.held_out):
        found = pairs.select(np.isin(pairs.disease, diseases))
        known[np.searchsorted(diseases, found.disease), found.drug - first] = True
    return known


def drug_rankers(
    graph: KnowledgeGraph, gnn: GnnScores, *, seed: int
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker, one by one, so that each fit can be timed.

    `gnn` scores the relation "indication" with the model's own decoder. `gnn, treatment decoder`
    scores the same embeddings with the decoder of `treatment_decoder`. `gnn, both decoders` adds
    the two. `ranker` is the one of `cdd rank`, and `paths` its part that uses metapaths alone. The
    baselines of `baselines.BASELINES` follow.

    Args:
        graph: the training graph, on the CPU.
        gnn: scores of a model that was trained on it.
        seed: seed of the fits.

    Raises:
        InputError: the graph lacks drugs, diseases, or a drug that treats a disease.
    """
    drugs, first_disease = node_range_of(graph, DRUG), node_range_of(graph, DISEASE)[0]
    indication = graph.relations.index(INDICATION)
    yield "gnn", lambda diseases: gnn(diseases, indication, drugs)

    ranker = fit_drug_ranker(graph, gnn=gnn, seed=seed)
    decoder = ranker.treatment_decoder
    assert decoder is not None
    features = MetapathFeatures(graph)  # after the fit, which holds features of its own
    for name, scores in (
        ("gnn, treatment decoder", lambda _, diseases: decoder.log_softmax(diseases)),
        ("gnn, both decoders", ranker.decoder_scores),
        ("ranker", ranker.scores),
        ("paths", ranker.paths.scores),
    ):
        yield name, partial(score_by_node, scores, features, first_disease)

    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)


def score_by_node(
    scores: Callable[[MetapathFeatures, IntArray], Scores],
    features: MetapathFeatures,
    first_disease: int,
    diseases: IntArray,
) -> Scores:
    """Convert node numbers to numbers within the type, and call a scoring function with them."""
    return scores(features, diseases - first_disease)
