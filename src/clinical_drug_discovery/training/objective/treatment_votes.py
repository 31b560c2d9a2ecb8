"""Known treatments for a loss that asks neighbors: the votes of similar diseases for their drugs.

`vote_loss` and `nearness_loss` of `similarity_losses` learn a similarity of diseases and one of
drugs, as neighborhood components analysis does (Goldberger et al., NeurIPS 2004): a disease must
find its drugs by the drugs of similar diseases, and by the similarity of drugs to its other drugs.
This file draws the diseases and drugs of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ...graph.adjacency import adjacency_between
from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of, without_edges
from ..edge_sampler import RandomSampler

Mask = npt.NDArray[np.bool_]
# Largest numbers of diseases that are asked, of diseases that vote, of drugs of the asked diseases,
# and of drugs among which theirs must be found. The similarities of drugs take 16 MB.
MAX_ASKED, MAX_VOTERS, MAX_OWN, MAX_DRUGS = 512, 2048, 512, 8192


def share_of_step(most: int, present: int, num_parts: int) -> int:
    """Return how many of the present nodes a part of a step draws; an epoch draws at most `most`.

    It draws at least two: a disease needs another one that votes.
    """
    return min(max(-(-min(most, present) // num_parts), 2), present)


@dataclass(frozen=True)
class Treatments:
    """The diseases and drugs of a step, on the CPU.

    A diseases are asked. They are some of the V voters. O drugs are the drugs of asked diseases.
    They are some of the C candidates. K pairs are the known treatments of the asked diseases.
    """

    voters: Tensor  #: shape (V,), int64, nodes of the graph: diseases with known drugs
    drugs: Tensor  #: shape (C,), int64, nodes of the graph: the candidates
    asked: Tensor  #: shape (A,), int64: position among the voters of each asked disease
    own: Tensor  #: shape (O,), int64: position among the candidates of each of their drugs
    known: Tensor  #: shape (O, V), float32: 1 for a known treatment by these drugs
    num_drugs: Tensor  #: shape (V,), float32: number of known drugs of each voter
    pair_disease: Tensor  #: shape (K,), int64: position among the asked diseases
    pair_drug: Tensor  #: shape (K,), int64: position among their drugs
    has_several: bool  #: an asked disease has two drugs or more


class TreatmentSampler(RandomSampler):
    """Draws the diseases and drugs of a step from the known treatments of a graph."""

    def __init__(self, graph: KnowledgeGraph, num_parts: int, seed: int) -> None:
        """Prepare the sampling.

        Args:
            graph: on the CPU; `has_treatments` must be true.
            num_parts: number of parts of an epoch's steps, which divide the samples of the epoch.
            seed: seed of the sampling.
        """
        self._seed = (seed, 6)
        self._rng = np.random.default_rng(self._seed)
        words = graph.vocabulary
        self._first_disease, self._first_drug = (
            node_range_of(graph, name)[0] for name in (words.disease_type, words.drug_type)
        )
        self._known = adjacency_between(graph, words.disease_type, words.drug_type, words.treats)
        self._treated = np.flatnonzero(np.diff(self._known.indptr))
        self._used = np.unique(self._known.indices)
        self._unused = np.setdiff1d(np.arange(self._known.shape[1]), self._used)
        treated, drugs = len(self._treated), self._known.shape[1]
        self._most_asked, self._most_voters, self._most_drugs = (
            share_of_step(most, present, num_parts)
            for most, present in ((MAX_ASKED, treated), (MAX_VOTERS, treated), (MAX_DRUGS, drugs))
        )

    def sample(self) -> Treatments:
        """Draw the voters, some of which are asked, and the candidates."""
        most_drugs = self._most_drugs
        voters = self._drawn(self._treated, self._most_voters)
        known = csr_array(self._known[voters])
        order = self._rng.permutation(len(voters))[: self._most_asked]
        asked, own = _of_few_drugs(known, order, min(MAX_OWN, most_drugs))
        # The drugs of asked diseases, then used drugs, then others, until there are enough.
        others = np.setdiff1d(self._used, own)
        drugs = np.concatenate([own, self._drawn(others, most_drugs - len(own))])
        drugs = np.concatenate([drugs, self._drawn(self._unused, most_drugs - len(drugs))])
        drugs.sort()
        pairs = known[asked][:, own].tocoo()
        return Treatments(
            voters=torch.from_numpy(voters + self._first_disease),
            drugs=torch.from_numpy(drugs + self._first_drug),
            asked=torch.from_numpy(asked),
            own=torch.from_numpy(np.searchsorted(drugs, own)),
            known=torch.from_numpy(known[:, own].T.toarray()),
            num_drugs=torch.from_numpy(np.diff(known.indptr).astype(np.float32)),
            pair_disease=torch.from_numpy(pairs.coords[0].astype(np.int64)),
            pair_drug=torch.from_numpy(pairs.coords[1].astype(np.int64)),
            has_several=bool((np.diff(known.indptr)[asked] > 1).any()),
        )

    def _drawn(self, some: IntArray, size: int) -> IntArray:
        """Return `size` of some numbers, sorted; all of them if there are fewer."""
        if len(some) <= size:
            return some
        return np.sort(self._rng.choice(some, max(size, 0), replace=False))


def _of_few_drugs(known: csr_array, order: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """Return the first rows whose drugs are at most `most` in all, at least one; their drugs."""
    own, count = np.zeros(known.shape[1], bool), 0
    for row in order.tolist():
        added = known.indices[known.indptr[row] : known.indptr[row + 1]]
        if count and own.sum() + (~own[added]).sum() > most:
            break
        own[added] = True
        count += 1
    return np.sort(order[:count]), np.flatnonzero(own)


def has_treatments(graph: KnowledgeGraph) -> bool:
    """Return whether at least two diseases have known drugs."""
    words = graph.vocabulary
    if not {words.drug_type, words.disease_type} <= {*graph.node_type_names}:
        return False
    known = adjacency_between(graph, words.drug_type, words.disease_type, words.treats)
    return len(np.unique(known.indices)) > 1


def without_treatments(graph: KnowledgeGraph) -> tuple[KnowledgeGraph, Mask]:
    """Return the graph whose edges a model reads, and a mask of the edges that it lacks.

    A model must find treatments by everything else, as it must for a disease without known drugs.
    Otherwise its embeddings predict the drugs of such diseases worse.

    Args:
        graph: on the CPU.

    Returns:
        The graph without known treatments, and a mask of their edges, shape (E,). All edges stay if
        the drugs or the diseases would lose all their edges.
    """
    hidden = _treatment_edges(graph)
    return without_edges(graph, hidden) if hidden.any() else graph, hidden


def _treatment_edges(graph: KnowledgeGraph) -> Mask:
    """Return a mask of the edges to hide, in both directions, shape (E,)."""
    words = graph.vocabulary
    ends = {words.drug_type, words.disease_type}
    found, left = np.zeros(graph.num_edges, bool), set[str]()
    for r, kind in enumerate(graph.edge_types):
        if kind.relation in words.treats and {kind.src_type, kind.dst_type} == ends:
            found[slice(*graph.arrays.edge_type_ptr[r : r + 2].tolist())] = True
        elif graph.edge_type_counts[r]:
            left.add(kind.dst_type)
    return found if ends <= left else np.zeros_like(found)
