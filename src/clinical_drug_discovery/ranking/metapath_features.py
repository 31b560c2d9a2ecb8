"""Metapath features: how strongly each metapath of the graph connects each drug and disease.

A metapath from a drug to a disease belongs to one of four families. It leads through nodes of other
types, through other diseases that the drug treats, through other drugs that treat the disease
(co-indicated drugs), or through other diseases and other drugs.

All features follow one rule: **the features of a pair do not depend on edges between the drug and
the disease of this pair.** Paths through other diseases do not visit the disease of the pair, and
degrees do not count the edges of the pair. A path from a known drug of the disease never
leads back to this same drug. The features thus do not reveal whether their own pair is known, and
cross-validation does not have to compute them again. In training, a known drug to be predicted must
not affect the features of other drugs either: see `co_indicated_features_without`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from ..graph.adjacency import Floats, dense_product, power, scale
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..system.processes import cached_property
from .drug_similarity import (
    CO_INDICATED,
    LargestEntries,
    Similarity,
    connecting_metapaths,
    log_degrees,
    names_of,
    names_of_paths,
    nearest,
    path_counts,
    random_walks,
    rows_of,
    similarities,
    stem_vectors,
    word_vectors,
)
from .paths.other_relations import OtherRelations
from .paths.through_drugs import ThroughDrugs
from .treatments import drug_disease_matrices, treatments

_FEW_DISEASES = 4  # dense products are used only for more diseases than this in one call
#: Treated diseases in a row of `_similar_treated`. All of them would take memory that grows with
#: the square of their number.
MAX_SIMILAR = 256
_SIMILAR_ROWS = 64  # rows of `_similar_treated` that are computed at a time
LEAST_SHARE = 1e-3  #: of the largest visits; added, since most drugs are reached by no walk


class MetapathFeatures:
    """The features of drug-disease pairs of a graph, computed on demand for a few diseases.

    Drugs and diseases are numbered within their types. In shapes, D is the number of drugs, S the
    number of diseases, and T the number of treated diseases (those with a known drug). The features
    of one disease take about 8 ms on PrimeKG, and 4 bytes for each drug and each feature.
    """

    def __init__(
        self, graph: KnowledgeGraph, *, hidden: IntArray | None = None, for_many: bool = True
    ) -> None:
        """Find the metapaths and compute the matrices that are the same for all diseases.

        Args:
            graph: on the CPU.
            hidden: shape (H, 2), pairs (drug, disease) whose edges of any relation are ignored.
            for_many: compute dense products in the first call with more than four diseases. This
                takes 0.1 GB and a few seconds on PrimeKG. Later calls take half the time per
                disease if they are for more than four diseases.

        Raises:
            InputError: the graph lacks drugs, diseases, or drugs that treat a disease.
        """
        matrices = drug_disease_matrices(graph, hidden)
        #: shape (D, S), 1 where the drug is known to treat the disease
        self.known = treatments(graph, hidden)
        self.num_drugs, self.num_diseases = self.known.shape
        #: shape (T,), the diseases with a known drug, ascending
        self.treated = np.flatnonzero(self.known.sum(axis=0))
        #: the transpose of `known`
        self.known_by_disease = csr_array(self.known.T)
        #: shape (S,), the number of drugs that are known to treat each disease
        self.known_counts = np.diff(self.known_by_disease.indptr)
        treats = graph.vocabulary.treats
        self.other_relations = {r: m for r, m in matrices.items() if r not in treats and m.nnz}
        harmful = [matrices[r] for r in graph.vocabulary.contraindicates if r in matrices]
        self._harmful = sum(harmful, csr_array(self.known.shape, dtype=np.float32)).tocsc()
        drug, disease = graph.vocabulary.drug_type, graph.vocabulary.disease_type
        self._for_many = for_many
        drugs, diseases = path_counts(graph, drug), path_counts(graph, disease)
        self.connecting = connecting_metapaths(drugs, diseases)
        stems, words = stem_vectors(names_of(graph, drug)), word_vectors(names_of(graph, disease))
        by_stem = Similarity("drug - name shares stem - drug", stems, stems)
        by_word = Similarity("disease - shares words - disease", words, words)
        self.drug_similarities = [*similarities(graph, drug, drugs), by_stem]
        self.disease_similarities = [*similarities(graph, disease, diseases), by_word]
        self.drug_degrees = log_degrees(graph, drug, disease)
        self.disease_degrees = log_degrees(graph, disease, drug)
        self.walks = random_walks(graph, disease)
        self._disease_similarity_names = [s.name for s in self.disease_similarities]
        self._disease_similarity_names += [walk.name for walk in self.walks]
        # Shape (D, T). Entries are 1, not damped: many indications give larger features.
        self.treats = csr_array(self.known[:, self.treated])
        self._treats_t = csr_array(self.treats.T)
        self.num_indications = np.diff(self.known.indptr)
        self.right_treated = [csr_array(s.right[self.treated].T) for s in self.disease_similarities]
        self.column = np.full(self.num_diseases, -1)  # position in `treated`; -1: untreated
        self.column[self.treated] = np.arange(len(self.treated))
        self._last: tuple[IntArray, tuple[Floats, Floats]] | None = None

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all features: first base features, then features of co-indicated drugs."""
        names = list(self._pair_names)
        names += [f"disease - {name}, how many" for name in self.disease_degrees[0]]
        names += [f"{name} - treats, nearest" for name in self._disease_similarity_names]
        for name in self._co_indicated_names:
            names += [f"{name} - treats - disease", f"{name} - treats - disease, nearest"]
        return (*names, "disease - treats - drug, how many")

    @cached_property
    def popularity_names(self) -> tuple[str, ...]:
        """The names of the rows of `popularity`."""
        names = [f"drug - {name}, how many" for name in self.drug_degrees[0]]
        return (*names, "drug - treats - disease, how many")

    @property
    def num_base(self) -> int:
        """The number of base features, which come before the features of co-indicated drugs."""
        return len(self.feature_names) - 2 * len(self._co_indicated_names) - 1

    @cached_property
    def _pair_names(self) -> list[str]:
        """The names of the features that `_paths_to` yields, in the same order."""
        connecting = [name for name, _, _ in self.connecting]
        by_drug = [similarity.name for similarity in self.drug_similarities]
        return names_of_paths(
            connecting, self._disease_similarity_names, self.other_relations, by_drug
        )

    @cached_property
    def _co_indicated_names(self) -> list[str]:
        """The names of the similarities in `co_indicated_similarity`, in the same order."""
        return [*(similarity.name for similarity in self.drug_similarities), *CO_INDICATED]

    def base(self, diseases: IntArray) -> Floats:
        """Compute the base features, which ignore the known drugs of the n diseases.

        Returns:
            Shape (n, B, D), in the order of the first B `feature_names`.
        """
        of_pairs, of_diseases = self.base_parts(diseases)
        repeated = np.broadcast_to(of_diseases[:, :, None], (*of_diseases.shape, self.num_drugs))
        return np.concatenate([of_pairs, repeated], axis=1)

    def base_parts(self, diseases: IntArray) -> tuple[Floats, Floats]:
        """Compute the base features in two parts. Those of the last single disease are kept.

        Returns:
            The features of pairs, shape (n, P, D), which come first in `base`; and the features of
            diseases alone, shape (n, C), which come last.
        """
        last = self._last  # read once: another thread may replace it
        if last is not None and np.array_equal(diseases, last[0]):
            return last[1]
        blocks = self._similarity_to_treated(diseases)
        of_pairs = np.empty((len(diseases), len(self._pair_names), self.num_drugs), np.float32)
        for f, column in enumerate(self._paths_to(diseases, blocks)):
            of_pairs[:, f] = column
        of_diseases = [values[diseases] for values in self.disease_degrees[1]]
        of_diseases += [block.max(axis=1, initial=0) for block in blocks]
        found = of_pairs, np.stack(of_diseases, axis=1)
        if len(diseases) == 1:  # a drug is ranked and explained
            self._last = diseases.copy(), found
        return found

    def popularity(self, disease: int | None) -> Floats:
        """Compute what depends on the drug alone: log(1 + degrees), shape (G, D).

        Rows are in the order of `popularity_names`. The last row is the number of diseases that the
        drug treats, without the asked one; None asks for a disease without known drugs.
        """
        others = self.num_indications
        if disease is not None:
            others = others - self.known_by_disease[[disease]].toarray()[0]
        return np.stack([*self.drug_degrees[1], np.log1p(others)]).astype(np.float32)

    @cached_property
    def walk_rows(self) -> IntArray:
        """Where the random walks are among the features of pairs."""
        names = [f"drug - treats - {walk.name}" for walk in self.walks]
        return np.array([self._pair_names.index(name) for name in names], np.int64)

    def walk_anchor(self, base: Floats) -> Floats:
        """Return log(visits / largest visits + 0.001), shape (D,), 0 if no walk arrives.

        The visits are those of random walks to a disease from all diseases that a drug treats.

        Args:
            base: shape (P or more, D), base features of one disease.
        """
        visits = base[self.walk_rows].sum(axis=0)
        largest = visits.max(initial=0)
        if largest <= 0:
            return np.zeros_like(visits)
        return np.asarray(np.log(visits / largest + np.float32(LEAST_SHARE)), np.float32)

    def known_drugs(self, disease: int) -> IntArray:
        """Return the drugs that are known to treat a disease, ascending."""
        start, stop = self.known_by_disease.indptr[disease : disease + 2]
        return np.sort(self.known_by_disease.indices[start:stop])

    def contraindicated_drugs(self, disease: int) -> IntArray:
        """Return the drugs that are contraindicated for a disease, without known drugs."""
        start, stop = self._harmful.indptr[disease : disease + 2]
        return np.setdiff1d(self._harmful.indices[start:stop], self.known_drugs(disease))

    def num_known(self, disease: int) -> int:
        """Return the number of drugs that are known to treat a disease."""
        return int(self.known_counts[disease])

    def co_indicated_similarity(
        self, disease: int, products: Floats | None = None
    ) -> tuple[IntArray, Floats]:
        """Compute W similarities between the known drugs of a disease and all drugs.

        Args:
            disease: numbered within its type.
            products: shape (W - 5, k, D), `rows_of` the known drugs; None computes them.

        Returns:
            The k known drugs, ascending; and the similarities, shape (W, k, D). The similarity of a
            drug to itself is 0.
        """
        drugs = self.known_drugs(disease)
        rows = np.zeros((len(self._co_indicated_names), len(drugs), self.num_drugs), np.float32)
        if not len(drugs):
            return drugs, rows
        count = len(self.drug_similarities)
        rows[:count] = rows_of(self.drug_similarities, drugs) if products is None else products
        rows[count] = rows[:count].sum(axis=0)
        column = self.column[disease]
        norm = self.norms_without(np.arange(self.num_drugs), self.damped_t[[column]].toarray()[0])
        visits = self.damped[drugs].toarray()
        visits[:, column] = 0
        rows[count + 1] = visits @ self.damped_t
        rows[count + 2] = rows[count + 1] * norm[drugs][:, None] * norm
        visited = np.flatnonzero(visits.any(axis=0))
        similar = self._similar_treated(visited).T @ visits[:, visited].T
        for j, ends in enumerate((similar, self.shared_drugs.T @ visits.T), start=count + 3):
            onward = np.ascontiguousarray(ends.T)
            onward[:, column] = 0
            rows[j] = onward @ self._treats_t
        rows[:, np.arange(len(drugs)), drugs] = 0
        return drugs, rows

    def norms_without(self, drugs: IntArray, own: Floats) -> Floats:
        """Return 1 / (length of the row of `damped`) without one entry of each of n drugs.

        Args:
            drugs: shape (n,).
            own: shape (n,), the entry of each drug that does not count, or 0.

        Returns:
            Shape (n,); 0 for a drug that does not have another entry.
        """
        squares = self._damped_squares[drugs] - own**2
        return power(np.where(self.num_indications[drugs] - (own > 0) > 0, squares, 0), -0.5)

    @cached_property
    def damped(self) -> csr_array:
        """`_treats`, each column divided by (number of known drugs)^0.4; shape (D, T)."""
        every = np.ones(self.num_drugs, np.float32)
        return scale(self.treats, every, power(self.treats.sum(axis=0)))

    @cached_property
    def damped_t(self) -> csr_array:
        """The transpose of `damped`."""
        return csr_array(self.damped.T)

    @cached_property
    def _damped_squares(self) -> Floats:
        return np.asarray(self.damped.multiply(self.damped).sum(axis=1), np.float32)

    @cached_property
    def shared_drugs(self) -> csr_array:
        """`damped`.T @ `damped` with a zero diagonal, shape (T, T): drugs that diseases share."""
        shared = csr_array(self.damped_t @ self.damped)
        shared.setdiag(0)
        return shared

    def share_diseases(self, other: MetapathFeatures) -> None:
        """Take over a slow part from a graph with the same diseases, in which only drugs differ."""
        self._similar = other._similar

    @property
    def steps_between_treated(self) -> tuple[csr_array, csr_array]:
        """The steps from one treated disease to another of two of the `CO_INDICATED` similarities.

        Each has the shape (T, T).
        """
        return self._similar_treated(np.arange(len(self.treated))), self.shared_drugs

    @cached_property
    def _similar(self) -> LargestEntries:
        return LargestEntries(len(self.treated), MAX_SIMILAR)

    def _similar_treated(self, places: IntArray) -> csr_array:
        """Return the sum of all similarities of n treated diseases to all treated ones.

        Shape (n, T), with the largest `MAX_SIMILAR` in each row; `places` are those in `treated`.
        """
        missing = self._similar.missing(places)
        for start in range(0, len(missing), _SIMILAR_ROWS):
            rows = missing[start : start + _SIMILAR_ROWS]
            blocks = self._similarity_to_treated(self.treated[rows])
            total = blocks[0]
            for block in blocks[1:]:  # np.sum would copy all blocks
                total += block
            self._similar.keep(rows, total)
        return self._similar.rows(places)

    def _paths_to(self, diseases: IntArray, blocks: list[Floats]) -> Iterator[Floats]:
        """Yield the features of pairs in the order of `_pair_names`, each of shape (n, D)."""
        for _, drug, disease in self.connecting:
            yield dense_product(disease[diseases], drug)
        for block in blocks:
            yield block @ self._treats_t
            yield nearest(block, self.treats)
        num_similarities = len(self.disease_similarities)  # at least one; the walks follow
        similar = sum(blocks[1:num_similarities], blocks[0])
        in_any_way = sum(blocks[num_similarities:], similar)
        yield nearest(in_any_way, self.treats)
        yield from self._through_others.sums(diseases, similar)
        related = blocks[-1] if self.walks else in_any_way
        both = np.concatenate([related, in_any_way])
        many = self._for_many and len(diseases) > _FEW_DISEASES
        columns = list(self._through_drugs.sums(both, many=many))
        yield from (column[: len(diseases)] for column in columns)
        yield from (column[len(diseases) :] for column in columns)
        shared = related @ self.shared_drugs
        self._clear_own(shared, diseases)
        yield shared @ self._treats_t

    @cached_property
    def _through_drugs(self) -> ThroughDrugs:
        return ThroughDrugs(self.drug_similarities, self.treats)

    @cached_property
    def _through_others(self) -> OtherRelations:
        others = self.other_relations.values()
        return OtherRelations(others, self.disease_similarities, self.treated)

    def _similarity_to_treated(self, diseases: IntArray) -> list[Floats]:
        """Return one array (n, T) for each disease similarity and each random walk.

        The array has the similarity of each of n diseases to each treated disease, or the expected
        visits of walks from the treated disease to the disease.
        """
        pairs = zip(self.disease_similarities, self.right_treated, strict=True)
        blocks = [
            dense_product(similarity.left[diseases], right_t) for similarity, right_t in pairs
        ]
        if self.walks:
            asked = np.zeros((self.num_diseases, len(diseases)), np.float32)
            asked[diseases, np.arange(len(diseases))] = 1
            visits = (walk.visits(asked)[self.treated] for walk in self.walks)
            blocks.extend(np.ascontiguousarray(block.T) for block in visits)
        for block in blocks:
            self._clear_own(block, diseases)
        return blocks

    def _clear_own(self, block: Floats, diseases: IntArray) -> None:
        """Set the similarity of each disease to itself in a block (n, T) to 0, in place."""
        rows = np.flatnonzero(self.column[diseases] >= 0)
        block[rows, self.column[diseases[rows]]] = 0
