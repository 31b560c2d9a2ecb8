"""The rankers that an evaluation compares: trained rankers and untrained baselines.

A ranker maps node numbers of diseases, shape (n,), to scores of all drugs in graph order, shape
(n, number of drugs). Rankers also score known drugs, but the metrics ignore these scores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from torch import Tensor

from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import did_you_mean
from ..ranking.bilinear_score import GnnScores, Scores
from ..ranking.drug_ranker import DrugRanker, fit_drug_ranker
from ..ranking.metapath_features import MetapathFeatures
from ..ranking.stored.check_ranker import check_fits
from ..system.errors import InputError
from .baselines import BASELINES
from .embedding_probe import neighbor_scores

GNN = "gnn"  #: the model's own decoder
_OF_DECODERS = ("gnn, treatment decoder", "gnn, both decoders")
_FITTED = (*_OF_DECODERS, "ranker", "paths")
NEIGHBORS = "neighbors"  #: the probe of embeddings
#: Names of all rankers that an evaluation can compare.
RANKERS = (GNN, *_FITTED, NEIGHBORS, *BASELINES)


#: Maps node numbers of diseases, shape (n,), to scores of all drugs, shape (n, number of drugs).
Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, gnn: GnnScores, *, seed: int, names: Collection[str] = RANKERS
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker. Each is fitted when needed, for timing.

    `gnn` scores the relation "indication" with the decoder of the model. `gnn, treatment decoder`
    scores the same embeddings with the decoder of `treatment_decoder`. `gnn, both decoders` adds
    both scores. `ranker` is the drug ranker of `cdd rank`. `paths` is the part of the drug ranker
    that uses only metapaths. `neighbors` is the probe of `embedding_probe`. The baselines of
    `BASELINES` follow.

    Args:
        graph: the training graph, on the CPU.
        gnn: scores of a model that was trained on this graph.
        seed: seed of fitting the drug ranker.
        names: rankers to yield, of `RANKERS`. The drug ranker is fitted only if a part is needed.

    Raises:
        InputError: the graph lacks drugs, diseases, or a drug that treats a disease.
    """
    words = graph.vocabulary
    drugs = node_range_of(graph, words.drug_type)
    indication = graph.relations.index(words.indication)
    if GNN in names:
        yield GNN, lambda diseases: gnn(diseases, indication, drugs)
    if needs_fit(names):
        ranker = fit_drug_ranker(graph, gnn=gnn, seed=seed)
        assert ranker.treatment_decoder is not None
        yield from _parts(graph, ranker, [name for name in names if name != GNN])
    yield from _untrained(graph, gnn.embeddings, names)


def saved_rankers(
    graph: KnowledgeGraph,
    ranker: DrugRanker | None,
    embeddings: Tensor | None,
    names: Collection[str],
) -> Iterator[tuple[str, Ranker]]:
    """Yield the name of each ranker and the ranker, from a saved model; see `drug_rankers`.

    Args:
        graph: the graph of the model, on the CPU.
        ranker: the saved drug ranker; it has the scores of the decoders.
        embeddings: shape (N, dim), of all nodes, on the CPU.
        names: rankers to yield. None of `why_not_saved` may be among them.
    """
    if ranker is not None:
        yield from _parts(graph, ranker, names)
    yield from _untrained(graph, embeddings, names)


def why_not_saved(has_ranker: bool, has_decoders: bool, has_embeddings: bool) -> dict[str, str]:
    """Return the rankers that a saved model cannot provide, with the reasons."""
    missing: dict[str, str] = {}
    if not has_ranker:
        missing |= dict.fromkeys((GNN, *_FITTED), "the model directory has no drug ranker")
    elif not has_decoders:
        missing |= dict.fromkeys((GNN, *_OF_DECODERS), "the drug ranker was fitted without a model")
    if not has_embeddings:
        missing[NEIGHBORS] = "the embeddings are missing; name their file with embeddings"
    return missing


def _parts(
    graph: KnowledgeGraph, ranker: DrugRanker, names: Collection[str]
) -> Iterator[tuple[str, Ranker]]:
    """Yield the drug ranker and its parts; `gnn` is scored in half precision here."""
    wanted = [name for name in (GNN, *_FITTED) if name in names]
    decoder, gnn = ranker.treatment_decoder, ranker.gnn
    scores: dict[str, Callable[[MetapathFeatures, IntArray], Scores]] = {
        "ranker": ranker.scores, "paths": ranker.paths.scores
    }  # fmt: skip
    if decoder is not None:
        scores |= dict(
            zip(
                _OF_DECODERS,
                (lambda _, diseases: decoder.log_softmax(diseases), ranker.decoder_scores),
                strict=True,
            )
        )
    if gnn is not None:
        scores[GNN] = lambda _, diseases: gnn.logits(diseases).numpy()
    if wanted:
        first_disease, _ = node_range_of(graph, graph.vocabulary.disease_type)
        features = MetapathFeatures(graph)  # after the fit, which frees the features it computed
        check_fits(ranker, features)
        for name in wanted:
            yield name, partial(score_by_node, scores[name], features, first_disease)


def _untrained(
    graph: KnowledgeGraph, embeddings: Tensor | None, names: Collection[str]
) -> Iterator[tuple[str, Ranker]]:
    if NEIGHBORS in names and embeddings is not None:
        yield NEIGHBORS, partial(neighbor_scores, graph, embeddings)
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
