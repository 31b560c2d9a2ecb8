"""Training examples for a listwise loss: known drugs of a disease, and sampled other drugs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray
from ..system.processes import for_each, in_order, most_threads
from .drug_similarity import CO_INDICATED, co_indicated_features, rows_of
from .metapath_features import MetapathFeatures
from .treatments import order_by_drugs

#: Number of diseases whose features a thread computes at a time: these take 45 MB on PrimeKG.
CHUNK = 16
_SIMILAR_CHUNK = 128  # likewise for the similarities of their known drugs
#: Limit of threads of a fit: each takes memory, and there are two MLPs to train.
MOST_WORKERS = 2
MAX_KNOWN = 64  #: limit of known drugs whose similarities a thread computes at a time
MAX_EXAMPLES = 2_000  #: limit of training diseases: more take longer and improve the ranking little
#: Limits of negatives per example. Hard ones treat other diseases; easy ones treat no disease.
NUM_HARD, NUM_EASY = 800, 200
NUM_HARMFUL = 100  #: limit of contraindicated drugs per example; they are always negatives
_NUM_SCALED = 32  # number of diseases from which `feature_scales` computes the scales


@dataclass(frozen=True)
class ListwiseExample:
    """The C candidate drugs of a disease: k known drugs, then negatives.

    Contraindicated drugs come first among the negatives, then hard ones, then easy ones.

    B is the number of base features, W the number of similarities between drugs.
    """

    disease: int
    num_positives: int  #: k
    num_hard: int  #: number of hard negatives
    log_probability: Floats  #: shape (C,), log of each candidate's probability of being sampled
    base: npt.NDArray[np.float16]  #: shape (C, B), after `squash`; float16 saves memory
    popularity: npt.NDArray[np.float16]  #: shape (C, G), see `MetapathFeatures.popularity`
    anchor: Floats  #: shape (C,), see `MetapathFeatures.walk_anchor`
    co_indicated: npt.NDArray[np.float16]  #: shape (W, k, C), see `co_indicated_similarity`


def squash(values: Floats, scale: Floats) -> Floats:
    """Return arcsinh(values / scale) for values of shape (..., F, D) and a scale of shape (F,).

    It is computed as log(|x| + sqrt(x^2 + 1)) with the sign of x. The absolute error is below 4e-7
    for |x| < 1000, that of `np.arcsinh` below 3e-7. Without AVX-512, `np.arcsinh` takes nine times
    as long. From |x| = 1e19, x^2 would be infinite; a scale is the mean of |values|.
    """
    scaled = values / scale[:, None]
    size = np.abs(scaled)
    root = np.square(scaled)
    root += 1
    np.sqrt(root, out=root)
    root += size
    np.log(root, out=root)
    return np.asarray(np.copysign(root, scaled, out=root), np.float32)


def feature_scales(features: MetapathFeatures) -> tuple[Floats, Floats]:
    """Return the mean of all nonzero |values| of each base and each co-indicated feature."""
    diseases = features.treated[:: -(-len(features.treated) // _NUM_SCALED)]
    similarities = co_indicated_similarities(features, diseases)
    co_indicated = np.stack([co_indicated_features(similarity) for _, similarity in similarities])
    return _scale(features.base(diseases)), _scale(co_indicated)


def co_indicated_similarities(
    features: MetapathFeatures, diseases: IntArray
) -> Iterator[tuple[IntArray, Floats]]:
    """Yield `co_indicated_similarity` of each disease, in less time than one by one.

    The products of consecutive diseases with at most `MAX_KNOWN` distinct known drugs are computed
    together, once for each drug. With `order_by_drugs`, such diseases share many drugs.
    """
    known = [features.known_drugs(disease) for disease in diseases.tolist()]
    start = 0
    while start < len(known):
        drugs, stop = known[start], start + 1
        while stop < len(known) and len(more := np.union1d(drugs, known[stop])) <= MAX_KNOWN:
            drugs, stop = more, stop + 1
        products = rows_of(features.drug_similarities, drugs)
        for i in range(start, stop):
            at = np.searchsorted(drugs, known[i])
            yield features.co_indicated_similarity(int(diseases[i]), products[:, at])
        start = stop


def _scale(values: Floats) -> Floats:
    counts = np.count_nonzero(values, axis=(0, 2))
    total = np.abs(values).sum(axis=(0, 2), dtype=np.float64)
    return np.where(total > 0, total / np.maximum(counts, 1), 1).astype(np.float32)


def fit_workers() -> int:
    """Return the number of threads of a fit, whose result does not depend on it."""
    return min(MOST_WORKERS, most_threads())


def sample_examples(
    features: MetapathFeatures, scale: Floats, *, seed: int
) -> list[ListwiseExample]:
    """Sample one example per treated disease, or `MAX_EXAMPLES` examples if that is less.

    There are many easy negatives and the model learns little from each, so few are sampled. The
    loss corrects for this with `log_probability`. An example takes about 0.4 MB on PrimeKG.

    Args:
        features: of the graph.
        scale: shape (B,), scales of the base features.
        seed: seed of the sampling.
    """
    chosen = _draw(features, np.random.default_rng(seed))
    chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    parts = in_order(lambda chunk: _examples(features, scale, chunk), chunks, fit_workers())
    examples = [example for part in parts for example in part]
    diseases = np.array([candidates.disease for candidates in chosen], np.int64)

    def add_similarities(places: IntArray) -> None:
        similarities = co_indicated_similarities(features, diseases[places])
        for i, (_, similarity) in zip(places.tolist(), similarities, strict=True):
            examples[i].co_indicated[:] = similarity[:, :, chosen[i].drugs]

    order = order_by_drugs(features.known_by_disease[diseases], MAX_KNOWN)
    pieces = [order[at : at + _SIMILAR_CHUNK] for at in range(0, len(order), _SIMILAR_CHUNK)]
    for_each(add_similarities, pieces, fit_workers())
    return examples


@dataclass(frozen=True)
class _Candidates:
    """The C candidate drugs of a disease, without features; see `ListwiseExample`."""

    disease: int
    drugs: IntArray  #: shape (C,), known drugs first
    num_positives: int
    num_hard: int
    log_probability: Floats


def _draw(features: MetapathFeatures, rng: np.random.Generator) -> list[_Candidates]:
    """Draw the candidates of each treated disease, or of `MAX_EXAMPLES` of them."""
    num_indications = np.diff(features.known.indptr)
    hard, easy = np.flatnonzero(num_indications), np.flatnonzero(num_indications == 0)
    treated, drawn = features.treated, []
    if len(treated) > MAX_EXAMPLES:
        treated = np.sort(rng.choice(treated, MAX_EXAMPLES, replace=False))
    for disease in treated.tolist():
        known = features.known_drugs(disease)
        harmful = features.contraindicated_drugs(disease)
        if len(harmful) > NUM_HARMFUL:
            harmful = rng.choice(harmful, NUM_HARMFUL, replace=False)
        taken = np.concatenate([known, harmful])
        groups, log_probability = [taken], [np.zeros(len(taken))]
        for drugs, most in ((hard, NUM_HARD), (easy, NUM_EASY)):
            pool = np.setdiff1d(drugs, taken)
            number = min(most, len(pool))
            groups.append(rng.choice(pool, number, replace=False))
            log_probability.append(np.full(number, np.log(number / max(len(pool), 1) or 1)))
        drawn.append(
            _Candidates(
                disease,
                np.concatenate(groups),
                len(known),
                len(groups[1]),
                np.concatenate(log_probability).astype(np.float32),
            )
        )
    return drawn


def _examples(
    features: MetapathFeatures, scale: Floats, chosen: list[_Candidates]
) -> list[ListwiseExample]:
    """Return examples with all features but `co_indicated`, which is uninitialized."""
    num_similarities = len(features.drug_similarities) + len(CO_INDICATED)
    examples = []
    parts = features.base_parts(np.array([candidates.disease for candidates in chosen], np.int64))
    for candidates, of_pairs, of_disease in zip(chosen, *parts, strict=True):
        drugs = candidates.drugs
        repeated = np.broadcast_to(of_disease[:, None], (len(of_disease), len(drugs)))
        values = np.concatenate([of_pairs[:, drugs], repeated])
        scaled = squash(values, scale).T.astype(np.float16)
        popularity = features.popularity(candidates.disease)[:, drugs]
        shape = num_similarities, candidates.num_positives, len(drugs)
        examples.append(
            ListwiseExample(
                disease=candidates.disease,
                num_positives=candidates.num_positives,
                num_hard=candidates.num_hard,
                log_probability=candidates.log_probability,
                base=np.ascontiguousarray(scaled),
                popularity=popularity.T.astype(np.float16),
                anchor=features.walk_anchor(of_pairs)[drugs],
                co_indicated=np.empty(shape, np.float16),
            )
        )
    return examples
