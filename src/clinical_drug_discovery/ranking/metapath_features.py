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
`fellows.fellows_without` takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from clinical_drug_discovery.graph.adjacency import (
    Floats,
    adjacency,
    ending_profiles,
    power,
    scale,
    word_profiles,
)
from clinical_drug_discovery.graph.knowledge_graph import DISEASE, DRUG, IntArray, KnowledgeGraph
from clinical_drug_discovery.ranking.drug_similarity import (
    Kernel,
    fellows_of,
    joined,
    kernels,
    profiles,
    walks,
)
from clinical_drug_discovery.ranking.treatments import TREATS, drug_disease_links, treatments

_FEW = 4  # diseases; for more it pays to form how alike drugs are to those of each treated disease
_MOST_AROUND = 2**28  # bytes that this may take; where it would be more, it is never formed


class PathEvidence:
    """The features of all drug-disease pairs of a graph, made for a few diseases at a time.

    Drugs and diseases are numbered within their node types. A disease takes about 8 ms and 4 bytes
    for each drug and feature. What only some questions need is formed when it is first asked for.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        *,
        treats: Sequence[str] = TREATS,
        hidden: IntArray | None = None,
        use_names: bool = True,
        for_many: bool = True,
    ) -> None:
        """Discover the metapaths and form what all diseases share.

        Args:
            graph: on the CPU.
            treats: relations that say that a drug treats a disease.
            hidden: shape (H, 2), pairs (drug, disease) whose edges of every relation are left out.
            use_names: whether words in names may make drugs or diseases alike.
            for_many: whether to form, when many diseases are asked for at once, how alike drugs are
                to those of each treated disease: 0.16 GB and some seconds on the real graph, for
                two thirds of the time that a disease takes otherwise.

        Raises:
            InputError: the graph has no drugs, no diseases, or no edges that say what treats what.
        """
        links = drug_disease_links(graph, hidden)
        #: shape (drugs, diseases), ones where a drug is known to treat a disease
        self.known = treatments(graph, treats, hidden)
        self.num_drugs, self.num_diseases = self.known.shape
        #: the diseases that some drug is known to treat, ascending
        self.treated = np.flatnonzero(self.known.sum(axis=0))
        self._known_by_disease = csr_array(self.known.T)
        self._others = {r: link for r, link in links.items() if r not in treats and link.nnz}
        drugs, diseases = profiles(graph, DRUG), profiles(graph, DISEASE)
        self._for_many = for_many
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
        known = csr_array(self.known[:, self.treated])
        # Undamped: that a drug has many indications, or a relative many drugs, speaks for a pair.
        self._treats = known
        self._treats_t = csr_array(known.T)
        self._degree = np.diff(self.known.indptr)
        self._right_treated = [csr_array(k.right[self.treated].T) for k in self._disease_kernels]
        self._at = np.full(self.num_diseases, -1)
        self._at[self.treated] = np.arange(len(self.treated))

    @cached_property
    def _damped(self) -> csr_array:
        """What treats what, damped by how many drugs a disease has, where drugs are compared."""
        every = np.ones(self.num_drugs, np.float32)
        return scale(self._treats, every, power(self._treats.sum(axis=0)))

    @cached_property
    def _damped_t(self) -> csr_array:
        return csr_array(self._damped.T)

    @cached_property
    def _damped_squares(self) -> Floats:
        return np.asarray(self._damped.multiply(self._damped).sum(axis=1), np.float32)

    @cached_property
    def _share_drugs(self) -> Floats:
        """Which treated diseases share drugs, (treated, treated)."""
        shared: Floats = (self._damped_t @ self._damped).toarray()
        np.fill_diagonal(shared, 0)
        return shared

    @cached_property
    def _alike_treated(self) -> Floats:
        """How alike treated diseases are in any way, (treated, treated)."""
        alike = np.zeros((len(self.treated),) * 2, np.float32)
        for block in self._blocks(self.treated):
            alike += block
        return alike

    @cached_property
    def _around(self) -> list[tuple[IntArray, Floats]]:
        """By each kernel how alike drugs are to the other drugs of each treated disease.

        Only those drugs that are alike any others: their numbers, and (treated, drugs among them);
        0.16 GB on the real graph.
        """
        return [_around(kernel, self._treats) for kernel in self._drug_kernels]

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
        varying, context = self.parts(diseases)
        return np.concatenate(
            [
                varying,
                np.broadcast_to(self.of_drugs, (len(diseases), *self.of_drugs.shape)),
                np.broadcast_to(context[:, :, None], (*context.shape, self.num_drugs)),
            ],
            axis=1,
        )

    def parts(self, diseases: IntArray) -> tuple[Floats, Floats]:
        """What `base` holds beside `of_drugs`, without what is the same for all drugs written out.

        Args:
            diseases: shape (n,).

        Returns:
            The first V features, shape (n, V, drugs), and the last C ones, shape (n, C); between
            the two stand those of the drugs alone.
        """
        num_varying = len(self._base_names) - len(self.of_drugs)
        num_varying -= len(self._disease_degrees[1]) + len(self._alike_names)
        varying = np.empty((len(diseases), num_varying, self.num_drugs), np.float32)
        blocks = self._blocks(diseases)
        for f, column in enumerate(self._paths_to(diseases, blocks)):
            varying[:, f] = column
        # The drugs' other diseases: a drug known for the asked one has one fewer.
        varying[:, -1] = np.log1p(self._degree - self._known_by_disease[diseases].toarray())
        context = [values[diseases] for values in self._disease_degrees[1]]
        context += [block.max(axis=1, initial=0) for block in blocks]
        if not context:
            return varying, np.zeros((len(diseases), 0), np.float32)
        return varying, np.stack(context, axis=1)

    @cached_property
    def of_drugs(self) -> Floats:
        """The features of drugs alone, shape (G, drugs)."""
        degrees = self._drug_degrees[1]
        return np.stack(degrees) if degrees else np.zeros((0, self.num_drugs), np.float32)

    def _paths_to(self, diseases: IntArray, blocks: list[Floats]) -> Iterator[Floats]:
        """The features that are paths, each (n, drugs), in the order of `path_names`."""
        for _, drug, disease in self._direct:
            yield (disease[diseases] @ drug).toarray()
        for block in blocks:
            yield block @ self._treats_t
            yield self._nearest(block)
        alike = np.add.reduce(blocks) if blocks else self._nothing(diseases, self.treated)
        yield self._nearest(alike)
        for link in self._others.values():
            treated = np.flatnonzero(link.sum(axis=0))
            yield self._alike_any(diseases, treated) @ csr_array(link[:, treated].T)
        related = blocks[-1] if self._walks else alike
        columns = list(self._through_drugs(np.concatenate([related, alike])))
        yield from (column[: len(diseases)] for column in columns)
        yield from (column[len(diseases) :] for column in columns)
        shares = related @ self._share_drugs
        self._blank_own(shares, diseases)
        yield shares @ self._treats_t

    def _through_drugs(self, block: Floats) -> Iterator[Floats]:
        """By each kernel how alike drugs are to other drugs of diseases, from (m, treated)."""
        size = 2 * len(self._drug_kernels) * self.num_drugs * len(self.treated)
        if self._for_many and len(block) > 2 * _FEW and size <= _MOST_AROUND:
            for drugs, around in self._around:
                total = np.zeros((len(block), self.num_drugs), np.float32)
                total[:, drugs] = block @ around
                yield total
            return
        onto = np.ascontiguousarray((block @ self._treats_t).T)
        for kernel in self._drug_kernels:
            total = kernel.left @ (kernel.right_t @ onto) - onto * kernel.itself[:, None]
            yield np.ascontiguousarray(total.T)

    def known_drugs(self, disease: int) -> IntArray:
        """The drugs that are known to treat a disease, ascending."""
        start, stop = self._known_by_disease.indptr[disease : disease + 2]
        return np.sort(self._known_by_disease.indices[start:stop])

    def num_known(self, disease: int) -> int:
        """How many drugs are known to treat a disease."""
        return int(np.diff(self._known_by_disease.indptr[disease : disease + 2])[0])

    def fellow_rows(self, disease: int) -> tuple[IntArray, Floats]:
        """How alike the asked disease's known drugs are to all drugs.

        Args:
            disease: one disease.

        Returns:
            Its k drugs, ascending, and the likeness, shape (kernels, k, drugs), 0 of each to
            itself. See `fellows.fellows_of`.
        """
        drugs = self.known_drugs(disease)
        rows = np.zeros((len(self._fellow_kernels), len(drugs), self.num_drugs), np.float32)
        if not len(drugs):
            return drugs, rows
        count = len(self._drug_kernels)
        for j, kernel in enumerate(self._drug_kernels):
            rows[j] = (kernel.left[drugs] @ kernel.right_t).toarray()
        rows[count] = rows[:count].sum(axis=0)
        at = self._at[disease]
        own = self._damped_t[[at]].toarray()[0]
        squares = self._damped_squares - own**2
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


def _around(kernel: Kernel, treats: csr_array) -> tuple[IntArray, Floats]:
    """Which drugs are alike others of treated diseases, and how much: (treated, drugs)."""
    total = csr_array(kernel.left @ (kernel.right_t @ treats))
    total = csr_array(total - treats.multiply(kernel.itself[:, None]))
    drugs = np.flatnonzero(np.diff(total.indptr))
    return drugs, np.ascontiguousarray(total[drugs].toarray().T, np.float32)


def _names(graph: KnowledgeGraph, kind: str) -> list[str]:
    table = graph.nodes.filter(graph.nodes["node_type"] == kind)
    return [str(name) for name in table["node_name"]]


def _degrees(graph: KnowledgeGraph, kind: str, but: str) -> tuple[list[str], list[Floats]]:
    """Names and log(1 + degree) of a type's nodes, of each relation but to one type."""
    kinds = [k for k in graph.edge_types if k.src_type == kind and k.dst_type != but]
    names = [f"{k.relation} - {k.dst_type}" for k in kinds]
    degrees = [np.log1p(np.diff(adjacency(graph, k).indptr)).astype(np.float32) for k in kinds]
    return names, degrees
