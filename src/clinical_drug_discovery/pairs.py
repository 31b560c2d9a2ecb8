"""Which drug helps which disease: distinct pairs of the two, and what a graph says of them.

A pair may stand in a graph under several relations at once (indicated, and contraindicated in some
form). Here a pair is one thing, whatever says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, edges_of

DRUG, DISEASE = "drug", "disease"
INDICATION = "indication"
TREATS = (INDICATION, "palliation")  #: relations that say: this drug helps with this disease


@dataclass(frozen=True)
class Pairs:
    """K distinct pairs of a drug and a disease, sorted by disease, then drug."""

    drug: IntArray  #: shape (K,), int64, node numbers
    disease: IntArray  #: shape (K,), int64, node numbers

    def __len__(self) -> int:
        return len(self.drug)

    @property
    def diseases(self) -> IntArray:
        """The distinct diseases, ascending."""
        return np.unique(self.disease)

    def select(self, chosen: IntArray | npt.NDArray[np.bool_]) -> Pairs:
        """Some of the pairs: a mask of shape (K,), or their ascending positions."""
        return Pairs(self.drug[chosen], self.disease[chosen])


def drug_disease_types(graph: KnowledgeGraph) -> list[int]:
    """The edge types from drugs to diseases, as indices into `edge_types`; any relation."""
    kinds = graph.edge_types
    return [r for r, kind in enumerate(kinds) if kind.src_type == DRUG and kind.dst_type == DISEASE]


def pairs_of(graph: KnowledgeGraph, relations: Collection[str] = TREATS) -> Pairs:
    """The distinct pairs under any of some relations between drugs and diseases.

    Args:
        graph: on the CPU.
        relations: their names; those that the graph lacks have no pairs.
    """
    kinds = [r for r in drug_disease_types(graph) if graph.edge_types[r].relation in relations]
    distinct = np.unique(pair_keys(graph, *edges_of(graph, kinds)))
    return Pairs(drug=distinct % graph.num_nodes, disease=distinct // graph.num_nodes)


def pair_keys(graph: KnowledgeGraph, drug: IntArray, disease: IntArray) -> npt.NDArray[np.int64]:
    """Each pair as one integer that sorts by disease, then drug; shapes (K,)."""
    keys = disease.astype(np.int64)
    keys *= graph.num_nodes
    keys += drug
    return keys


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
