"""Held-out facts for the question of drug repurposing: which drug helps with this disease?

Three ways to hold out, from easy to hard: single pairs, whole diseases, and whole areas of related
diseases. In all of them the training graph has no edge at all between the two ends of a held-out
pair: the same pair under another relation (contraindication included) would give it away, so it
leaves as well and is counted. What the other relations say of pairs that are not held out stays.

Areas of related diseases, along the edges between diseases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from clinical_drug_discovery.graph.adjacency import adjacency_between
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    IntArray,
    KnowledgeGraph,
    node_range_of,
    without_edges,
)
from clinical_drug_discovery.ranking.treatments import (
    INDICATION,
    TREATS,
    Pairs,
    drug_disease_types,
    pair_keys,
    pairs_of,
)
from clinical_drug_discovery.system.errors import InputError


@dataclass(frozen=True)
class Split:
    """A training graph, and the pairs of a drug and a disease that it does not know."""

    graph: KnowledgeGraph  #: for training: all nodes, without the edges of held-out pairs
    validation: Pairs  #: to choose by
    test: Pairs  #: to report
    held_out: Pairs  #: both
    counts: dict[str, int]  #: of pairs and diseases, and of the directed edges that left


def split_pairs(
    graph: KnowledgeGraph, *, share: float, seed: int, validation_share: float = 0.5
) -> Split:
    """Hold out a random share of the indications; their diseases may keep others.

    Args:
        graph: on the CPU.
        share: of the distinct indicated pairs, above 0 and below 1.
        seed: of the choice, which depends on the facts alone, never on the order of the file.
        validation_share: of the held-out pairs, rounded down; at least 0 and below 1.

    Returns:
        The split; `num_removed_other_relation_edges` counts what is no indication.

    Raises:
        InputError: the graph has no indications, or the shares cannot be met.
    """
    pairs = pairs_of(graph, (INDICATION,))
    if not len(pairs):
        raise InputError(f"the graph has no {INDICATION!r} between drug and disease to hold out")
    number = round(share * len(pairs)) if 0 < share < 1 else 0
    if not 0 < number < len(pairs):
        raise InputError(
            f"share (got {share}) must be above 0 and below 1, and hold out some but not all "
            f"of the {len(pairs):,} pairs"
        )
    rng = np.random.default_rng(seed)
    group = np.full(len(pairs), -1)
    group[rng.choice(len(pairs), number, replace=False)] = np.arange(number)
    chosen = group >= 0
    return _hold_out(graph, pairs.select(chosen), group[chosen], validation_share, (INDICATION,))


def split_diseases(
    graph: KnowledgeGraph,
    *,
    num_diseases: int,
    min_drugs: int,
    max_drugs: int,
    seed: int,
    validation_share: float = 0.5,
) -> Split:
    """Hold out all indications and palliations of random diseases.

    Contraindications and the like of a held-out disease stay where they name other drugs.

    Args:
        graph: on the CPU.
        num_diseases: how many.
        min_drugs: that an eligible disease has at least, distinct ones that help.
        max_drugs: that it has at most.
        seed: of the choice.
        validation_share: of the held-out diseases, rounded down; at least 0 and below 1.

    Returns:
        The split.

    Raises:
        InputError: too few diseases are eligible, or a parameter breaks its rule.
    """
    _check_drugs(min_drugs, max_drugs)
    pairs = pairs_of(graph, TREATS)
    diseases, num_drugs = np.unique(pairs.disease, return_counts=True)
    eligible = diseases[(num_drugs >= min_drugs) & (num_drugs <= max_drugs)]
    if not 0 < num_diseases <= len(eligible):
        raise InputError(
            f"num_diseases (got {num_diseases}) must be at least 1 and at most {len(eligible):,}: "
            f"so many diseases have {min_drugs} to {max_drugs} drugs"
        )
    drawn = np.random.default_rng(seed).choice(eligible, num_diseases, replace=False)
    return _hold_out_diseases(graph, pairs, list(drawn[:, None]), validation_share)


def split_areas(
    graph: KnowledgeGraph,
    *,
    num_areas: int,
    seed: int,
    min_drugs: int = 3,
    max_hops: int = 2,
    max_diseases: int = 30,
    validation_share: float = 0.5,
) -> Split:
    """Hold out random diseases together with their relatives: nothing close is left to copy from.

    An area is a disease and those within some hops of it, along edges between diseases. Where
    `max_diseases` cuts an area short, or beyond `max_hops`, relatives keep their drugs.

    Args:
        graph: on the CPU.
        num_areas: how many; no disease is in two.
        seed: of the choice.
        min_drugs: that the disease in the middle has at least, distinct ones that help.
        max_hops: from the middle to the rim.
        max_diseases: of an area, the nearest first; of equally near ones those numbered lower.
        validation_share: of the areas, rounded down; at least 0 and below 1.

    Returns:
        The split; its counts also say how many diseases the areas have in all.

    Raises:
        InputError: the graph has too few areas, or a parameter breaks its rule.
    """
    for name, value in (
        ("num_areas", num_areas),
        ("max_hops", max_hops),
        ("max_diseases", max_diseases),
    ):
        if value < 1:
            raise InputError(f"{name} (got {value}) must be at least 1")
    _check_drugs(min_drugs, None)
    pairs = pairs_of(graph, TREATS)
    diseases, num_drugs = np.unique(pairs.disease, return_counts=True)
    middles = np.random.default_rng(seed).permutation(diseases[num_drugs >= min_drugs])
    areas = disease_areas(graph, middles, num_areas, max_hops, max_diseases)
    if len(areas) < num_areas:
        raise InputError(
            f"num_areas (got {num_areas}) must be at most {len(areas):,}: so many areas were "
            f"found around the {len(middles):,} diseases with at least {min_drugs} drugs"
        )
    split = _hold_out_diseases(graph, pairs, areas, validation_share)
    split.counts["num_area_diseases"] = sum(map(len, areas))
    return split


def _check_drugs(min_drugs: int, max_drugs: int | None) -> None:
    if min_drugs < 1:
        raise InputError(f"min_drugs (got {min_drugs}) must be at least 1")
    if max_drugs is not None and max_drugs < min_drugs:
        raise InputError(f"max_drugs (got {max_drugs}) must be at least min_drugs ({min_drugs})")


def _hold_out_diseases(
    graph: KnowledgeGraph, pairs: Pairs, groups: list[IntArray], validation_share: float
) -> Split:
    """Hold out all pairs of groups of diseases, a group wholly for validation or for test."""
    of_node = np.full(graph.num_nodes, -1)
    for number, diseases in enumerate(groups):
        of_node[diseases] = number
    group = of_node[pairs.disease]
    chosen = group >= 0
    return _hold_out(graph, pairs.select(chosen), group[chosen], validation_share, TREATS)


def _hold_out(
    graph: KnowledgeGraph,
    pairs: Pairs,
    group: npt.NDArray[np.int64],
    validation_share: float,
    asked: tuple[str, ...],
) -> Split:
    """Remove all that joins the pairs; the groups, numbered at random, go to validation first."""
    if not 0 <= validation_share < 1:
        raise InputError(
            f"validation_share (got {validation_share}) must be at least 0 and below 1"
        )
    is_validation = group < int(validation_share * (group.max() + 1))
    keys = pair_keys(graph, pairs.drug, pairs.disease)
    removed = np.zeros(graph.num_edges, bool)
    num_other = 0
    for r in drug_disease_types(graph):
        found = np.isin(pair_keys(graph, graph.src_of(r).numpy(), graph.dst_of(r).numpy()), keys)
        removed[graph.edge_type_ptr[r] : graph.edge_type_ptr[r + 1]] = found
        if graph.edge_types[r].relation not in asked:
            num_other += 2 * int(found.sum())  # the mirror leaves with it
    training = without_edges(graph, removed)
    validation, test = pairs.select(is_validation), pairs.select(~is_validation)
    counts = {
        f"num_{name}_{what}": number
        for name, part in (("held_out", pairs), ("validation", validation), ("test", test))
        for what, number in (("pairs", len(part)), ("diseases", len(part.diseases)))
    }
    counts["num_removed_edges"] = graph.num_edges - training.num_edges
    counts["num_removed_other_relation_edges"] = num_other
    counts["num_leaks"] = leak_count(training, pairs.drug, pairs.disease)
    assert counts["num_leaks"] == 0, counts
    return Split(training, validation, test, pairs, counts)


def relatives(graph: KnowledgeGraph) -> scipy.sparse.csr_array:
    """Which diseases are directly related, under any relation between two diseases.

    Args:
        graph: on the CPU.

    Returns:
        shape (n, n) for the n diseases in graph order, float32: symmetric, ones, nothing on the
        diagonal.
    """
    return adjacency_between(graph, DISEASE, DISEASE)


def disease_areas(
    graph: KnowledgeGraph, middles: IntArray, num_areas: int, max_hops: int, max_diseases: int
) -> list[IntArray]:
    """Disjoint areas around diseases: each with its relatives, the nearest first.

    Args:
        graph: on the CPU.
        middles: node numbers; taken in this order, those within an earlier area passed over.
        num_areas: how many are wanted.
        max_hops: from the middle to the rim.
        max_diseases: of an area; of equally near ones those numbered lower are taken.

    Returns:
        Node numbers, the middle first; fewer than `num_areas` areas where there are no more.

    Raises:
        InputError: no two diseases are related.
    """
    first, _ = node_range_of(graph, DISEASE)
    related = relatives(graph)
    if not related.nnz:
        raise InputError("the graph has no edges between diseases, so no areas can be held out")
    taken = np.zeros(related.shape[0], bool)
    areas: list[IntArray] = []
    for middle in middles.tolist():
        if len(areas) == num_areas:
            break
        if taken[middle - first]:
            continue
        members = frontier = np.array([middle - first])
        seen = taken.copy()
        seen[frontier] = True
        for _ in range(max_hops):
            near = np.unique(related[frontier].indices)
            frontier = near[~seen[near]][: max_diseases - len(members)]
            if not len(frontier):
                break
            seen[frontier] = True
            members = np.concatenate([members, frontier])
        taken[members] = True
        areas.append(members + first)
    return areas


def leak_count(graph: KnowledgeGraph, drug: IntArray, disease: IntArray) -> int:
    """How many directed edges join the two ends of a pair that should be unknown.

    Looks at every edge of the graph, of any type and in either direction, and knows nothing of how
    pairs are removed.

    Args:
        graph: on the CPU.
        drug: shape (K,), node numbers.
        disease: shape (K,), node numbers.
    """
    is_end = np.zeros(graph.num_nodes, bool)
    is_end[drug] = is_end[disease] = True
    src, dst = graph.src.numpy(), graph.dst.numpy()
    near = np.flatnonzero(is_end[src] & is_end[dst])
    # Which end is the drug does not matter here: lower and higher number, as one integer.
    edges = np.sort(np.stack([src[near], dst[near]]).astype(np.int64), axis=0)
    pairs = np.sort(np.stack([drug, disease]).astype(np.int64), axis=0)
    wide = graph.num_nodes
    return int(np.isin(edges[0] * wide + edges[1], pairs[0] * wide + pairs[1]).sum())
