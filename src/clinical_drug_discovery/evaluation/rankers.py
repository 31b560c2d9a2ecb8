"""The rankers that an evaluation compares: the trained ones, and baselines that learn nothing.

A ranker maps diseases, node numbers of shape (n,), to scores of all drugs, shape (n, number of
drugs), drugs in graph order. Known drugs are scored too; the metrics leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from ..graph.adjacency import Floats, adjacency_between
from ..graph.knowledge_graph import DISEASE, DRUG, IntArray, KnowledgeGraph, node_range_of
from ..ranking.bilinear_score import GnnScores, Scores
from ..ranking.drug_ranker import fit_drug_ranker
from ..ranking.metapath_features import MetapathFeatures
from ..ranking.treatments import INDICATION, TREATS

Baseline = Callable[[KnowledgeGraph, IntArray], Floats]
_MAX_HOPS, _DAMPING = 3, 0.5
_TRAIT_TYPES = ("effect/phenotype", "gene/protein")  # what diseases may have in common
_ABSENT = ("disease_phenotype_negative",)  # relations saying that a disease lacks a phenotype


def popularity_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score a drug by the number of diseases that it treats; the same for every disease."""
    return _repeat(_treatments(graph).sum(axis=0), len(diseases))


def degree_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score a drug by the number of its edges of all types; the same for every disease."""
    first, stop = node_range_of(graph, DRUG)
    return _repeat(graph.degree[first:stop].numpy(), len(diseases))


def relatives_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score a drug by the related diseases that it treats.

    The score is the sum over h = 1, 2, 3 of 0.5^h times the number of diseases that the drug
    treats at distance h, in edges between diseases. It is 0 for a disease without such edges.
    """
    related, treats = adjacency_between(graph, DISEASE, DISEASE), _treatments(graph)
    n, start = len(diseases), diseases - node_range_of(graph, DISEASE)[0]
    entries = (np.ones(n, np.float32), start, np.arange(n + 1))
    seen = frontier = csr_array(entries, shape=(n, related.shape[0]))
    scores = np.zeros((n, treats.shape[1]), np.float32)
    for hop in range(1, _MAX_HOPS + 1):
        frontier = frontier @ related
        frontier.data[:] = 1  # a disease counts once, however many paths reach it
        frontier = frontier - frontier.multiply(seen)
        frontier.eliminate_zeros()
        seen = seen + frontier
        scores += (frontier @ treats).toarray() * np.float32(_DAMPING**hop)
    return scores


