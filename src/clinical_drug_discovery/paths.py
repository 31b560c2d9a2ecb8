"""Evidence of typed paths between drugs and diseases: how strongly each metapath joins each pair.

A metapath is a chain of edge types, such as drug - drug_protein - gene/protein - disease_protein -
disease; which there are follows from the graph (see `kernels`). Four families: through what drug
and disease share, through other diseases that the drug treats, through other drugs that treat the
disease ("fellows"), and through both.

One rule holds for every number here: **the features of a pair do not depend on whether the pair's
own edges are in the graph.** Paths through other diseases leave the asked disease out altogether,
degrees included; paths through a disease's known drugs lead from one drug to another. A ranker
fitted on known pairs therefore cannot copy them, and nothing has to be computed once for each fold.
For a list that has one known pair as its goal, the other drugs must not see that pair either:
`fellows` takes it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.kernels import DISEASE, DRUG, Kernel, joined, kernels, profiles, walks
from clinical_drug_discovery.typed import (
    Floats,
    biadjacency,
    ending_profiles,
    ones,
    power,
    scale,
    word_profiles,
)

TREATS = ("indication", "palliation")


class PathEvidence:
    """The features of all drug-disease pairs of a graph, made for a few diseases at a time.

    Drugs and diseases are numbered within their node types. A disease takes about 8 ms and 4 bytes
    for each drug and feature.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        *,
        treats: Sequence[str] = TREATS,
        hidden: IntArray | None = None,
        use_names: bool = True,
    ) -> None:
        """Discover the metapaths and form what all diseases share.

        Args:
            graph: on the CPU.
            treats: relations that say that a drug treats a disease.
            hidden: shape (H, 2), pairs (drug, disease) whose edges of every relation are left out.
            use_names: whether words in names may make drugs or diseases alike.

        Raises:
            InputError: the graph has no drugs, no diseases, or no edges that say what treats what.
        """
        missing = {DRUG, DISEASE} - set(graph.node_type_names)
        if missing:
            raise InputError(f"the graph has no nodes of type {', '.join(sorted(missing))}")
        kinds = [k for k in graph.edge_types if (k.src_type, k.dst_type) == (DRUG, DISEASE)]
        links = {k.relation: _without(biadjacency(graph, k), hidden) for k in kinds}
        found = [links[r] for r in treats if r in links]
        if not found or not sum(link.nnz for link in found):
            raise InputError(f"treats (got {tuple(treats)}) names no drug-disease edges")
        #: shape (drugs, diseases), ones where a drug is known to treat a disease
        self.known = ones(sum(found[1:], found[0]))
        self.num_drugs, self.num_diseases = self.known.shape
        #: the diseases that some drug is known to treat, ascending
        self.treated = np.flatnonzero(self.known.sum(axis=0))
        self._known_by_disease = csr_array(self.known.T)
        self._others = {r: link for r, link in links.items() if r not in treats and link.nnz}
        drugs, diseases = profiles(graph, DRUG), profiles(graph, DISEASE)
        self._direct = joined(drugs, diseases)
        self._drug_kernels = kernels(graph, DRUG, drugs)
        self._disease_kernels = kernels(graph, DISEASE, diseases)
        if use_names:
            stems = ending_profiles(_names(graph, DRUG))
            words = word_profiles(_names(graph, DISEASE))
            self._drug_kernels.append(Kernel("drug - name shares stem - drug", stems, stems))
            self._disease_kernels.append(Kernel("disease - shares words - disease", words, words))
        self._drug_degrees = _degrees(graph, DRUG, DISEASE)
        self._disease_degrees = _degrees(graph, DISEASE, DRUG)
        self._walks = walks(graph, DISEASE, self.treated)
        self._alike_names = [k.name for k in self._disease_kernels] + [n for n, _ in self._walks]
        self._share()

    def _share(self) -> None:
        """Form the matrices that every disease's features are products with."""
        known = csr_array(self.known[:, self.treated])
        # Undamped: that a drug has many indications, or a relative many drugs, speaks for a pair.
        self._treats = known
        self._treats_t = csr_array(known.T)
        # Damped by how many drugs a disease has, where two drugs are compared.
        every = np.ones(self.num_drugs, np.float32)
        self._damped = scale(known, every, power(known.sum(axis=0)))
        self._damped_t = csr_array(self._damped.T)
        self._degree = np.diff(self.known.indptr)
        self._right_treated = [csr_array(k.right[self.treated].T) for k in self._disease_kernels]
        self._at = np.full(self.num_diseases, -1)
        self._at[self.treated] = np.arange(len(self.treated))
        # 4 bytes for each kernel, treated disease and drug: 0.3 GB on the real graph.
        self._around = [_around(kernel, self._treats) for kernel in self._drug_kernels]
        alike = np.zeros((len(self.treated),) * 2, np.float32)
        for block in self._blocks(self.treated):
            alike += block
        shared = (self._damped_t @ self._damped).toarray()
        np.fill_diagonal(shared, 0)
        self._alike_treated, self._share_drugs = alike, shared

    @cached_property
    def path_names(self) -> tuple[str, ...]:
        """What each feature counts, in the order of `base` followed by that of `fellows`."""
        return (*self._base_names, *self._fellow_names)

    @cached_property
    def _base_names(self) -> list[str]:
        through = [name for name, _, _ in self._direct]
        for name in self._alike_names:
            through += [f"drug - treats - {name}", f"drug - treats - {name}, nearest"]
        through += ["drug - treats - disease - alike in any way - disease, nearest"]
        through += [f"drug - {r} - disease - alike in any way - disease" for r in self._others]
        through += [
            f"{kernel.name} - treats - disease - {how} - disease"
            for how in ("related", "alike in any way")
            for kernel in self._drug_kernels
        ]
        through += ["drug - treats - disease - shares drugs - disease - related - disease"]
        through += ["drug - treats - disease, how many"]
        through += [f"drug - {name}, how many" for name in self._drug_degrees[0]]
        through += [f"disease - {name}, how many" for name in self._disease_degrees[0]]
        return through + [f"{name} - treats, nearest" for name in self._alike_names]

    @cached_property
    def _fellow_kernels(self) -> list[str]:
        treats = "drug - treats - disease"
        return [
            *(kernel.name for kernel in self._drug_kernels),
            "drug - alike in any way - drug",
            f"{treats} - treats - drug",
            f"{treats} - treats - drug, as a share",
            f"{treats} - alike in any way - disease - treats - drug",
            f"{treats} - shares drugs - disease - treats - drug",
        ]

    @cached_property
    def _fellow_names(self) -> list[str]:
        paths = [f"{name} - treats - disease" for name in self._fellow_kernels]
        nearest = [f"{path}, nearest" for path in paths]
        both = [name for pair in zip(paths, nearest, strict=True) for name in pair]
        return [*both, "disease - treats - drug, how many"]

    def features(self, diseases: IntArray) -> Floats:
        """All features of all drugs for some diseases.

        Args:
            diseases: shape (n,).

        Returns:
            Shape (n, F, drugs), in the order of `path_names`.
        """
        fellows = np.stack([fellows_of(self.fellow_rows(int(s))[1]) for s in diseases])
        return np.concatenate([self.base(diseases), fellows], axis=1)

    def base(self, diseases: IntArray) -> Floats:
        """The features that make no use of the asked diseases' own drugs.

        Args:
            diseases: shape (n,).

        Returns:
            Shape (n, B, drugs), the first B of `path_names`.
        """
        out = np.zeros((len(diseases), len(self._base_names), self.num_drugs), np.float32)
        # The drugs' other diseases: a drug known for the asked one has one fewer.
        degree = self._degree - self._known_by_disease[diseases].toarray()
        blocks = self._blocks(diseases)
        columns = [(disease[diseases] @ drug).toarray() for _, drug, disease in self._direct]
        for block in blocks:
            columns += [block @ self._treats_t, self._nearest(block)]
        alike = np.add.reduce(blocks) if blocks else self._nothing(diseases, self.treated)
        columns.append(self._nearest(alike))
        for link in self._others.values():
            anywhere = self._alike_any(diseases, np.flatnonzero(link.sum(axis=0)))
            columns.append(anywhere @ csr_array(link[:, np.flatnonzero(link.sum(axis=0))].T))
        related = blocks[-1] if self._walks else alike
        columns += [block @ around for block in (related, alike) for around in self._around]
        shares = related @ self._share_drugs
        self._blank_own(shares, diseases)
        columns += [shares @ self._treats_t, np.log1p(degree)]
        for f, column in enumerate(columns):
            out[:, f] = column
        at = len(columns)
        for values in self._drug_degrees[1]:
            out[:, at] = values
            at += 1
        context = [values[diseases] for values in self._disease_degrees[1]]
        context += [block.max(axis=1, initial=0) for block in blocks]
        for values in context:
            out[:, at] = values[:, None]
            at += 1
        return out

    def fellow_rows(self, disease: int) -> tuple[IntArray, Floats]:
        """How alike the asked disease's known drugs are to all drugs.

        Args:
            disease: one disease.

        Returns:
            Its k drugs, ascending, and the likeness, shape (kernels, k, drugs), 0 of each to
            itself. See `fellows_of`.
        """
        start, stop = self._known_by_disease.indptr[disease : disease + 2]
        drugs = np.sort(self._known_by_disease.indices[start:stop])
        rows = np.zeros((len(self._fellow_kernels), len(drugs), self.num_drugs), np.float32)
        if not len(drugs):
            return drugs, rows
        count = len(self._drug_kernels)
        for j, kernel in enumerate(self._drug_kernels):
            rows[j] = (kernel.left[drugs] @ kernel.right_t).toarray()
        rows[count] = rows[:count].sum(axis=0)
        at = self._at[disease]
        own = self._damped[:, [at]].toarray()[:, 0]
        squares = self._damped.multiply(self._damped).sum(axis=1) - own**2
        norm = power(np.where(self._degree - (own > 0) > 0, squares, 0), -0.5)
        visits = self._damped[drugs].toarray()
        visits[:, at] = 0
        rows[count + 1] = visits @ self._damped_t
        rows[count + 2] = rows[count + 1] * norm[drugs][:, None] * norm
        for j, step in ((count + 3, self._alike_treated), (count + 4, self._share_drugs)):
            onward = visits @ step
            onward[:, at] = 0
            rows[j] = onward @ self._treats_t
        rows[:, np.arange(len(drugs)), drugs] = 0
        return drugs, rows

    def _blocks(self, diseases: IntArray) -> list[Floats]:
        """By each kernel how alike diseases are to the treated ones, each (n, treated)."""
        pairs = zip(self._disease_kernels, self._right_treated, strict=True)
        blocks = [(kernel.left[diseases] @ right_t).toarray() for kernel, right_t in pairs]
        blocks += [np.ascontiguousarray(visits[:, diseases].T) for _, visits in self._walks]
        for block in blocks:
            self._blank_own(block, diseases)
        return blocks

    def _alike_any(self, diseases: IntArray, others: IntArray) -> Floats:
        total = self._nothing(diseases, others)
        for kernel in self._disease_kernels:
            total += (kernel.left[diseases] @ csr_array(kernel.right[others].T)).toarray()
        total[diseases[:, None] == others] = 0
        return total

    def _nothing(self, diseases: IntArray, others: IntArray) -> Floats:
        return np.zeros((len(diseases), len(others)), np.float32)

    def _blank_own(self, block: Floats, diseases: IntArray) -> None:
        rows = np.flatnonzero(self._at[diseases] >= 0)
        block[rows, self._at[diseases[rows]]] = 0

    def _nearest(self, block: Floats) -> Floats:
        """For each drug the likeness of the nearest disease that it treats, (n, drugs)."""
        out = np.zeros((len(block), self.num_drugs), np.float32)
        has = np.flatnonzero(np.diff(self._treats.indptr))
        starts = self._treats.indptr[has]
        out[:, has] = np.maximum.reduceat(block[:, self._treats.indices], starts, axis=1)
        return out


