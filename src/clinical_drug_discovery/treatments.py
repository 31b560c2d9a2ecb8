"""Which drug is joined to which disease, as sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from clinical_drug_discovery.graph.adjacency import biadjacency, ones
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.kernels import DISEASE, DRUG
from clinical_drug_discovery.pairs import TREATS
from clinical_drug_discovery.system.errors import InputError


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
    return {k.relation: _without(biadjacency(graph, k), hidden) for k in kinds}


def _without(link: csr_array, hidden: IntArray | None) -> csr_array:
    if hidden is None or not len(hidden):
        return link
    gone = csr_array((np.ones(len(hidden), np.float32), hidden.T), shape=link.shape)
    left = csr_array(link - link.multiply(ones(gone)))
    left.eliminate_zeros()
    return left
