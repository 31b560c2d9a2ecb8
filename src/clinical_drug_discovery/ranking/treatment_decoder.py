"""A decoder that predicts treatments from the embeddings of a trained GNN.

The GNN is trained on all edge types, so treatments are a small part of the training, and the GNN
never has to predict a treatment that is hidden from it. Here the vector of a drug is a linear map
of the embedding plus a learned offset. `Propagation` carries these vectors to diseases. Embeddings
of diseases are not used, because the GNN has memorized the treatments. The score of a pair is
learned factor * (vector of the drug) @ (vector of the disease, scaled to length 1). Each training
step hides all treatments of some diseases and some treatments of other diseases. It predicts the
hidden treatments by a softmax over all drugs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph.adjacency import Floats
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..system.log import part
from ..training.optimizer import Adam
from ..training.schedule import cosine_decay
from .bilinear_score import BilinearScore, mean_score
from .propagation import Mask, Propagation

DIM, NUM_STEPS = 64, 4  #: channels of the propagated vectors; number of propagation steps
MAX_DISEASES = 512  #: limit of diseases in a training step, for graphs with very many of them
# Fraction of diseases with all pairs hidden in a step; fraction of diseases with some pairs hidden;
# fraction of pairs that are hidden in the second group.
_HIDE_ALL, _HIDE_PART, _PART = 0.15, 0.3, 0.3
_DROPOUT = 0.3  # fraction of the channels of diseases that a training step drops
_FIRST_STD, _FIRST_WEIGHT = 0.1, 1 / 3  # initial standard deviation of the map; edge weights
_FACTOR = 5.0  # constant that multiplies the learned factor, which starts at 1
_DISCOUNT = 0.3  # the loss of a disease with k hidden drugs has the weight k^(1 - 0.3)
_LEARNING_RATE, _WARM_UP_STEPS = 0.02, 10
_ROUNDS = 10  # known pairs are scored in ten rounds; each round hides a different tenth


class TreatmentDecoder(nn.Module):
    """The weights of the decoder."""

    def __init__(
        self, propagation: Propagation, embeddings: Tensor, dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        steps, edge_types = propagation.num_steps, propagation.num_edge_types
        centred = embeddings.float() - embeddings.float().mean(dim=0)
        self.embeddings = nn.Buffer(functional.normalize(centred, dim=1))
        first = torch.randn(embeddings.shape[1], dim, generator=generator)
        self.map = nn.Parameter(first * _FIRST_STD)
        self.offset = nn.Parameter(torch.zeros(len(embeddings), dim))
        self.edge_weights = nn.Parameter(torch.full((steps, edge_types, dim), _FIRST_WEIGHT))
        self.self_weights = nn.Parameter(torch.ones(steps, len(propagation.node_types), dim))
        self.factor = nn.Parameter(torch.ones(()))

    def drugs(self) -> Tensor:
        """Return the vectors of drugs, shape (drugs, dim)."""
        return self.embeddings @ self.map + self.offset

    def propagate(self, drugs: Tensor, propagation: Propagation, hidden: Mask | None) -> Tensor:
        """Return the vectors of diseases, shape (diseases, dim); 0 if no path leads to a drug."""
        adjacencies = propagation.adjacencies(hidden)
        return propagation.propagate(drugs, adjacencies, self.edge_weights, self.self_weights)

    def diseases(self, drugs: Tensor, propagation: Propagation, hidden: Mask | None) -> Tensor:
        """Return the result of `propagate`, with each nonzero vector scaled to length 1."""
        return functional.normalize(self.propagate(drugs, propagation, hidden), dim=1)


def fit_treatment_decoder(
    propagation: Propagation,
    embeddings: Tensor,
    *,
    left_out: IntArray,
    dim: int = DIM,
    num_epochs: int = 80,
    seed: int = 0,
    label: str = "treatment decoder",
) -> TreatmentDecoder:
    """Train a decoder on the known pairs of a graph.

    Args:
        propagation: on the graph.
        embeddings: shape (drugs, any), embeddings of drugs by a GNN trained on the graph.
        left_out: diseases, numbered within their type, whose treatments always stay hidden.
        dim: channels of the propagated vectors.
        num_epochs: number of training steps, each over the whole graph.
        seed: seed of all sampling.
        label: name of the decoder in the lines about the progress.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    decoder = TreatmentDecoder(propagation, embeddings, dim, generator)
    optimizer = Adam(decoder.parameters(), _LEARNING_RATE)
    never_seen = np.isin(propagation.disease, left_out)
    with part(f"Fitting the drug ranker: {label}", num_epochs, "epoch") as advance:
        for epoch in range(num_epochs):
            positive = _sample_positives(propagation, never_seen, rng)
            kept = torch.rand(dim, generator=generator) > _DROPOUT
            loss = _loss(
                decoder, propagation, positive, positive | never_seen, kept / (1 - _DROPOUT)
            )
            loss = loss + decoder.offset.square().sum(dim=1).mean()  # keeps the offsets small
            torch.autograd.backward(loss)
            warm_up = min(1.0, (epoch + 1) / _WARM_UP_STEPS)
            optimizer.step(warm_up * cosine_decay(epoch, num_epochs))
            advance()
    return decoder


