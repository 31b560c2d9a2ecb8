"""The path ranker finds a planted mechanism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import graph_of, planted_facts

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.ranking import listwise_examples
from clinical_drug_discovery.ranking.listwise_examples import ListwiseExample, fit_workers
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import _loss, _mean_and_std, fit_path_ranker
from clinical_drug_discovery.ranking.path_scores import Form, HiddenPairs, PathRanker
from clinical_drug_discovery.system.machine import one_thread


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
        features, fit_path_ranker(features, num_mlps=1, num_epochs=12, seed=1)[0], whole
    )
    assert np.mean(1 / ranks) > 0.8  # by chance it is 0.08


@pytest.mark.parametrize("seed", [3, 2**63 - 1])
def test_the_same_seed_gives_the_same_ranker(
    split: tuple[MetapathFeatures, MetapathFeatures], seed: int
) -> None:
    features, _ = split
    state = torch.get_rng_state()
    asked = np.arange(5)
    first, second = (
        fit_path_ranker(features, num_mlps=1, num_epochs=1, seed=seed)[0].scores(features, asked)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())  # the process's numbers were left alone


@one_thread(True)  # as in the fit of the drug ranker
def test_the_ranker_does_not_depend_on_the_number_of_workers(
    split: tuple[MetapathFeatures, MetapathFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, _ = split
    monkeypatch.setattr(listwise_examples, "CHUNK", 4)
    monkeypatch.setattr(listwise_examples, "_SIMILAR_CHUNK", 4)
    found = []
    for workers in (1, 2):
        monkeypatch.setattr(listwise_examples, "most_threads", lambda n=workers: n)
        assert fit_workers() == workers
        ranker, hidden = fit_path_ranker(features, num_epochs=1)
        arrays = [array for mlp in ranker.mlps for array in mlp.values()]
        forms = [Form(), Form(use_known=False)]
        asked = np.arange(features.num_diseases)
        arrays += ranker.scores_by_mlp(features, asked, forms, workers=workers)
        found.append([*arrays, ranker.base_scale, *ranker.left_out, *hidden])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_scores_do_not_depend_on_what_is_asked_with_them(
    split: tuple[MetapathFeatures, MetapathFeatures],
) -> None:
    features, _ = split
    ranker, _ = fit_path_ranker(features, num_mlps=1, num_epochs=1)
    together = ranker.scores(features, np.arange(30))
    alone = ranker.scores(features, np.array([23]))
    np.testing.assert_allclose(together[23], alone[0], rtol=1e-4, atol=1e-5)


@one_thread(True)  # as in the fit of the drug ranker
def test_diseases_and_pairs_are_left_out(split: tuple[MetapathFeatures, MetapathFeatures]) -> None:
    features, _ = split
    ranker, hidden = fit_path_ranker(features, num_epochs=1)
    treated, (one, other) = set(features.treated.tolist()), ranker.left_out
    assert len(one) == pytest.approx(len(treated) / 4, abs=1)
    assert not set(one.tolist()) & set(other.tolist())
    assert set(one.tolist()) <= treated
    assert set(hidden.diseases.tolist()) == {s for s in treated if features.num_known(s) > 1}
    for disease, drugs in hidden_drugs(hidden).items():
        assert drugs < set(features.known_drugs(disease).tolist())  # one stays


@pytest.mark.parametrize("seed", [0, 1])  # with all known drugs hidden, and with the others shown
def test_hidden_drugs_are_negatives(rng: np.random.Generator, seed: int) -> None:
    known, candidates, similarities = 4, 9, 2
    example = ListwiseExample(
        disease=0,
        num_positives=known,
        num_hard=5,
        log_probability=np.zeros(candidates, np.float32),
        base=rng.random((candidates, 3)).astype(np.float16),
        popularity=rng.random((candidates, 2)).astype(np.float16),
        anchor=np.zeros(candidates, np.float32),
        co_indicated=rng.random((similarities, known, candidates)).astype(np.float16),
    )
    hidden = np.array([False, True, False, False])
    scores = torch.zeros(candidates, requires_grad=True)
    seen = []

    def mlp(features: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append(features)
        return scores.expand(len(features), -1)

    scale = np.ones(2 * similarities + 1, np.float32)
    loss = _loss(mlp, (example, hidden), scale, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]  # only called
    (gradient,) = torch.autograd.grad(loss, scores)
    assert (gradient[[0, 2, 3]] < 0).all()
    assert (gradient[[1, 4, 5, 6, 7, 8]] > 0).all()
    if seen[0].shape[2] > example.base.shape[1]:  # else all known drugs are hidden
        count = float(seen[0][0, 0, -1])  # of the known drugs that the features show
        assert count == pytest.approx(np.arcsinh(np.log(1 + 2)))


def test_moments_are_those_of_all_blocks_together(rng: np.random.Generator) -> None:
    blocks = [(3 + rng.normal(size=(n, 4))).astype(np.float16) for n in (1, 7, 30)]
    blocks = [np.concatenate([block, np.full((len(block), 1), 2)], axis=1) for block in blocks]
    together = np.concatenate(blocks).astype(np.float64)
    mean, std = _mean_and_std(blocks)
    np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, together.std(axis=0), atol=1e-6)


def hidden_drugs(hidden: HiddenPairs) -> dict[int, set[int]]:
    """The hidden drugs of each disease that has some."""
    found: dict[int, set[int]] = {}
    for row, drug in hidden.pairs.tolist():
        found.setdefault(int(hidden.diseases[row]), set()).add(drug)
    return found
