"""The sums over all drugs after a few facts were added, from the sums of the model before.

A new drug adds a term to each sum. The scores of other drugs also change, because a target of the
new drug has one more drug, and its name shares stems with other names. These changes are small, but
they reach all drugs, so exact sums would cost a ranking of all drugs for all diseases. The sums
here leave them out, except for the diseases of added facts.
"""

from __future__ import annotations

import numpy as np

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ...system.log import part
from ...system.machine import one_thread
from ...system.processes import let_others
from ..path_scores import PathRanker
from .disease_side import DiseaseSide
from .log_sums import FORMS
from .one_drug import OneDrug
from .shared_parts import SharedParts

_MOST_FACTS = 1_000  # with more added facts, all sums are computed
_MOST_DISEASES, _MOST_DRUGS = 256, 64  # of added facts; likewise


def are_few(before: KnowledgeGraph, graph: KnowledgeGraph) -> bool:
    """Return whether the added facts are so few that `sums_after_facts` is quick and near."""
    diseases, drugs = changed_diseases(before, graph), new_drugs(before, graph)
    is_short = _num_added(before, graph) <= _MOST_FACTS
    return is_short and len(diseases) <= _MOST_DISEASES and len(drugs) <= _MOST_DRUGS


def have_same_diseases(before: KnowledgeGraph, graph: KnowledgeGraph) -> bool:
    """Return whether all added facts join a new drug and a node that is not a disease.

    Then nothing that the diseases have changes, apart from the number of drugs.
    """
    first, _ = node_range_of(graph, graph.vocabulary.drug_type)
    of_drugs = int(graph.degrees[first + new_drugs(before, graph)].sum())
    return of_drugs == _num_added(before, graph) and not len(changed_diseases(before, graph))


def new_drugs(before: KnowledgeGraph, graph: KnowledgeGraph) -> IntArray:
    """Return the drugs that were added, numbered within their type: they are its last nodes."""
    number = _number_of(before, before.vocabulary.drug_type)
    return np.arange(number, _number_of(graph, graph.vocabulary.drug_type))


def changed_diseases(before: KnowledgeGraph, graph: KnowledgeGraph) -> IntArray:
    """Return the diseases that were added or have more facts, numbered within their type."""
    kind = graph.vocabulary.disease_type
    old, now = (one.degrees[slice(*node_range_of(one, kind))] for one in (before, graph))
    return np.flatnonzero(np.pad(old, (0, len(now) - len(old)), constant_values=-1) != now)


@one_thread(True)
def sums_after_facts(
    before: SharedParts, graph: KnowledgeGraph, side: DiseaseSide, paths: PathRanker
) -> Floats:
    """Return nearly the sums of a graph with added facts, shape (2, M, S).

    Args:
        before: the model without the facts.
        graph: with the facts; old drugs and diseases keep their numbers within their type.
        side: of this graph.
        paths: of both models.
    """
    features, old = side.features, before.sums()
    sums = np.full((*old.shape[:2], features.num_diseases), -np.inf, np.float32)
    sums[:, :, : old.shape[2]] = old
    for drug in new_drugs(before.graph, graph).tolist():
        one = OneDrug(side, drug)
        for form in FORMS:
            logits = one.logits(paths, popularity=form.popularity)
            np.logaddexp(sums[form.popularity], logits, out=sums[form.popularity])
        let_others()
    changed = changed_diseases(before.graph, graph)
    with part("Ranking the diseases of the added facts", len(changed), "disease") as advance:
        for disease in changed:
            sums[:, :, [disease]] = paths.log_sums(features, np.array([disease]), FORMS)
            advance()
            let_others()
    return sums


def _num_added(before: KnowledgeGraph, graph: KnowledgeGraph) -> int:
    return (graph.num_edges - before.num_edges) // 2


def _number_of(graph: KnowledgeGraph, node_type: str) -> int:
    first, stop = node_range_of(graph, node_type)
    return stop - first
