"""The area of each disease, such as "eye disorder", from the relations between diseases.

A graph of PrimeKG's kind does not say which of two related diseases is the parent. So the areas are
found by their names, and every disease belongs to the area that the cheapest way through related
diseases leads to. A way that goes through a very special disease, such as one with two neighbors,
is expensive: it would go down to a child and up to another parent of it. So is a way through a
class such as "autosomal recessive disease", which has hundreds of neighbors from all areas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ...graph.adjacency import adjacency_between
from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...ranking.treatments import treatment_matrix
from ...system.errors import InputError

#: Name of each area, and the words in the names of its diseases, without "disorder", "disease" and
#: "system". They are those of MONDO, EFO and the Disease Ontology.
AREAS = {
    "cancer": ("cancer", "cancer or benign tumor", "neoplasm"),
    "heart and vessels": ("cardiovascular", "heart", "vascular"),
    "respiratory system": ("respiratory", "lung"),
    "digestive system": ("digestive", "gastrointestinal", "liver", "hepatobiliary"),
    "hormones": ("endocrine",),
    "nervous system": ("nervous",),
    "muscles and bones": ("musculoskeletal", "bone", "connective tissue"),
    "kidney and urinary tract": ("urinary", "kidney"),
    "reproduction": ("reproductive", "obstetric"),
    "immune system": ("immune", "autoimmune"),
    "blood": ("hematologic", "hematopoietic"),
    "skin": ("skin", "integumentary"),
    "eye": ("eye", "visual", "disorder of visual"),
    "ear": ("ear", "otorhinolaryngologic"),
    "psychiatry": ("psychiatric",),
    "metabolism": ("metabolic", "nutritional"),
    "infection": ("infectious",),
    "hereditary": ("hereditary", "syndromic", "genetic"),
}
LEAST_AREAS = 3
_FOR_ALL = "hereditary"  # an area for diseases that no way leads to an organ
# The cost of a step through a disease with d neighbors: 0.02 + 1 / d + d / 1000. We chose the
# numbers on 35 well-known diseases of a public graph of MONDO; 31 of them came to a fitting area.
_STEP, _LARGE, _TO_HEREDITARY = 0.02, 1000, 0.6


def disease_areas(graph: KnowledgeGraph) -> list[str | None]:
    """Return the area of each disease, in the order of the diseases.

    Args:
        graph: on the CPU.

    Returns:
        One name of `AREAS` per disease; None if no way leads from it to an area.

    Raises:
        InputError: the graph does not have relations between diseases, or fewer than 3 diseases
            whose names are those of areas.
    """
    disease = graph.vocabulary.disease_type
    first, stop = node_range_of(graph, disease)
    related = adjacency_between(graph, disease, disease)
    heads = {
        at: area
        for at, name in enumerate(graph.nodes["node_name"][first:stop])
        if (area := _AREA_OF.get(_stem(name)))
    }
    num_areas = len(set(heads.values()))
    if not related.nnz or num_areas < LEAST_AREAS:
        raise InputError(
            "color_by (got 'area') needs relations between diseases and names of areas such as "
            f"'nervous system disorder': the graph has {related.nnz // 2:,} such relations and "
            f"{num_areas} areas"
        )
    degree = np.maximum(np.diff(related.indptr), 1)
    cost = _STEP + 1 / degree + degree / _LARGE
    for at, area in heads.items():
        cost[at] = _TO_HEREDITARY if area == _FOR_ALL else _STEP
    # From the areas outwards, each step costs as much as the disease that it leaves.
    entries = (np.repeat(cost, np.diff(related.indptr)), related.indices, related.indptr)
    ways = csr_array(entries, shape=related.shape)
    _, _, start = dijkstra(ways, indices=sorted(heads), min_only=True, return_predecessors=True)
    return [heads.get(at) for at in start.tolist()]


def drug_areas(graph: KnowledgeGraph) -> list[str | None]:
    """Return the area in which each drug treats the most diseases, in the order of the drugs.

    Returns:
        One name of `AREAS` per drug, the first one in the alphabet if several have as many; None
        for drugs that treat nothing in the graph.

    Raises:
        InputError: see `disease_areas`.
    """
    names = sorted(AREAS)
    areas = np.array([-1 if a is None else names.index(a) for a in disease_areas(graph)])
    known = treatment_matrix(graph).tocoo()
    disease, drug = known.coords
    counts = np.zeros((known.shape[1], len(names)), np.int64)
    counted: npt.NDArray[np.bool_] = areas[disease] >= 0
    np.add.at(counts, (drug[counted], areas[disease[counted]]), 1)
    return [
        names[best] if most else None
        for best, most in zip(counts.argmax(axis=1), counts.max(axis=1), strict=True)
    ]


def _stem(name: str) -> str:
    stem = name.lower()
    for end in (" disorder", " disease", " system"):
        stem = stem.removesuffix(end)
    return stem


_AREA_OF = {stem: area for area, stems in AREAS.items() for stem in stems}
