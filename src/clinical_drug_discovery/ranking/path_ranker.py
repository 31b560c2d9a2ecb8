"""A ranker of drugs for a disease, trained on metapath features.

score = anchor weight * log(random walks) + MLP(features of metapaths) + popularity. The random
walks lead from the diseases that the drug treats to the asked one. They are the best single
feature, so the training starts from them. The popularity is a small network over features of the
drug alone, such as the number of diseases that it treats; it can be left out of a ranking.

Small multilayer perceptrons (MLPs) are trained with a listwise loss: the softmax for a known pair
runs over all drugs except the other known drugs of the disease. The training shows each disease in
two ways: with no known drug, and with all known drugs but one. One ranker thus serves both diseases
with known drugs and diseases without. `path_scores` computes the scores of the trained MLPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..graph.adjacency import Floats
from ..system.log import part
from ..system.machine import trim_heap
from ..system.processes import end_if_unwanted, in_order
from ..training.optimizer import Adam
from .drug_similarity import co_indicated_features_without
from .listwise_examples import ListwiseExample, feature_scales, fit_workers, sample_examples, squash
from .metapath_features import MetapathFeatures
from .path_scores import HIDDEN_SHARE, HiddenPairs, PathRanker
from .score_mlp import ScoreMlp, weights_of

_HIDDEN, _LEARNING_RATE = 64, 3e-3  # width of the first hidden layer; highest learning rate
_BATCH = 4  # examples per training step
_MIN_STEPS = 120  # on a small graph, more epochs give this number of training steps
_MAX_POSITIVES = 4  # limit of known drugs to predict per disease and epoch, each hidden in turn
_DISCOUNT = 0.3  # the loss of a disease with k known drugs has the weight k^(1 - 0.3)
_MIN_STD = 0.02  # added to every standard deviation
_WARM_UP, _WEIGHT_DECAY = 0.15, 0.01  # warm-up as a fraction of all steps; weight decay
_SEEDS = 2**64  # number of seeds that torch takes
NUM_FOLDS = 4  #: each MLP leaves a different quarter of the treated diseases out of the training
_Mask = npt.NDArray[np.bool_]
_Learned = tuple[ListwiseExample, _Mask]  # an example, and which of its known drugs are hidden


def fit_path_ranker(
    features: MetapathFeatures, *, num_mlps: int = 2, num_epochs: int = 8, seed: int = 0
) -> tuple[PathRanker, HiddenPairs]:
    """Train a ranker on the known pairs of a graph.

    Args:
        features: of the graph.
        num_mlps: number of MLPs, whose scores are averaged. Each MLP has its own seed, and is not
            trained on a quarter of the treated diseases. A tenth of the pairs is hidden from all
            MLPs. So the scores can be tested on both.
        num_epochs: least number of passes over the treated diseases for each MLP.
        seed: seed of all sampling.

    Returns:
        The ranker, and the pairs that were hidden from all MLPs.
    """
    start = perf_counter()
    with part("Fitting the drug ranker: sampling examples"):
        base_scale, co_indicated_scale = feature_scales(features)
        examples = sample_examples(features, base_scale, seed=seed)
    trim_heap()  # of temporary arrays, 0.1 GiB on a graph of PrimeKG's size
    sampled = perf_counter()
    mean, std = _moments(examples, co_indicated_scale)
    rng = np.random.default_rng(seed)
    # The folds are disjoint if there are enough examples. A single example is not left out.
    order = rng.permutation(len(examples))
    folds = np.array_split(order, min(NUM_FOLDS, len(order)))
    left_out = [np.sort(folds[n % len(folds)][: len(order) - 1]) for n in range(num_mlps)]
    hidden = _hide(examples, rng)
    learned = [
        [(examples[i], hidden[i]) for i in np.setdiff1d(order, out).tolist()] for out in left_out
    ]
    epochs = [max(num_epochs, -(-_MIN_STEPS // _num_batches(own))) for own in learned]
    num_steps = sum(e * _num_batches(own) for e, own in zip(epochs, learned, strict=True))

    def train(n: int) -> ScoreMlp:
        generator = torch.Generator().manual_seed((seed * 1000 + n) % _SEEDS)
        mlp = ScoreMlp(mean, std, examples[0].popularity.shape[1], _HIDDEN)
        mlp.initialise(generator)
        _train(mlp, learned[n], co_indicated_scale, epochs[n], generator, advance)
        return mlp

    label = f"Fitting the drug ranker: training {num_mlps} path rankers"
    with part(label, num_steps) as advance:
        mlps = list(in_order(train, range(num_mlps), fit_workers(), first_alone=False))
    seconds = {"features": sampled - start, "mlps": perf_counter() - sampled}
    weights = tuple(weights_of(mlp) for mlp in mlps)
    diseases = np.array([example.disease for example in examples], np.int64)
    several = [i for i, mask in enumerate(hidden) if len(mask) > 1]
    pairs = [
        (row, drug)
        for row, i in enumerate(several)
        for drug in features.known_drugs(int(diseases[i]))[hidden[i]].tolist()
    ]
    asked = tuple(diseases[out] for out in left_out)
    ranker = PathRanker(weights, base_scale, co_indicated_scale, seconds, asked)
    return ranker, HiddenPairs(diseases[several], np.array(pairs, np.int64).reshape(-1, 2))


def _hide(examples: Sequence[ListwiseExample], rng: np.random.Generator) -> list[_Mask]:
    """Draw the pairs to hide: one mask over the k known drugs of each example.

    One drug of each disease stays. Each of the others is drawn with the probability
    h k / (k - 1), so each pair of a disease with two drugs or more has the probability h.
    """
    masks = []
    for k in (example.num_positives for example in examples):
        mask = rng.random(k) < HIDDEN_SHARE * k / max(k - 1, 1)
        mask[rng.integers(k)] = False
        masks.append(mask)
    return masks


def _train(
    mlp: ScoreMlp,
    examples: Sequence[_Learned],
    co_indicated_scale: Floats,
    num_epochs: int,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> None:
    """Train an MLP; `advance` counts the steps."""
    weights = list(mlp.parameters())
    every = nn.utils.parameters_to_vector(weights).detach()
    nn.utils.vector_to_parameters(every, weights)  # the weights are now parts of one vector
    optimizer = Adam([every], _LEARNING_RATE)
    num_steps, step = num_epochs * _num_batches(examples), 0
    for _ in range(num_epochs):
        order = torch.randperm(len(examples), generator=generator)
        for batch in order.split(_BATCH):
            end_if_unwanted()
            losses = [_loss(mlp, examples[i], co_indicated_scale, generator) for i in batch]
            gradients = torch.autograd.grad(torch.stack(losses).sum() / (_BATCH * 3), weights)
            every.grad = torch.cat([gradient.reshape(-1) for gradient in gradients])
            fraction = _one_cycle(step / num_steps)
            # decoupled weight decay: arXiv:1711.05101
            every.mul_(1 - fraction * _LEARNING_RATE * _WEIGHT_DECAY)
            optimizer.step(fraction)
            step += 1
            advance()


def _num_batches(examples: Sequence[_Learned]) -> int:
    """Return the number of training steps of an epoch."""
    return -(-len(examples) // _BATCH)


def _one_cycle(progress: float) -> float:
    """Return learning rate / highest rate: it rises from 1/25 to 1 and then falls to 0."""
    if progress < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2


def _loss(
    mlp: ScoreMlp,
    example_and_hidden: _Learned,
    co_indicated_scale: Floats,
    generator: torch.Generator,
) -> Tensor:
    """Return the weighted loss of one example; a random half of the calls hide all known drugs.

    Hidden drugs are negatives, as are the drugs of which the graph does not say that they treat.
    """
    example, hidden = example_and_hidden
    is_positive = torch.zeros(len(example.base), dtype=torch.bool)
    is_positive[: len(hidden)] = torch.from_numpy(~hidden)
    at = is_positive.nonzero()[:, 0]
    base = torch.from_numpy(example.base).float()
    log_probability = torch.from_numpy(example.log_probability)
    rest = torch.from_numpy(example.anchor), torch.from_numpy(example.popularity).float()
    if torch.rand(1, generator=generator) < 0.5:
        scores = mlp(base[None], *rest, generator)[0] - log_probability
        positives = scores[at]
        others = scores.masked_fill(is_positive, -torch.inf).logsumexp(dim=0)
        losses = torch.logaddexp(others, positives) - positives
    else:
        chosen = torch.randperm(len(at), generator=generator)[:_MAX_POSITIVES]
        similarity = example.co_indicated[:, ~hidden].astype(np.float32)
        also = co_indicated_features_without(similarity, chosen.numpy())
        squashed = torch.from_numpy(squash(also, co_indicated_scale)).transpose(1, 2)
        features = torch.cat([base.expand(len(chosen), -1, -1), squashed], dim=2)
        scores = mlp(features, *rest, generator) - log_probability
        positives = scores.gather(1, at[chosen][:, None])[:, 0]
        # The other known drugs of the disease are not among the negatives.
        others = scores.masked_fill(is_positive, -torch.inf).logsumexp(dim=1)
        losses = torch.logaddexp(others, positives) - positives
    weighted: Tensor = losses.mean() * len(at) ** (1 - _DISCOUNT)
    return weighted


def _moments(examples: list[ListwiseExample], co_indicated_scale: Floats) -> tuple[Tensor, Tensor]:
    """Compute the mean and standard deviation of every feature over a sample of candidates."""
    first = np.zeros(1, np.int64)
    sampled = (example.co_indicated[:, :, ::9].astype(np.float32) for example in examples[::3])
    without = (co_indicated_features_without(rows, first)[0] for rows in sampled)
    parts = (
        _mean_and_std(example.base[::9] for example in examples),
        _mean_and_std(squash(rows, co_indicated_scale).T for rows in without),
    )
    mean, std = (torch.from_numpy(np.concatenate(both)) for both in zip(*parts, strict=True))
    return mean, std + _MIN_STD


def _mean_and_std(blocks: Iterable[npt.NDArray[np.floating]]) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of each column of all blocks, shape (n, F) each.

    The blocks are not held together: on a graph of PrimeKG's size they would take 0.3 GB.
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for block in blocks:
        rows = block.astype(np.float64)
        count += len(rows)
        total = total + rows.sum(axis=0)
        squares = squares + np.square(rows).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return mean.astype(np.float32), std.astype(np.float32)
