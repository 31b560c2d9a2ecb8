"""The rankers that an evaluation compares: trained rankers and untrained baselines.

A ranker maps node numbers of diseases, shape (n,), to scores of all drugs in graph order, shape
(n, number of drugs). Rankers also score known drugs, but the metrics ignore these scores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import did_you_mean
from ..ranking.drug_ranker import DrugRanker, fit_drug_ranker
from ..ranking.metapath_features import MetapathFeatures
from ..ranking.stored.check_ranker import check_fits
from ..system.errors import InputError
from .baselines import BASELINES
from .embedding_probe import neighbor_scores
from .gnn_scores import GnnScores, Scores

GNN = "gnn"  #: the model's own decoder
RANKER = "ranker"  #: the drug ranker of `cdd rank`
_FITTED = (RANKER, "ranker, no popularity", "paths")
NEIGHBORS = "neighbors"  #: the probe of embeddings
#: Names of all rankers that an evaluation can compare.
RANKERS = (GNN, *_FITTED, NEIGHBORS, *BASELINES)


#: Maps node numbers of diseases, shape (n,), to scores of all drugs, shape (n, number of drugs).
Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, gnn: GnnScores, *, seed: int, names: Collection[str] = RANKERS
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker. Each is fitted when needed, for timing.

    `gnn` scores the relation "indication" with the decoder of the model. `ranker` is the drug
    ranker of `cdd rank`, and `paths` is the part of it that uses only metapaths. `neighbors` is the
    probe of `embedding_probe`. The baselines of `BASELINES` follow.

    Args:
        graph: the training graph, on the CPU.
        gnn: scores of a model that was trained on this graph.
        seed: seed of fitting the drug ranker.
        names: rankers to yield, of `RANKERS`. The drug ranker is fitted only if a part is needed.

    Raises:
        InputError: the graph lacks drugs, diseases, or a drug that treats a disease.
    """
    if GNN in names:
        yield GNN, _gnn_ranker(graph, gnn)
    if needs_fit(names):
        ranker = fit_drug_ranker(graph, embeddings=gnn.embeddings, seed=seed)
        yield from _parts(graph, ranker, names)
    yield from _untrained(graph, gnn.embeddings, names)


def saved_rankers(
    graph: KnowledgeGraph, ranker: DrugRanker | None, gnn: GnnScores | None, names: Collection[str]
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker, from a saved model; see `drug_rankers`.

    Args:
        graph: the graph of the model, on the CPU.
        ranker: the saved drug ranker.
        gnn: scores of the model.
        names: rankers to yield. None of `why_not_saved` may be among them.
    """
    if GNN in names and gnn is not None:
        yield GNN, _gnn_ranker(graph, gnn)
    if ranker is not None:
        yield from _parts(graph, ranker, names)
    yield from _untrained(graph, None if gnn is None else gnn.embeddings, names)


def why_not_saved(has_ranker: bool, has_embeddings: bool) -> dict[str, str]:
    """Return the rankers that a saved model cannot provide, with the reasons."""
    missing: dict[str, str] = {}
    if not has_ranker:
        missing |= dict.fromkeys(_FITTED, "the model directory lacks a drug ranker")
    if not has_embeddings:
        why = "the embeddings are missing; name their file with embeddings"
        missing |= dict.fromkeys((GNN, NEIGHBORS), why)
    return missing


@dataclass(frozen=True)
class FittedRanker:
    """The drug ranker on a graph; it also gives probabilities."""

    ranker: DrugRanker
    features: MetapathFeatures
    first_disease: int  #: number of the first disease among all nodes

    def __call__(self, diseases: IntArray) -> Scores:
        """Return the scores of all drugs for n diseases (node numbers), shape (n, D)."""
        return self.ranker.scores(self.features, diseases - self.first_disease)

    def probabilities(self, diseases: IntArray, scores: Scores) -> Scores:
        """Return the probabilities of recorded indications, from the result of a call."""
        own = diseases - self.first_disease
        return self.ranker.probabilities(self.features, own, np.asarray(scores, np.float32))[0]


def _gnn_ranker(graph: KnowledgeGraph, gnn: GnnScores) -> Ranker:
    words = graph.vocabulary
    drugs = node_range_of(graph, words.drug_type)
    indication = graph.relations.index(words.indication)
    return lambda diseases: gnn(diseases, indication, drugs)


def _parts(
    graph: KnowledgeGraph, ranker: DrugRanker, names: Collection[str]
) -> Iterator[tuple[str, Ranker]]:
    """Yield the drug ranker and its parts."""
    if not needs_fit(names):
        return
    first, _ = node_range_of(graph, graph.vocabulary.disease_type)
    features = MetapathFeatures(graph)  # after the fit, which frees the features it computed
    check_fits(ranker, features)
    parts: dict[str, Ranker] = {
        RANKER: FittedRanker(ranker, features, first),
        "ranker, no popularity": lambda diseases: ranker.scores(
            features, diseases - first, popularity=False
        ),
        "paths": lambda diseases: ranker.paths.scores(features, diseases - first),
    }
    yield from ((name, part) for name, part in parts.items() if name in names)


def _untrained(
    graph: KnowledgeGraph, embeddings: Tensor | None, names: Collection[str]
) -> Iterator[tuple[str, Ranker]]:
    if NEIGHBORS in names and embeddings is not None:
        yield NEIGHBORS, partial(neighbor_scores, graph, embeddings)
    for name, baseline in BASELINES.items():
        if name in names:
            yield name, partial(baseline, graph)


def check_rankers(rankers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the rankers to compare, in the order of `RANKERS`; None means all.

    Raises:
        InputError: the list is empty, or a name is not the name of a ranker.
    """
    if rankers is None:
        return RANKERS
    if isinstance(rankers, str) or not rankers:
        raise InputError(f"rankers (got {rankers!r}) must be a list of names of rankers")
    for name in rankers:
        if name not in RANKERS:
            raise InputError(
                f"rankers (got {name!r}) must be among {'; '.join(RANKERS)}"
                f"{did_you_mean(str(name), list(RANKERS))}"
            )
    return tuple(name for name in RANKERS if name in rankers)


def needs_fit(names: Collection[str]) -> bool:
    """Return whether one of these rankers is a part of the fitted drug ranker."""
    return not set(names).isdisjoint(_FITTED)