def fellows_of(rows: Floats, *, without: int | None = None) -> Floats:
    """Features by the asked disease's known drugs: the sum and the most of what they are alike.

    Args:
        rows: shape (kernels, k, drugs), from `PathEvidence.fellow_rows`.
        without: which of the k is taken away, for a list whose goal it is.

    Returns:
        Shape (2 kernels + 1, drugs); the last one is log(1 + number of known drugs).
    """
    if without is not None:
        rows = np.delete(rows, without, axis=1)
    out = np.zeros((2 * rows.shape[0] + 1, rows.shape[2]), np.float32)
    out[0:-1:2] = rows.sum(axis=1)
    out[1:-1:2] = rows.max(axis=1, initial=0)
    out[-1] = np.log1p(rows.shape[1])
    return out


def _around(kernel: Kernel, treats: csr_array) -> Floats:
    """How alike each drug is to the other drugs of each treated disease, (treated, drugs)."""
    total = (kernel.left @ (kernel.right_t @ treats)).toarray()
    itself = kernel.left.multiply(kernel.right).sum(axis=1)
    return np.ascontiguousarray((total - treats.multiply(itself[:, None]).toarray()).T, np.float32)


def _without(link: csr_array, hidden: IntArray | None) -> csr_array:
    if hidden is None or not len(hidden):
        return link
    gone = csr_array((np.ones(len(hidden), np.float32), hidden.T), shape=link.shape)
    left = csr_array(link - link.multiply(ones(gone)))
    left.eliminate_zeros()
    return left


def _names(graph: KnowledgeGraph, kind: str) -> list[str]:
    table = graph.nodes.filter(graph.nodes["node_type"] == kind)
    return [str(name) for name in table["node_name"]]


def _degrees(graph: KnowledgeGraph, kind: str, but: str) -> tuple[list[str], list[Floats]]:
    """Names and log(1 + degree) of a type's nodes, of each relation but to one type."""
    kinds = [k for k in graph.edge_types if k.src_type == kind and k.dst_type != but]
    names = [f"{k.relation} - {k.dst_type}" for k in kinds]
    degrees = [np.log1p(np.diff(biadjacency(graph, k).indptr)).astype(np.float32) for k in kinds]
    return names, degrees
