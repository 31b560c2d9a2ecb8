"""The path ranker finds a planted mechanism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import graph_of, planted_facts

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import PathRanker, fit_path_ranker


def ranks_of_hidden(
    features: MetapathFeatures, ranker: PathRanker, everything: MetapathFeatures
) -> Floats:
    """The ranks of pairs that `features` lacks, among the drugs that are not known."""
    known = everything.known.toarray().T > 0
    hidden = known & ~(features.known.toarray().T > 0)
    scores = ranker.scores(features, np.arange(features.num_diseases))
    return np.array(
        [1 + (scores[s][~known[s]] > scores[s, d]).sum() for s, d in np.argwhere(hidden)]
    )


@pytest.fixture(scope="module")
def split() -> tuple[MetapathFeatures, MetapathFeatures]:
    """The planted graph without all pairs of six diseases and single pairs of others; and whole."""
    graph = graph_of(planted_facts())
    whole = MetapathFeatures(graph)
    pairs = np.argwhere(whole.known.toarray() > 0)
    hidden = (pairs[:, 1] < 6) | (np.arange(len(pairs)) % 9 == 0)
    return MetapathFeatures(graph, hidden=pairs[hidden]), whole


def test_a_planted_mechanism_is_found(split: tuple[MetapathFeatures, MetapathFeatures]) -> None:
    features, whole = split
    ranks = ranks_of_hidden(
        features, fit_path_ranker(features, num_mlps=1, num_epochs=12, seed=1), whole
    )
    assert np.mean(1 / ranks) > 0.8  # by chance it is 0.08


def test_the_same_seed_gives_the_same_ranker(
    split: tuple[MetapathFeatures, MetapathFeatures],
) -> None:
    features, _ = split
    state = torch.get_rng_state()
    asked = np.arange(5)
    first, second = (
        fit_path_ranker(features, num_mlps=1, num_epochs=1, seed=3).scores(features, asked)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())  # the process's numbers were left alone


def test_scores_do_not_depend_on_what_is_asked_with_them(
    split: tuple[MetapathFeatures, MetapathFeatures],
) -> None:
    features, _ = split
    ranker = fit_path_ranker(features, num_mlps=1, num_epochs=1)
    together = ranker.scores(features, np.arange(30))
    alone = ranker.scores(features, np.array([23]))
    np.testing.assert_allclose(together[23], alone[0], rtol=1e-4, atol=1e-5)
