"""The known treatments in a graph, as drug-disease pairs and as sparse matrices.

A drug-disease pair counts once, even if several relations join the drug and the disease.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ..graph.adjacency import adjacency, adjacency_between
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, edges_of
from ..system.errors import InputError


@dataclass(frozen=True)
class Pairs:
    """K distinct pairs of a drug and a disease, sorted by disease, then by drug."""

    drug: IntArray  #: shape (K,), int64, node numbers
    disease: IntArray  #: shape (K,), int64, node numbers

    def __len__(self) -> int:
        return len(self.drug)

    @property
    def diseases(self) -> IntArray:
        """The distinct diseases, ascending."""
        return np.unique(self.disease)

    def select(self, chosen: IntArray | npt.NDArray[np.bool_]) -> Pairs:
        """Return the pairs that a mask of shape (K,), or an array of ascending positions, picks."""
        return Pairs(self.drug[chosen], self.disease[chosen])


def drug_disease_types(graph: KnowledgeGraph) -> list[int]:
    """Return the edge types from drugs to diseases, as indices into `graph.edge_types`."""
    words = graph.vocabulary
    ends = (words.drug_type, words.disease_type)
    kinds = enumerate(graph.edge_types)
    return [r for r, kind in kinds if (kind.src_type, kind.dst_type) == ends]


def pairs_of(graph: KnowledgeGraph, relations: Collection[str] | None = None) -> Pairs:
    """Return the distinct drug-disease pairs of `relations` (default: those that treat)."""
    relations = graph.vocabulary.treats if relations is None else relations
    kinds = [r for r in drug_disease_types(graph) if graph.edge_types[r].relation in relations]
    distinct = np.unique(pair_keys(graph, *edges_of(graph, kinds)))
    return Pairs(drug=distinct % graph.num_nodes, disease=distinct // graph.num_nodes)


def pair_keys(graph: KnowledgeGraph, drug: IntArray, disease: IntArray) -> npt.NDArray[np.int64]:
    """Return disease * number of nodes + drug for K pairs: one sortable integer per pair, (K,)."""
    keys = disease.astype(np.int64)
    keys *= graph.num_nodes
    keys += drug
    return keys


def treatments(graph: KnowledgeGraph, hidden: IntArray | None = None) -> csr_array:
    """Return the 0/1 matrix of known treatments, shape (drugs, diseases).

    Args:
        graph: on the CPU.
        hidden: shape (H, 2), pairs (drug, disease) to leave out, numbered within their types.

    Raises:
        InputError: the graph lacks drugs, diseases, or drugs that treat a disease.
    """
    words = graph.vocabulary
    joined = adjacency_between(graph, words.drug_type, words.disease_type, words.treats)
    known = _without(joined, hidden)
    if not known.nnz:
        raise InputError(lacks_treatments(graph))
    return known


def treatment_matrix(graph: KnowledgeGraph) -> csr_array:
    """Return a 0/1 matrix, shape (diseases, drugs): 1 if the drug treats the disease."""
    words = graph.vocabulary
    return adjacency_between(graph, words.disease_type, words.drug_type, words.treats)


def mask_of(matrix: csr_array, diseases: IntArray) -> npt.NDArray[np.bool_]:
    """Return which entries of n diseases are not 0, shape (n, drugs).

    Args:
        matrix: shape (drugs, diseases), such as `treatments`; no entry is negative.
        diseases: shape (n,).
    """
    return np.asarray(matrix[:, diseases].toarray().T > 0)


def lacks_treatments(graph: KnowledgeGraph, relations: Collection[str] | None = None) -> str:
    """Return the message that the graph lacks edges of `relations` (default: those that treat)."""
    words, counts = graph.vocabulary, graph.edge_type_counts
    present = sorted({graph.edge_types[r].relation for r in drug_disease_types(graph) if counts[r]})
    others = f"relations between the two: {', '.join(present)}" if present else "nothing joins them"
    return (
        f"the graph contains no edges between {words.drug_type} and {words.disease_type} with the "
        f"relation {' or '.join(relations or words.treats)}; {others} (see the parameters "
        "drug_type, disease_type and treats)"
    )


def drug_disease_matrices(graph: KnowledgeGraph, hidden: IntArray | None) -> dict[str, csr_array]:
    """Return a 0/1 matrix (drugs, diseases) for each relation; for `hidden`, see `treatments`."""
    kinds = [graph.edge_types[r] for r in drug_disease_types(graph)]
    return {kind.relation: _without(adjacency(graph, kind), hidden) for kind in kinds}


def _without(matrix: csr_array, hidden: IntArray | None) -> csr_array:
    if hidden is None or not len(hidden):
        return matrix
    gone = csr_array((np.ones(len(hidden), np.float32), hidden.T), shape=matrix.shape)
    left = csr_array(matrix - matrix.multiply(gone != 0))
    left.eliminate_zeros()
    return left


def order_by_drugs(known: csr_array, most: int) -> IntArray:
    """Order n diseases such that diseases that share known drugs follow each other.

    The order consists of runs of diseases with at most `most` distinct drugs; a disease with more
    is a run of its own. A run starts with the disease with most drugs. Each next disease is the one
    with the largest share of drugs that the run has already. Diseases without known drugs are last.

    Args:
        known: shape (n, D), 1 where the drug is known to treat the disease.
        most: limit of drugs of a run.

    Returns:
        Shape (n,), positions of the diseases.
    """
    counts = np.diff(known.indptr)
    left, order = counts > 0, []
    run = np.zeros(known.shape[1], np.float32)
    while left.any():
        shared = known @ run
        fits = left & (counts + run.sum() - shared <= most)
        if run.any() and fits.any():
            chosen = int(np.argmax(np.where(fits, shared / np.maximum(counts, 1), -1)))
        else:
            run[:] = 0
            chosen = int(np.argmax(np.where(left, counts, 0)))
        order.append(chosen)
        left[chosen] = False
        run[known.indices[known.indptr[chosen] : known.indptr[chosen + 1]]] = 1
    return np.concatenate([np.array(order, np.int64), np.flatnonzero(counts == 0)])
