"""Similarities of drugs to drugs and of diseases to diseases along metapaths.

A metapath is a sequence of edge types, such as drug - drug_protein - gene/protein -
disease_protein - disease. All metapaths of one or two steps that start at drugs or at diseases and
visit other node types are used. A graph that lacks a node type gives fewer metapaths, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import scipy.sparse
from scipy.sparse import csr_array

from ..graph.adjacency import (
    Floats,
    adjacency,
    damped,
    ones,
    power,
    rare_columns,
    scale,
    transposed,
    unit_rows,
)
from ..graph.knowledge_graph import EdgeType, IntArray, KnowledgeGraph
from ..system.processes import cached_property, let_others

# Factor per step of a random walk; number of steps. Eight steps rank better than three: the drugs
# of a distantly related disease are better evidence than none.
_CONTINUE, _WALK_STEPS = 0.7, 8
_WITHOUT_ALL = 4  # questions before `LargestEntries` computes all rows

Metapath = tuple[EdgeType, ...]
_TREATS = "drug - treats - disease"
#: The last similarities in `MetapathFeatures.co_indicated_similarity`.
CO_INDICATED = (
    "drug - similar in any way - drug",
    f"{_TREATS} - treats - drug",
    f"{_TREATS} - treats - drug, cosine",
    f"{_TREATS} - similar in any way - disease - treats - drug",
    f"{_TREATS} - shares drugs - disease - treats - drug",
)


@dataclass(frozen=True)
class Similarity:
    """One similarity measure of nodes of a type: left @ right.T with the diagonal set to 0."""

    name: str
    left: csr_array  #: shape (n, K)
    right: csr_array  #: shape (n, K)

    @cached_property
    def right_t(self) -> csr_array:
        """The transpose of `right`."""
        return csr_array(self.right.T)

    @cached_property
    def left_t(self) -> csr_array:
        """The transpose of `left`, which often is `right`, too."""
        return self.right_t if self.left is self.right else csr_array(self.left.T)

    @cached_property
    def diagonal(self) -> Floats:
        """The diagonal of left @ right.T, which callers must subtract; shape (n,)."""
        return np.asarray(self.left.multiply(self.right).sum(axis=1), np.float32)


def metapath_name(metapath: Sequence[EdgeType]) -> str:
    """Return a name like "drug - drug_protein - gene/protein - disease_protein - disease"."""
    return metapath[0].src_type + "".join(f" - {k.relation} - {k.dst_type}" for k in metapath)


def reverse_metapath(metapath: Sequence[EdgeType]) -> Metapath:
    """Return the metapath in the opposite direction."""
    return tuple(kind.reverse for kind in reversed(metapath))


def path_counts(graph: KnowledgeGraph, start: str) -> dict[Metapath, csr_array]:
    """Count paths of one or two steps from all drugs or all diseases, weighted by `damped`.

    Returns:
        One matrix of counts per metapath, shape (nodes of `start`, nodes of the end's type).
    """
    counts: dict[Metapath, csr_array] = {}
    for first in steps_from(graph, start):
        let_others()  # questions to another model need not wait for all of them
        one = damped(adjacency(graph, first))
        counts[(first,)] = one
        for second in steps_from(graph, first.dst_type):
            counts[(first, second)] = csr_array(one @ damped(adjacency(graph, second)))
    return counts


def connecting_metapaths(
    drugs: dict[Metapath, csr_array], diseases: dict[Metapath, csr_array]
) -> list[tuple[str, csr_array, csr_array]]:
    """Join each metapath from drugs to each metapath from diseases for which `meet` is true.

    Returns:
        One item per joint metapath: the name, the counts from drugs (transposed), and the counts
        from diseases.
    """
    found = []
    for a, left in drugs.items():
        others = [(b, right) for b, right in diseases.items() if meet(a, b)]
        if others:
            left_t = csr_array(left.T)
            names = (metapath_name((*a, *reverse_metapath(b))) for b, _ in others)
            found += [(name, left_t, right) for name, (_, right) in zip(names, others, strict=True)]
    return found


def similarities(
    graph: KnowledgeGraph, node_type: str, counts: dict[Metapath, csr_array]
) -> list[Similarity]:
    """Return all similarities between drugs, or all similarities between diseases.

    Each matrix in `counts` gives the cosines of its rows. Each relation within the node type gives
    its edges and the cosines of the neighbors. For diseases it also gives paths of three edges.
    """
    found = []
    for metapath, count in counts.items():
        let_others()
        rows = unit_rows(count) if len(metapath) == 2 else rare_columns(ones(count))
        name = metapath_name((*metapath, *reverse_metapath(metapath)))
        found.append(Similarity(name, rows, rows))
    for kind in _relations_within(graph, node_type):
        matrix = adjacency(graph, kind)
        identity = csr_array(scipy.sparse.eye_array(matrix.shape[0], dtype=np.float32))
        one, shared = damped(matrix), rare_columns(matrix)
        found.append(Similarity(metapath_name([kind]), one, identity))
        found.append(Similarity(metapath_name([kind] * 2), shared, shared))
        if node_type == graph.vocabulary.disease_type:
            found.append(Similarity(metapath_name([kind] * 3), csr_array(one @ one), one))
    return found


def rows_of(similarities: Sequence[Similarity], nodes: IntArray) -> Floats:
    """Return the similarity of some nodes to all nodes, shape (W, len(nodes), n).

    The similarity of a node to itself is not set to 0.
    """
    shape = (len(similarities), len(nodes), similarities[0].left.shape[0])
    rows = np.empty(shape, np.float32)
    for out, similarity in zip(rows, similarities, strict=True):
        # Most products are dense, and a product of two sparse matrices would take twice as long.
        out[:] = transposed(similarity.right @ similarity.left[nodes].T.toarray())
    return rows


class LargestEntries:
    """The largest entries of each row of a matrix (n, n), computed when they are first needed.

    The first questions compute the rows that they need. A row alone takes longer than a row among
    many, so afterwards all rows are computed at once.
    """

    def __init__(self, num_rows: int, most: int) -> None:
        """Keep at most `most` entries of each row."""
        self._most = min(most, num_rows)
        self._columns = np.empty((num_rows, self._most), np.int32)
        self._values = np.empty((num_rows, self._most), np.float32)
        self._is_there = np.zeros(num_rows, bool)
        self._num_questions = 0

    def missing(self, rows: IntArray) -> IntArray:
        """Return which rows to compute before `rows` can be asked for."""
        self._num_questions += 1
        if self._num_questions > _WITHOUT_ALL or len(rows) == len(self._is_there):
            return np.flatnonzero(~self._is_there)
        return rows[~self._is_there[rows]]

    def keep(self, rows: IntArray, entries: Floats) -> None:
        """Keep the largest entries of k computed rows, shape (k, n)."""
        best = np.sort(np.argpartition(-entries, self._most - 1, axis=1)[:, : self._most], axis=1)
        self._columns[rows] = best
        self._values[rows] = np.take_along_axis(entries, best, axis=1)
        self._is_there[rows] = True  # last: other threads may ask meanwhile

    def rows(self, rows: IntArray) -> csr_array:
        """Return k rows that are there, shape (k, n)."""
        ends = np.arange(len(rows) + 1) * self._most
        parts = (self._values[rows].ravel(), self._columns[rows].ravel(), ends)
        return csr_array(parts, shape=(len(rows), len(self._is_there)))


@dataclass(frozen=True)
class RandomWalk:
    """Random walks along a relation within a node type."""

    name: str
    step: (
        csr_array  #: shape (n, n): row i has the probabilities of the steps from node i, times 0.7
    )

    def visits(self, at: Floats) -> Floats:
        """Return the expected visits of walks from each node to m weighted sets of nodes.

        A visit after k of at most eight steps counts 0.7^k.

        Args:
            at: shape (n, m), weight of each node in each set.

        Returns:
            Shape (n, m).
        """
        total = np.zeros_like(at)
        for _ in range(_WALK_STEPS):
            at = self.step @ at
            total += at
        return total

    def reversed(self) -> RandomWalk:
        """Return the walks along the steps in the other direction."""
        return RandomWalk(self.name, csr_array(self.step.T))


def random_walks(graph: KnowledgeGraph, node_type: str) -> list[RandomWalk]:
    """Return the random walks along each relation within a node type."""
    found = []
    for kind in _relations_within(graph, node_type):
        matrix = adjacency(graph, kind)
        every = np.full(matrix.shape[1], _CONTINUE, np.float32)
        step = scale(matrix, power(matrix.sum(axis=1), -1), every)
        found.append(RandomWalk(f"{node_type} - walk along {kind.relation} - {node_type}", step))
    return found


def names_of_paths(
    connecting: Iterable[str], by_disease: Iterable[str], others: Iterable[str], by_drug: list[str]
) -> list[str]:
    """Return the names of the features of pairs.

    Args:
        connecting: metapaths through nodes of other types.
        by_disease: similarities of diseases, and walks.
        others: relations between drugs and diseases that do not mean a treatment.
        by_drug: similarities of drugs.
    """
    names = list(connecting)
    for name in by_disease:
        names += [f"drug - treats - {name}", f"drug - treats - {name}, nearest"]
    names += [f"{_TREATS} - similar in any way - disease, nearest"]
    names += [f"drug - {r} - disease - similar in any way - disease" for r in others]
    for how in ("related", "similar in any way"):
        names += [f"{name} - treats - disease - {how} - disease" for name in by_drug]
    return [*names, f"{_TREATS} - shares drugs - disease - related - disease"]


def nearest(block: Floats, treats: csr_array) -> Floats:
    """Return the maximum of a block (n, T) over the diseases that each drug treats, shape (n, D).

    Args:
        block: similarity of n diseases to T treated diseases.
        treats: shape (D, T), 1 where the drug treats the disease.
    """
    out = np.zeros((len(block), treats.shape[0]), np.float32)
    has = np.flatnonzero(np.diff(treats.indptr))
    rows = np.flatnonzero(block.any(axis=1))  # a third of them on PrimeKG
    if len(has) and len(rows):
        chosen = block[rows[:, None], treats.indices]
        out[rows[:, None], has] = np.maximum.reduceat(chosen, treats.indptr[has], axis=1)
    return out


def names_of(graph: KnowledgeGraph, node_type: str) -> list[str]:
    """Return the names of the nodes of a type."""
    nodes = graph.nodes.filter(graph.nodes["node_type"] == node_type)
    return [str(name) for name in nodes["node_name"]]


def log_degrees(graph: KnowledgeGraph, node_type: str, but: str) -> tuple[list[str], list[Floats]]:
    """Return names and log(1 + degrees) of edge types from `node_type`, except those to `but`."""
    kinds = [k for k in graph.edge_types if k.src_type == node_type and k.dst_type != but]
    names = [f"{k.relation} - {k.dst_type}" for k in kinds]
    degrees = [np.log1p(np.diff(adjacency(graph, k).indptr)).astype(np.float32) for k in kinds]
    return names, degrees


def _relations_within(graph: KnowledgeGraph, node_type: str) -> list[EdgeType]:
    return [kind for kind in graph.edge_types if kind.src_type == kind.dst_type == node_type]


def steps_from(graph: KnowledgeGraph, start: str) -> list[EdgeType]:
    """Return the edge types out of a node type, except those to drugs and diseases."""
    ends = (graph.vocabulary.drug_type, graph.vocabulary.disease_type)
    return [k for k in graph.edge_types if k.src_type == start and k.dst_type not in ends]


def meet(a: Metapath, b: Metapath) -> bool:
    """Return whether metapath `a` from drugs and metapath `b` from diseases can be joined.

    If `b` has two steps, `a` must have two steps with the same second step. Otherwise, a joint
    metapath could be counted twice.
    """
    if a[-1].dst_type != b[-1].dst_type:
        return False
    return len(b) == 1 or (len(a) == 2 and a[1] == b[1])


def word_vectors(names: list[str]) -> csr_array:
    """Return a matrix (names, words) of the words in each name, scaled by `rare_columns`."""
    words = _words_of(names, r"[a-z]{3,}|\d+")
    return _part_vectors(words, {word: [word] for word in set().union(*words)})


def stem_vectors(names: list[str]) -> csr_array:
    """Return a matrix (names, parts) of word beginnings and endings, scaled by `rare_columns`.

    Drugs of one class often share a stem, such as -olol or cef-.
    """
    words = _words_of(names, r"[a-z]{4,}")
    ends = {
        word: [end for n in range(3, 8) for end in ("^" + word[:n], word[-n:] + "$")]
        for word in set().union(*words)
    }
    return _part_vectors(words, ends)


def _words_of(names: list[str], pattern: str) -> list[list[str]]:
    find = re.compile(pattern).findall
    return [find(name.lower()) for name in names]


def _part_vectors(words: list[list[str]], parts: Mapping[str, list[str]]) -> csr_array:
    """Return a matrix (names, parts) of the parts of the words in each name."""
    vocabulary = {part: i for i, part in enumerate(sorted(set().union(*parts.values())))}
    numbers = {word: [vocabulary[part] for part in of_word] for word, of_word in parts.items()}
    rows = [{number for word in one for number in numbers[word]} for one in words]
    columns = np.fromiter(chain.from_iterable(rows), np.int64)
    indptr = np.cumsum([0] + [len(row) for row in rows])
    shape = (len(rows), max(len(vocabulary), 1))
    matrix = csr_array((np.ones(len(columns), np.float32), columns, indptr), shape=shape)
    matrix.sort_indices()
    return rare_columns(matrix)


def co_indicated_features(similarity: Floats) -> Floats:
    """Summarize the similarity of all drugs to the drugs known for a disease (co-indicated drugs).

    Args:
        similarity: shape (W, k, D), from `MetapathFeatures.co_indicated_similarity`.

    Returns:
        Shape (2 W + 1, D): for each similarity the sum and the maximum over the k known drugs; the
        last row contains log(1 + k).
    """
    total, maximum = similarity.sum(axis=1), similarity.max(axis=1, initial=0)
    return _sums_and_maxima(total, maximum, similarity.shape[1])


def co_indicated_features_without(similarity: Floats, positives: IntArray) -> Floats:
    """Compute `co_indicated_features` P times, each time without one known drug.

    In training, a known drug that is to be predicted must not be visible in the features.

    Args:
        similarity: shape (W, k, D).
        positives: shape (P,), the drugs to leave out, as indices into the k known drugs.

    Returns:
        Shape (P, 2 W + 1, D).
    """
    removed = np.moveaxis(similarity[:, positives], 1, 0)
    maximum = np.zeros_like(removed)
    for rows, p in zip(maximum, positives.tolist(), strict=True):
        for others in (similarity[:, :p], similarity[:, p + 1 :]):
            np.maximum(rows, others.max(axis=1, initial=0), out=rows)
    # Where no other drug is similar, the difference would be a rounding error instead of 0.
    total = np.where(maximum > 0, similarity.sum(axis=1) - removed, 0)
    return _sums_and_maxima(total, maximum, similarity.shape[1] - 1)


def _sums_and_maxima(total: Floats, maximum: Floats, count: int) -> Floats:
    *batch, num_similarities, num_drugs = total.shape
    out = np.zeros((*batch, 2 * num_similarities + 1, num_drugs), np.float32)
    out[..., 0:-1:2, :] = total
    out[..., 1:-1:2, :] = maximum
    out[..., -1, :] = np.log1p(count)
    return out
