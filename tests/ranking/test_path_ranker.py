"""The ranker finds a planted mechanism, by itself or by the features that it is given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from graphs import graph_of, planted_facts

from clinical_drug_discovery.boosting import BoostedPaths, fit_boosted
from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.ranking.listwise_examples import Extra
from clinical_drug_discovery.ranking.metapath_features import PathEvidence
from clinical_drug_discovery.ranking.path_ranker import PathRanker, fit_ranker


def fit(evidence: PathEvidence, extra: Extra | None = None) -> PathRanker:
    return fit_ranker(evidence, extra=extra, num_networks=1, num_epochs=12, seed=1)


def ranks_of_hidden(
    evidence: PathEvidence,
    ranker: PathRanker | BoostedPaths,
    everything: PathEvidence,
    extra: Extra | None = None,
) -> Floats:
    """Where the pairs stand that `evidence` does not have, among the drugs of no known pair."""
    known = everything.known.toarray().T > 0
    hidden = known & ~(evidence.known.toarray().T > 0)
    more = {} if extra is None else {"extra": extra}
    scores = ranker.scores(evidence, np.arange(evidence.num_diseases), **more)
    return np.array(
        [1 + (scores[s][~known[s]] > scores[s, d]).sum() for s, d in np.argwhere(hidden)]
    )


@pytest.fixture(scope="module")
def split() -> tuple[PathEvidence, PathEvidence]:
    """The planted graph without all pairs of six diseases and single pairs of others; and whole."""
    graph = graph_of(planted_facts())
    whole = PathEvidence(graph, use_names=False)
    pairs = np.argwhere(whole.known.toarray() > 0)
    hidden = (pairs[:, 1] < 6) | (np.arange(len(pairs)) % 9 == 0)
    return PathEvidence(graph, hidden=pairs[hidden], use_names=False), whole


@pytest.mark.parametrize("fitted", [fit, fit_boosted])
def test_a_planted_mechanism_is_found(
    split: tuple[PathEvidence, PathEvidence],
    fitted: Callable[[PathEvidence], PathRanker | BoostedPaths],
) -> None:
    evidence, whole = split
    ranks = ranks_of_hidden(evidence, fitted(evidence), whole)
    assert np.mean(1 / ranks) > 0.8  # by chance it is 0.08


def test_extra_features_are_used(split: tuple[PathEvidence, PathEvidence]) -> None:
    evidence, whole = split
    truth: Floats = whole.known.toarray().T.astype(np.float32)

    def extra(diseases: np.ndarray) -> Floats:
        return np.expand_dims(truth[diseases], 1)

    ranks = ranks_of_hidden(evidence, fit(evidence, extra), whole, extra)
    assert np.mean(1 / ranks) > 0.95


def test_the_same_seed_gives_the_same_ranker(split: tuple[PathEvidence, PathEvidence]) -> None:
    evidence, _ = split
    state = torch.get_rng_state()
    asked = np.arange(5)
    first, second = (
        fit_ranker(evidence, num_networks=1, num_epochs=1, seed=3).scores(evidence, asked)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())  # the process's numbers were left alone


def test_scores_do_not_depend_on_what_is_asked_with_them(
    split: tuple[PathEvidence, PathEvidence],
) -> None:
    evidence, _ = split
    ranker = fit_ranker(evidence, num_networks=1, num_epochs=1)
    together = ranker.scores(evidence, np.arange(30))
    alone = ranker.scores(evidence, np.array([23]))
    np.testing.assert_allclose(together[23], alone[0], rtol=1e-4, atol=1e-5)