def _sample_positives(propagation: Propagation, never_seen: Mask, rng: np.random.Generator) -> Mask:
    """Sample the known pairs that a training step hides and predicts, shape (K,)."""
    diseases = np.unique(propagation.disease[~never_seen])
    most = min(1.0, MAX_DISEASES / (_HIDE_ALL + _HIDE_PART) / max(len(diseases), 1))
    lot = np.ones(propagation.num_diseases)
    lot[diseases] = rng.random(len(diseases)) / most
    of_pair = lot[propagation.disease]
    in_part = (of_pair >= _HIDE_ALL) & (of_pair < _HIDE_ALL + _HIDE_PART)
    positive = (of_pair < _HIDE_ALL) | (in_part & (rng.random(len(of_pair)) < _PART))
    positive &= ~never_seen
    if not positive.any():  # can happen with very few pairs
        positive[rng.choice(np.flatnonzero(~never_seen))] = True
    return positive


def _loss(
    decoder: TreatmentDecoder, propagation: Propagation, positive: Mask, hidden: Mask, kept: Tensor
) -> Tensor:
    """Return the weighted loss: each positive competes with the drugs that are not known."""
    asked, row, count = np.unique(
        propagation.disease[positive], return_inverse=True, return_counts=True
    )
    about = np.flatnonzero(np.isin(propagation.disease, asked))
    known = torch.zeros(len(asked), propagation.num_drugs, dtype=torch.bool)
    known[np.searchsorted(asked, propagation.disease[about]), propagation.drug[about]] = True
    weight = torch.from_numpy(count[row] ** -_DISCOUNT).float()
    drugs = decoder.drugs()
    vectors = decoder.propagate(drugs, propagation, hidden)[torch.from_numpy(asked)]
    scores = functional.normalize(vectors * kept, dim=1) * (_FACTOR * decoder.factor) @ drugs.T
    others = scores.masked_fill(known, -torch.inf).logsumexp(dim=1)[row]
    positives = scores[row, propagation.drug[positive]]
    losses = torch.logaddexp(others, positives) - positives
    return (losses * (weight / weight.sum())).sum()


@torch.no_grad()
def decode(
    decoder: TreatmentDecoder, propagation: Propagation, *, unseen: IntArray | None = None
) -> BilinearScore:
    """Return the scores of all pairs; each known pair is scored as if the graph did not contain it.

    Args:
        decoder: after training.
        propagation: on the graph.
        unseen: diseases to score as if they had no known drugs, numbered within their type.
    """
    drugs = decoder.drugs()
    disease, drug = torch.from_numpy(propagation.disease), torch.from_numpy(propagation.drug)
    never_seen = np.isin(propagation.disease, [] if unseen is None else unseen)
    factor = _FACTOR * decoder.factor
    known_score = torch.empty(len(propagation.drug))
    # Pairs of one disease are consecutive, so they are hidden in different rounds.
    number = np.arange(len(propagation.drug)) % _ROUNDS
    for n in range(_ROUNDS):
        diseases = decoder.diseases(drugs, propagation, never_seen | (number == n)) * factor
        at = torch.from_numpy(np.flatnonzero(number == n))
        known_score[at] = (diseases[disease[at]] * drugs[drug[at]]).sum(dim=1)
    diseases = decoder.diseases(drugs, propagation, never_seen) * factor
    return BilinearScore(drugs, diseases, disease, drug, known_score)


@dataclass(frozen=True)
class FittedDecoders:
    """The result of `fit_decoders`. Known pairs are scored as in `decode`."""

    score: BilinearScore  #: mean score of all decoders
    with_known: list[Floats]  #: log-softmax of each decoder for its `asked` diseases, shape (n, D)
    without_known: list[Floats]  #: like `with_known`, as if these diseases had no known drugs


def fit_decoders(
    graph: KnowledgeGraph,
    embeddings: Tensor,
    *,
    left_out: Sequence[IntArray],
    asked: Sequence[IntArray],
    seed: int,
) -> FittedDecoders:
    """Train one decoder for each set of diseases to leave out.

    Args:
        graph: on the CPU.
        embeddings: shape (drugs, any), embeddings of drugs by a GNN trained on the graph.
        left_out: diseases that each decoder is not trained on, numbered within their type.
        asked: diseases that each decoder scores, numbered within their type.
        seed: seed of all sampling.

    Raises:
        InputError: the graph lacks known pairs.
    """
    propagation = Propagation(graph, NUM_STEPS)
    scores, with_known, without_known = [], [], []
    for n, (never_seen, diseases) in enumerate(zip(left_out, asked, strict=True)):
        decoder = fit_treatment_decoder(
            propagation,
            embeddings,
            left_out=never_seen,
            seed=seed * 1000 + n,
            label=f"treatment decoder {n + 1} of {len(left_out)}",
        )
        scores.append(decode(decoder, propagation))
        with_known.append(scores[-1].log_softmax(diseases))
        without_known.append(decode(decoder, propagation, unseen=diseases).log_softmax(diseases))
    return FittedDecoders(mean_score(scores), with_known, without_known)
