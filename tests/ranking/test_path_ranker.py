"""The path ranker finds a planted mechanism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import graph_of, planted_facts

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.ranking.listwise_batches import batch_of
from clinical_drug_discovery.ranking.listwise_examples import ListwiseExample
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.path_ranker import _loss, fit_path_ranker
from clinical_drug_discovery.ranking.path_scores import HiddenPairs, PathRanker
from clinical_drug_discovery.ranking.score_mlp import ScoreMlp
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


def test_the_same_seed_gives_the_same_ranker(
    split: tuple[MetapathFeatures, MetapathFeatures],
) -> None:
    features, _ = split
    state = torch.get_rng_state()
    asked = np.arange(5)
    first, second = (
        fit_path_ranker(features, num_mlps=1, num_epochs=1, seed=3)[0].scores(features, asked)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())  # the process's numbers were left alone


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


def random_example(rng: np.random.Generator, known: int, negatives: int) -> ListwiseExample:
    number = known + negatives
    return ListwiseExample(
        disease=0,
        num_positives=known,
        num_hard=negatives,
        log_probability=np.zeros(number, np.float32),
        base=rng.random((number, 3)).astype(np.float16),
        popularity=rng.random((number, 2)).astype(np.float16),
        anchor=np.zeros(number, np.float32),
        co_indicated=rng.random((2, known, number)).astype(np.float16),
    )


@pytest.mark.parametrize("shows", [True, False])
def test_hidden_drugs_are_negatives(rng: np.random.Generator, shows: bool) -> None:
    hidden = np.array([False, True, False, False])
    examples = [(random_example(rng, 4, number), hidden) for number in (5, 3)]
    scale, generator = np.ones(5, np.float32), torch.Generator().manual_seed(0)
    batch = batch_of(examples, scale if shows else None, 0.0, generator)
    scores = torch.zeros(batch.is_known.shape, requires_grad=True)

    def mlp(*_: object) -> torch.Tensor:
        return scores

    loss = _loss(mlp, batch, generator)  # type: ignore[arg-type]  # only called
    (gradient,) = torch.autograd.grad(loss, scores)
    there = batch.log_probability.isfinite()
    assert there.sum(dim=1).tolist() == np.repeat([9, 7], batch.rankings).tolist()
    assert (gradient[~there] == 0).all()
    known = torch.tensor([True, False, True, True])
    asked = gradient[:, :4] < 0
    assert (gradient[:, :4][:, ~known] > 0).all()
    assert (gradient[:, 4:][there[:, 4:]] > 0).all()
    if shows:
        assert batch.rankings == (3, 3)
        assert (asked.sum(dim=1) == 1).all()  # the other known drugs do not count
        assert (asked.view(2, 3, 4).sum(dim=1) == known).all()  # each is asked for once
        assert batch.co_indicated is not None
        counts = batch.co_indicated[:, -1][there]  # of the known drugs that the features show
        np.testing.assert_allclose(counts, np.arcsinh(np.log(1 + 2)), rtol=1e-5)
    else:
        assert batch.rankings == (1, 1)
        assert (asked == known).all()
        assert batch.co_indicated is None


def test_each_epoch_uses_other_negatives(rng: np.random.Generator) -> None:
    example, scale = random_example(rng, 2, 1_200), np.ones(5, np.float32)
    seen = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        batch = batch_of([(example, np.zeros(2, bool))], scale, 0.3, generator)
        base = batch.base[0].numpy()
        assert len(base) == 2 + 600
        np.testing.assert_array_equal(base[:2], example.base[:2])  # all known drugs
        np.testing.assert_allclose(batch.log_probability[0, 2:], -np.log(2))
        first = int(np.flatnonzero((example.base[2:4] == base[2]).all(axis=1))[0])
        np.testing.assert_array_equal(base[2:], example.base[2 + first :: 2])
        seen.append(first)
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_are_those_of_plain_layers(
    rng: np.random.Generator, dropout: bool, shows: bool
) -> None:
    hidden, size, rankings = 6, 5, (2, 3, 1, 1)
    mlp = ScoreMlp(torch.rand(size), torch.rand(size) + 0.2, 2, hidden).double()
    mlp.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.add_(torch.from_numpy(rng.normal(0, 0.3, parameter.shape)))
    co_indicated = torch.from_numpy(rng.normal(size=(7, 2, 7))) if shows else None
    base, anchor, popularity = (
        torch.from_numpy(rng.normal(size=shape)) for shape in ((4, 7, 3), (4, 7), (4, 7, 2))
    )
    tensors = base, rankings, co_indicated, anchor, popularity
    weights = list(mlp.parameters())
    generator = torch.Generator().manual_seed(1) if dropout else None
    got = mlp(*tensors, generator)
    wanted = plain_scores(mlp, *tensors, dropout=dropout)
    factors = torch.from_numpy(rng.normal(size=got.shape))
    torch.testing.assert_close(got, wanted)
    ours, plain = (torch.autograd.grad((x * factors).sum(), weights) for x in (got, wanted))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def plain_scores(
    mlp: ScoreMlp,
    base: torch.Tensor,
    rankings: tuple[int, ...],
    co_indicated: torch.Tensor | None,
    anchor: torch.Tensor,
    popularity: torch.Tensor,
    *,
    dropout: bool,
) -> torch.Tensor:
    """The scores, with masks on the inputs of each layer."""
    number, generator = sum(rankings), torch.Generator().manual_seed(1)
    used, first, second = (
        torch.rand(number, 1, width, generator=generator) > share if dropout else torch.tensor(1.0)
        for width, share in ((len(mlp.mean), 0.1), (6, 0.2), (3, 0.2))
    )
    scale = 0.8 if dropout else 1.0
    example = torch.repeat_interleave(torch.arange(4), torch.tensor(rankings))
    also = torch.zeros(number, 2, 7) if co_indicated is None else co_indicated
    x = (torch.cat([base[example], also.mT], dim=2) - mlp.mean) / mlp.std * used
    hidden = torch.nn.functional.gelu(mlp.first(x)) * first / scale
    hidden = torch.nn.functional.gelu(mlp.second(hidden)) * second / scale
    scores: torch.Tensor = (mlp.linear(x) + mlp.last(hidden))[..., 0]
    return scores + mlp.anchor * anchor[example] + mlp.popular(popularity)[example]


def hidden_drugs(hidden: HiddenPairs) -> dict[int, set[int]]:
    """The hidden drugs of each disease that has some."""
    found: dict[int, set[int]] = {}
    for row, drug in hidden.pairs.tolist():
        found.setdefault(int(hidden.diseases[row]), set()).add(drug)
    return found
