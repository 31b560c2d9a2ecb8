"""Which drug helps which disease: distinct pairs of the two, and what a graph says of them.

A pair may stand in a graph under several relations at once (indicated, and contraindicated in some
form). Here a pair is one thing, whatever says so.

Which drug is joined to which disease, as sparse matrices.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from clinical_drug_discovery.graph.adjacency import adjacency, ones
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    IntArray,
    KnowledgeGraph,
    edges_of,
)
from clinical_drug_discovery.system.errors import InputError

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


def treatments(
    graph: KnowledgeGraph, treats: Sequence[str] = TREATS, hidden: IntArray | None = None
) -> csr_array:
    """Which drug is known to treat which disease, shape (drugs, diseases), ones.

    Args:
        graph: on the CPU.
        treats: relations that say that a drug treats a disease.
        hidden: shape (H, 2), pairs (drug, disease) that are left out.

    Raises:
        InputError: the graph has no drugs, no diseases, or no such edges.
    """
    missing = {DRUG, DISEASE} - set(graph.node_type_names)
    if missing:
        raise InputError(f"the graph has no nodes of type {', '.join(sorted(missing))}")
    links = drug_disease_links(graph, hidden)
    found = [links[r] for r in treats if r in links]
    if not found or not sum(link.nnz for link in found):
        raise InputError(f"treats (got {tuple(treats)}) names no drug-disease edges")
    return ones(sum(found[1:], found[0]))


def drug_disease_links(graph: KnowledgeGraph, hidden: IntArray | None) -> dict[str, csr_array]:
    """Which drug is joined to which disease, by relation; see `treatments`."""
    kinds = [k for k in graph.edge_types if (k.src_type, k.dst_type) == (DRUG, DISEASE)]
    return {k.relation: _without(adjacency(graph, k), hidden) for k in kinds}


def _without(link: csr_array, hidden: IntArray | None) -> csr_array:
    if hidden is None or not len(hidden):
        return link
    gone = csr_array((np.ones(len(hidden), np.float32), hidden.T), shape=link.shape)
    left = csr_array(link - link.multiply(ones(gone)))
    left.eliminate_zeros()
    return left
