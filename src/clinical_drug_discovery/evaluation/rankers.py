"""The rankers that an evaluation compares: trained rankers and untrained baselines.

A ranker maps node numbers of diseases, shape (n,), to scores of all drugs in graph order, shape
(n, number of drugs). Rankers also score known drugs, but the metrics ignore these scores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack

from ..graph.adjacency import Floats, adjacency_between
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import did_you_mean
from ..ranking.bilinear_score import GnnScores, Scores
from ..ranking.drug_ranker import fit_drug_ranker
from ..ranking.metapath_features import MetapathFeatures
from ..system.errors import InputError

Baseline = Callable[[KnowledgeGraph, IntArray], Floats]
_MAX_HOPS, _DAMPING = 3, 0.5  # see `relatives_scores`
_PHENOTYPE = "effect/phenotype"  # node type that `shared_scores` compares, as well as genes
_ABSENT = ("disease_phenotype_negative",)  # relations which state that a phenotype is absent


def popularity_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of diseases that it treats; all rows of scores are equal."""
    return _repeat(_treatments(graph).sum(axis=0), len(diseases))


def degree_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of its edges of all types; all rows of scores are equal."""
    first, stop = node_range_of(graph, graph.vocabulary.drug_type)
    return _repeat(graph.degree[first:stop].numpy(), len(diseases))


def relatives_scores(graph: KnowledgeGraph, diseases: IntArray) -> Floats:
    """Score each drug by the number of related diseases that it treats.

    score = sum over h = 1, 2, 3 of 0.5^h * (number of diseases at distance h that the drug treats).
    The distance counts edges between diseases. A disease without such edges has scores of 0.
    """
    disease = graph.vocabulary.disease_type
    related, treats = adjacency_between(graph, disease, disease), _treatments(graph)
    n, start = len(diseases), diseases - node_range_of(graph, disease)[0]
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
    """Score each drug by the similarity of a disease to the other diseases that the drug treats.

    score = sum of cosine(disease, other) over all other diseases that the drug treats. The vector
    of a disease has one entry for each trait (gene or phenotype) of the disease: ln(number of
    diseases with any trait / number of diseases with this trait). A disease without traits has
    scores of 0.
    """
    treats, traits = _treatments(graph), _trait_vectors(graph)
    treated = np.flatnonzero(np.diff(treats.indptr))
    rows = diseases - node_range_of(graph, graph.vocabulary.disease_type)[0]
    cosine = (traits[rows] @ traits[treated].T).tocoo()
    i, j = cosine.coords
    cosine.data[rows[i] == treated[j]] = 0  # the disease itself
    return np.asarray((cosine.tocsr() @ treats[treated]).toarray(), np.float32)


def break_ties(scores: Floats, by: Floats) -> Floats:
    """Order drugs by a first score, and drugs with equal first scores by a second score.

    Most drugs treat no related disease and have a score of 0. On PrimeKG, popularity as the second
    score raised the recall@50 of `relatives` by 0.02 and the recall@50 of `shared` by 0.14.

    Args:
        scores: shape (n, M), the first score.
        by: shape (n, M), the second score.

    Returns:
        shape (n, M), position of each drug, 0 for the worst; equal only if both scores are equal.
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
_FITTED = ("gnn, treatment decoder", "gnn, both decoders", "ranker", "paths")
#: Names of all rankers that an evaluation can compare.
RANKERS = ("gnn", *_FITTED, *BASELINES)


def _treatments(graph: KnowledgeGraph) -> csr_array:
    """Return a 0/1 matrix, shape (diseases, drugs): 1 if the drug treats the disease."""
    words = graph.vocabulary
    return adjacency_between(graph, words.disease_type, words.drug_type, words.treats)


def _trait_vectors(graph: KnowledgeGraph) -> csr_array:
    """Return the vectors of `shared_scores`, one row per disease, scaled to length 1 (or 0)."""
    relations = set(graph.relations) - set(_ABSENT)
    disease = graph.vocabulary.disease_type
    first, stop = node_range_of(graph, disease)
    parts = [csr_array((stop - first, 0), dtype=np.float32)]
    types = (_PHENOTYPE, graph.vocabulary.gene_type)
    kinds = [kind for kind in types if kind in graph.node_type_names]
    parts += [adjacency_between(graph, disease, kind, relations) for kind in kinds]
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


#: Maps node numbers of diseases, shape (n,), to scores of all drugs, shape (n, number of drugs).
Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, gnn: GnnScores, *, seed: int, names: Collection[str] = RANKERS
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker. Each is fitted when needed, for timing.

    `gnn` scores the relation "indication" with the decoder of the model. `gnn, treatment decoder`
    scores the same embeddings with the decoder of `treatment_decoder`. `gnn, both decoders` adds
    both scores. `ranker` is the drug ranker of `cdd rank`. `paths` is the part of the drug ranker
    that uses only metapaths. The baselines of `BASELINES` follow.

    Args:
        graph: the training graph, on the CPU.
        gnn: scores of a model that was trained on this graph.
        seed: seed of fitting the drug ranker.
        names: rankers to yield, of `RANKERS`. The drug ranker is fitted only if a part is needed.

    Raises:
        InputError: the graph lacks drugs, diseases, or a drug that treats a disease.
    """
    words = graph.vocabulary
    drugs, first_disease = (
        node_range_of(graph, words.drug_type), node_range_of(graph, words.disease_type)[0]
    )  # fmt: skip
    indication = graph.relations.index(words.indication)
    if "gnn" in names:
        yield "gnn", lambda diseases: gnn(diseases, indication, drugs)

    if needs_fit(names):
        ranker = fit_drug_ranker(graph, gnn=gnn, seed=seed)
        decoder = ranker.treatment_decoder
        assert decoder is not None
        features = MetapathFeatures(graph)  # after the fit, which frees the features it computed
        parts = (
            lambda _, diseases: decoder.log_softmax(diseases),
            ranker.decoder_scores,
            ranker.scores,
            ranker.paths.scores,
        )
        for name, scores in zip(_FITTED, parts, strict=True):
            if name in names:
                yield name, partial(score_by_node, scores, features, first_disease)

    for name, baseline in BASELINES.items():
        if name in names:
            yield name, partial(baseline, graph)


def check_rankers(rankers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the rankers to compare, in the order of `RANKERS`; None means all.

    Raises:
        InputError: the list is empty, or a name is not the name of a ranker.
    """
    if rankers is None:
        return RANKERS
    if isinstance(rankers, str) or not rankers:
        raise InputError(f"rankers (got {rankers!r}) must be a list of names of rankers")
    for name in rankers:
        if name not in RANKERS:
            raise InputError(
                f"rankers (got {name!r}) must be among {'; '.join(RANKERS)}"
                f"{did_you_mean(str(name), list(RANKERS))}"
            )
    return tuple(name for name in RANKERS if name in rankers)


def needs_fit(names: Collection[str]) -> bool:
    """Return whether one of these rankers is a part of the fitted drug ranker."""
    return not set(names).isdisjoint(_FITTED)


def score_by_node(
    scores: Callable[[MetapathFeatures, IntArray], Scores],
    features: MetapathFeatures,
    first_disease: int,
    diseases: IntArray,
) -> Scores:
    """Convert node numbers to numbers within the type, and call a scoring function with them."""
    return scores(features, diseases - first_disease)