def shared_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score a drug by the genes and phenotypes that its diseases share with the given one.

    The score is the sum of the cosines between the disease and each other disease that the drug
    treats. A disease's vector has an entry for each of its genes and phenotypes, weighted by
    ln(number of diseases with any / number of diseases with this one). The score is 0 for a disease
    without genes and phenotypes.
    """
    treats, traits = _treatments(graph), _trait_vectors(graph)
    treated = np.flatnonzero(np.diff(treats.indptr))
    rows = diseases - node_range_of(graph, DISEASE)[0]
    cosine = (traits[rows] @ traits[treated].T).tocoo()
    i, j = cosine.coords
    cosine.data[rows[i] == treated[j]] = 0  # the disease itself
    return np.asarray((cosine.tocsr() @ treats[treated]).toarray(), np.float32)


def break_ties(scores: Floats, by: Floats) -> Floats:
    """Order drugs by one score, and drugs with equal scores by a second one.

    Most drugs treat no related disease and tie at 0. On PrimeKG, putting the popular ones first
    raised recall@50 of `relatives` by 0.02 and that of `shared` by 0.14.

    Args:
        scores: shape (n, M).
        by: shape (n, M), the second score.

    Returns:
        shape (n, M), positions from the worst. Drugs share one only if both scores are equal.
    """
    positions = np.empty(scores.shape, np.float32)
    for first, second, position in zip(scores, by, positions, strict=True):
        order = np.lexsort((second, first))
        a, b = first[order], second[order]
        position[order] = np.cumsum(np.r_[False, (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    return positions


def _with_popularity(scores: Baseline) -> Baseline:
    return lambda graph, diseases: break_ties(
        scores(graph, diseases), popularity_scores(graph, diseases)
    )


BASELINES: dict[str, Baseline] = {
    "popularity": popularity_scores,
    "degree": degree_scores,
    "relatives": relatives_scores,
    "relatives+popularity": _with_popularity(relatives_scores),
    "shared": shared_scores,
    "shared+popularity": _with_popularity(shared_scores),
}


def _treatments(graph: KnowledgeGraph) -> csr_array:
    """Return the 0/1 matrix of treatments, shape (diseases, drugs); it may have no entries."""
    return adjacency_between(graph, DISEASE, DRUG, TREATS)


def _trait_vectors(graph: KnowledgeGraph) -> csr_array:
    """Return the weighted genes and phenotypes of all diseases, rows of length 1 (or 0)."""
    relations = set(graph.relations) - set(_ABSENT)
    first, stop = node_range_of(graph, DISEASE)
    parts = [csr_array((stop - first, 0), dtype=np.float32)]
    kinds = [kind for kind in _TRAIT_TYPES if kind in graph.node_type_names]
    parts += [adjacency_between(graph, DISEASE, kind, relations) for kind in kinds]
    traits = csr_array(hstack(parts, format="csr"))
    num_with_any = max(np.count_nonzero(np.diff(traits.indptr)), 1)
    num_with = np.bincount(traits.indices, minlength=1)
    weight = np.log(num_with_any / np.maximum(num_with, 1)).astype(np.float32)
    traits.data *= weight[traits.indices]
    length = np.sqrt(traits.multiply(traits).sum(axis=1))
    traits.data /= np.repeat(np.where(length > 0, length, 1), np.diff(traits.indptr))
    return traits


def _repeat(by_drug: npt.NDArray[np.number], num_rows: int) -> Floats:
    return np.tile(by_drug.astype(np.float32), (num_rows, 1))


#: From node numbers of diseases, shape (n,), to scores of all drugs, shape (n, number of drugs).
Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, gnn: GnnScores, *, seed: int
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker, one by one, so that each fit can be timed.

    `gnn` scores the relation "indication" with the model's own decoder. `gnn, treatment decoder`
    scores the same embeddings with the decoder of `treatment_decoder`. `gnn, both decoders` adds
    the two. `ranker` is the one of `cdd rank`, and `paths` its part that uses metapaths alone. The
    baselines of `baselines.BASELINES` follow.

    Args:
        graph: the training graph, on the CPU.
        gnn: scores of a model that was trained on it.
        seed: seed of the fits.

    Raises:
        InputError: the graph lacks drugs, diseases, or a drug that treats a disease.
    """
    drugs, first_disease = node_range_of(graph, DRUG), node_range_of(graph, DISEASE)[0]
    indication = graph.relations.index(INDICATION)
    yield "gnn", lambda diseases: gnn(diseases, indication, drugs)

    ranker = fit_drug_ranker(graph, gnn=gnn, seed=seed)
    decoder = ranker.treatment_decoder
    assert decoder is not None
    features = MetapathFeatures(graph)  # after the fit, which holds features of its own
    for name, scores in (
        ("gnn, treatment decoder", lambda _, diseases: decoder.log_softmax(diseases)),
        ("gnn, both decoders", ranker.decoder_scores),
        ("ranker", ranker.scores),
        ("paths", ranker.paths.scores),
    ):
        yield name, partial(score_by_node, scores, features, first_disease)

    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)


def score_by_node(
    scores: Callable[[MetapathFeatures, IntArray], Scores],
    features: MetapathFeatures,
    first_disease: int,
    diseases: IntArray,
) -> Scores:
    """Convert node numbers to numbers within the type, and call a scoring function with them."""
    return scores(features, diseases - first_disease)
