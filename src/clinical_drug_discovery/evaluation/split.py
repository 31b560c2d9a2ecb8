"""Split a graph into a training graph and held-out drug-disease pairs.

There are three splits, from easy to hard: single pairs, whole diseases, and areas of related
diseases. All edges between the two nodes of a held-out pair are removed, even if they have another
relation, such as contraindication: a model could infer the pair from such an edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import adjacency_between
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of, without_edges
from ..ranking.treatments import Pairs, lacks_treatments, pairs_of
from ..system.errors import InputError, check_at_least, counted
from .folds import Fold

#: Defaults of `num_diseases` and `num_areas`, for the messages.
NUM_DISEASES, NUM_AREAS = 60, 20


@dataclass(frozen=True)
class Split:
    """A training graph, and the drug-disease pairs that were removed from it."""

    graph: KnowledgeGraph  #: all nodes, without the edges of held-out pairs
    validation: Pairs  #: held-out pairs for choosing settings
    test: Pairs  #: held-out pairs for reporting
    held_out: Pairs  #: all held-out pairs: validation and test
    counts: dict[str, int]  #: numbers of pairs, diseases and removed directed edges


def split_pairs(
    graph: KnowledgeGraph,
    *,
    share: float = 0.1,
    seed: int,
    validation_share: float = 0.5,
    fold: Fold | None = None,
) -> Split:
    """Hold out a random fraction of the indications; a disease may keep other indications.

    Args:
        graph: on the CPU.
        share: fraction of the distinct indicated pairs to hold out, above 0 and below 1.
        seed: seed of the sample. The sample does not depend on the order of rows in the file.
        validation_share: fraction of the held-out pairs to use for validation, at least 0 and
            below 1. The number of pairs is rounded down.
        fold: hold out this part of all indications; `share` does not count then.

    Raises:
        InputError: the graph lacks indications, or a fraction or the number of folds is invalid.
    """
    indication = (graph.vocabulary.indication,)
    pairs = _treatment_pairs(graph, indication)
    number = round(share * len(pairs)) if 0 < share < 1 else 0
    if fold is None and not 0 < number < len(pairs):
        raise InputError(
            f"share (got {share}) must be above 0 and below 1, and must hold out some but not "
            f"all of the {len(pairs):,} pairs"
        )
    rng = np.random.default_rng(seed)
    group = np.full(len(pairs), -1)
    drawn: IntArray = (
        rng.choice(len(pairs), number, replace=False)
        if fold is None
        else fold.part(rng.permutation(len(pairs)), "indications")
    )
    group[drawn] = np.arange(len(drawn))
    chosen = group >= 0
    return _hold_out(graph, pairs.select(chosen), group[chosen], validation_share, indication)


def split_diseases(
    graph: KnowledgeGraph,
    *,
    num_diseases: int = NUM_DISEASES,
    min_drugs: int,
    max_drugs: int,
    seed: int,
    validation_share: float = 0.5,
    fold: Fold | None = None,
) -> Split:
    """Hold out all indications and palliations of random diseases.

    Args:
        graph: on the CPU.
        num_diseases: number of diseases to hold out.
        min_drugs: minimum number of drugs that treat a held-out disease.
        max_drugs: maximum number of drugs that treat a held-out disease.
        seed: seed of the sample.
        validation_share: fraction of the held-out diseases to use for validation, at least 0 and
            below 1. The number of diseases is rounded down.
        fold: hold out this part of all diseases with min_drugs to max_drugs drugs; `num_diseases`
            does not count then.

    Raises:
        InputError: too few diseases have min_drugs to max_drugs drugs, or a parameter is invalid.
    """
    check_at_least("min_drugs", min_drugs, 1)
    if max_drugs < min_drugs:
        raise InputError(f"max_drugs (got {max_drugs}) must be at least min_drugs ({min_drugs})")
    check_at_least("num_diseases", num_diseases, 1)
    pairs, eligible, num_treated = _eligible_diseases(graph, min_drugs, max_drugs)
    rng = np.random.default_rng(seed)
    if fold is not None:
        chosen = fold.part(
            rng.permutation(eligible), f"diseases with {_span(min_drugs, max_drugs)}"
        )
        return _hold_out_diseases(graph, pairs, list(chosen[:, None]), validation_share)
    most = min(len(eligible), num_treated - 1)  # training needs a disease that keeps its drugs
    if num_diseases > most:
        hint, why = "", ", and training needs one treated disease"
        if most == len(eligible):
            hint, why = " or a lower --min-drugs or a higher --max-drugs", ""
        raise InputError(
            f"{_asked('num_diseases', num_diseases, NUM_DISEASES)} must be at most {most:,}: "
            f"{counted(len(eligible), 'disease has', 'diseases have')} "
            f"{_span(min_drugs, max_drugs)}{why}; give --num-diseases {most}{hint}"
        )
    chosen = rng.choice(eligible, num_diseases, replace=False)
    return _hold_out_diseases(graph, pairs, list(chosen[:, None]), validation_share)


def split_areas(
    graph: KnowledgeGraph,
    *,
    num_areas: int = NUM_AREAS,
    seed: int,
    min_drugs: int = 3,
    max_hops: int = 2,
    max_diseases: int = 30,
    validation_share: float = 0.5,
    fold: Fold | None = None,
) -> Split:
    """Hold out all indications and palliations in areas of related diseases.

    An area is a random disease (the center) and the diseases around it. Distances count edges
    between diseases.

    Args:
        graph: on the CPU.
        num_areas: number of areas to hold out. No disease is in two areas.
        seed: seed of the sample.
        min_drugs: minimum number of drugs that treat the center.
        max_hops: maximum distance between the center and another disease of the area.
        max_diseases: maximum number of diseases of an area. The nearest diseases are taken; if
            distances are equal, the diseases with the lowest node numbers.
        validation_share: fraction of the areas to use for validation, at least 0 and below 1. The
            number of areas is rounded down.
        fold: hold out this part of all areas that are found; `num_areas` does not count then.

    Returns:
        The split. The count `num_area_diseases` is the number of diseases in all areas.

    Raises:
        InputError: the graph has too few areas, or a parameter is invalid.
    """
    check_at_least("num_areas", num_areas, 1)
    check_at_least("min_drugs", min_drugs, 1)
    check_at_least("max_hops", max_hops, 1)
    check_at_least("max_diseases", max_diseases, 1)
    pairs, eligible, _ = _eligible_diseases(graph, min_drugs, None)
    centres = np.random.default_rng(seed).permutation(eligible)
    most = num_areas if fold is None else len(centres)
    areas = _disease_areas(graph, centres, most, max_hops, max_diseases)
    if fold is not None:
        numbers = fold.part(np.arange(len(areas)), "areas")  # their order is random already
        areas = [areas[i] for i in numbers.tolist()]
    elif len(areas) < num_areas:
        raise InputError(
            f"{_asked('num_areas', num_areas, NUM_AREAS)} must be at most {len(areas):,}, the "
            f"number of areas that were found around the {len(centres):,} diseases with "
            f"{_span(min_drugs, None)}; give --num-areas {len(areas)}"
        )
    split = _hold_out_diseases(graph, pairs, areas, validation_share)
    split.counts["num_area_diseases"] = sum(map(len, areas))
    return split


def _eligible_diseases(
    graph: KnowledgeGraph, min_drugs: int, max_drugs: int | None
) -> tuple[Pairs, IntArray, int]:
    """Return all treatments, the diseases with these numbers of drugs, and a number.

    The number counts all diseases that a drug treats.

    Raises:
        InputError: the graph lacks treatments, or no disease has these numbers of drugs.
    """
    pairs = _treatment_pairs(graph, graph.vocabulary.treats)
    diseases, num_drugs = np.unique(pairs.disease, return_counts=True)
    most = num_drugs.max() if max_drugs is None else max_drugs
    eligible = diseases[(num_drugs >= min_drugs) & (num_drugs <= most)]
    if len(diseases) < 2:
        raise InputError(
            "the graph contains only one disease with a treatment; splits 'disease' and 'area' "
            "hold out whole diseases and need another one for training"
        )
    if not len(eligible):
        raise InputError(
            f"no disease has {_span(min_drugs, max_drugs)} (min_drugs, max_drugs): the "
            f"{len(diseases):,} treated diseases of the graph have {num_drugs.min():,} to "
            f"{num_drugs.max():,}; change --min-drugs or --max-drugs"
        )
    return pairs, eligible, len(diseases)


def _span(min_drugs: int, max_drugs: int | None) -> str:
    """Return the allowed numbers of drugs in words."""
    if max_drugs == min_drugs:
        return f"{min_drugs} drugs"
    return f"{min_drugs} to {max_drugs} drugs" if max_drugs else f"at least {min_drugs} drugs"


def _asked(name: str, value: int, default: int) -> str:
    """Return the name and the value of a parameter, for a message."""
    return f"{name} ({'default' if value == default else 'got'} {value})"


def _hold_out_diseases(
    graph: KnowledgeGraph, pairs: Pairs, groups: list[IntArray], validation_share: float
) -> Split:
    """Hold out all pairs of some groups of diseases; a group is only in validation or in test."""
    group_of_node = np.full(graph.num_nodes, -1)
    for number, diseases in enumerate(groups):
        group_of_node[diseases] = number
    group = group_of_node[pairs.disease]
    chosen = group >= 0
    return _hold_out(
        graph, pairs.select(chosen), group[chosen], validation_share, graph.vocabulary.treats
    )


def _treatment_pairs(graph: KnowledgeGraph, relations: tuple[str, ...]) -> Pairs:
    """Return the drug-disease pairs of `relations`; refuse a graph that has none."""
    pairs = pairs_of(graph, relations)
    if not len(pairs):
        raise InputError(lacks_treatments(graph, relations))
    return pairs


def _hold_out(
    graph: KnowledgeGraph,
    pairs: Pairs,
    group: npt.NDArray[np.int64],
    validation_share: float,
    relations: tuple[str, ...],
) -> Split:
    """Hold out K pairs: remove all edges between the two nodes of each pair.

    `group`, shape (K,), has the random group number of each pair. The first groups are used for
    validation. `relations` made these nodes a pair; removed edges of other relations are
    counted separately.
    """
    if not 0 <= validation_share < 1:
        raise InputError(
            f"validation_share (got {validation_share}) must be at least 0 and below 1"
        )
    is_validation = group < int(validation_share * (group.max() + 1))
    removed = edges_between(graph, pairs.drug, pairs.disease)
    training = without_edges(graph, removed)
    by_type = np.diff(np.r_[0, np.cumsum(removed)][graph.arrays.edge_type_ptr])
    other = [kind.relation not in relations for kind in graph.edge_types]
    validation, test = pairs.select(is_validation), pairs.select(~is_validation)
    counts = {
        f"num_{name}_{what}": number
        for name, part in (("held_out", pairs), ("validation", validation), ("test", test))
        for what, number in (("pairs", len(part)), ("diseases", len(part.diseases)))
    }
    counts["num_removed_edges"] = graph.num_edges - training.num_edges
    counts["num_removed_other_relation_edges"] = 2 * int(by_type[other].sum())  # both directions
    counts["num_leaks"] = leak_count(training, pairs.drug, pairs.disease)
    assert counts["num_leaks"] == 0, counts
    return Split(training, validation, test, pairs, counts)


def edges_between(graph: KnowledgeGraph, src: IntArray, dst: IntArray) -> npt.NDArray[np.bool_]:
    """Return a mask, shape (E,), of the edges of any type from src[i] to dst[i], for all i."""
    in_pair = np.zeros(graph.num_nodes, bool)
    in_pair[src] = in_pair[dst] = True
    pairs = np.unique(src.astype(np.int64) * graph.num_nodes + dst)
    found = np.zeros(graph.num_edges, bool)
    for r in range(len(graph.edge_types)):
        start, stop = graph.arrays.edge_type_ptr[r : r + 2].tolist()
        from_, to = graph.src_of(r).numpy(), graph.dst_of(r).numpy()
        near = np.flatnonzero(in_pair[from_] & in_pair[to])
        keys = from_[near].astype(np.int64) * graph.num_nodes + to[near]
        found[start:stop][near] = np.isin(keys, pairs)
    return found


def _disease_areas(
    graph: KnowledgeGraph, centres: IntArray, num_areas: int, max_hops: int, max_diseases: int
) -> list[IntArray]:
    """Return at most `num_areas` areas; a center that is in an earlier area is skipped.

    The areas are disjoint. The node numbers of an area are in the order of their distances.
    """
    first, _ = node_range_of(graph, graph.vocabulary.disease_type)
    related = adjacency_between(graph, *[graph.vocabulary.disease_type] * 2)
    if not related.nnz:
        raise InputError("the graph contains no edges between diseases; split 'area' needs them")
    taken = np.zeros(related.shape[0], bool)
    areas: list[IntArray] = []
    for centre in centres.tolist():
        if len(areas) == num_areas:
            break
        if taken[centre - first]:
            continue
        members = frontier = np.array([centre - first])
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
    """Count the edges, of any type and direction, that join the two nodes of a pair.

    This function checks a split, so it does not use the code that makes the split.

    Args:
        graph: on the CPU.
        drug: shape (K,), node numbers.
        disease: shape (K,), node numbers.
    """
    in_pair = np.zeros(graph.num_nodes, bool)
    in_pair[drug] = in_pair[disease] = True
    src, dst = graph.src.numpy(), graph.dst.numpy()
    near = np.flatnonzero(in_pair[src] & in_pair[dst])
    # A pair is encoded as one integer: lower node number * n + higher node number.
    edges = np.sort(np.stack([src[near], dst[near]]).astype(np.int64), axis=0)
    pairs = np.sort(np.stack([drug, disease]).astype(np.int64), axis=0)
    n = graph.num_nodes
    return int(np.isin(edges[0] * n + edges[1], pairs[0] * n + pairs[1]).sum())


@dataclass(frozen=True)
class RankingTask:
    """Held-out drugs of some diseases, in the form that the functions of `metrics` expect."""

    diseases: IntArray  #: shape (n,), node numbers, ascending
    known: npt.NDArray[np.bool_]  #: shape (n, number of drugs), drugs that treat the disease
    row: IntArray  #: shape (K,), position in `diseases` of the disease of each pair
    candidate: IntArray  #: shape (K,), drug of each pair, numbered within the node type


def ranking_task(split: Split, pairs: Pairs) -> RankingTask:
    """Return the task of ranking some pairs: `split.test`, `split.validation` or both.

    Raises:
        InputError: `pairs` is empty.
    """
    if not len(pairs):
        raise InputError("pairs (got none) must hold at least 1 held-out pair to find")
    diseases = pairs.diseases
    row = np.searchsorted(diseases, pairs.disease)
    candidate = pairs.drug - node_range_of(split.graph, split.graph.vocabulary.drug_type)[0]
    return RankingTask(diseases, known_drugs(split, diseases), row, candidate)


def known_drugs(split: Split, diseases: IntArray) -> npt.NDArray[np.bool_]:
    """Return which drugs treat which disease, in the training graph or among the held-out pairs.

    Args:
        split: the training graph and the held-out pairs.
        diseases: shape (n,), node numbers, ascending.

    Returns:
        shape (n, number of drugs), True for drugs that treat the disease.
    """
    first, stop = node_range_of(split.graph, split.graph.vocabulary.drug_type)
    known = np.zeros((len(diseases), stop - first), bool)
    for pairs in (pairs_of(split.graph), split.held_out):
        found = pairs.select(np.isin(pairs.disease, diseases))
        known[np.searchsorted(diseases, found.disease), found.drug - first] = True
    return known
