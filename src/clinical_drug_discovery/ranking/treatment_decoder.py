"""A decoder that asks a trained model's embeddings which drugs treat a disease.

Link prediction over all edge types hardly ever sees a treatment, and never one that is hidden from
the model. Here drugs start from a linear map of their embeddings and an offset that is learned;
`propagation` carries them to the diseases, which have nothing of their own: their embeddings know
the very pairs that are asked for. A score is the product of the drug's vector and the disease's of
length 1, times a factor that is learned. Each step of training hides treatments, all of some
diseases and a part of others', and asks for them by a softmax over all drugs.

Decoders beside the networks of a path ranker, each without what its network has left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.ranking.bilinear_score import EmbeddingScore, KnownPairs, mean_score
from clinical_drug_discovery.ranking.propagation import Mask, Propagation
from clinical_drug_discovery.training.optimizer import Adam

DIM = 64  #: of the vectors that are carried
_HIDE_ALL, _HIDE_SOME, _PART = 0.15, 0.3, 0.3  # shares of diseases, and of the latter's pairs
MOST_ASKED = 512  #: diseases a step, of graphs with very many that are treated
_DROPPED = 0.3  # share of the numbers of a disease's vector
_FIRST_STD, _FIRST_WEIGHT, _FACTOR = 0.1, 1 / 3, 5.0
_BELOW = 0.3  # a disease with k hidden drugs weighs k^(1 - 0.3), as in `ranker`
_WARM_STEPS = 10
_ROUNDS = 10  # in which known pairs are hidden, a tenth at a time, to be scored


class TreatmentDecoder(nn.Module):
    """The weights; see the module."""

    def __init__(
        self, propagation: Propagation, embeddings: Tensor, dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = propagation.num_steps, propagation.num_links, len(propagation.node_types)
        centred = embeddings.float() - embeddings.float().mean(dim=0)
        self.embeddings = nn.Buffer(functional.normalize(centred, dim=1))
        first = torch.randn(embeddings.shape[1], dim, generator=generator)
        self.map = nn.Parameter(first * _FIRST_STD)
        self.offset = nn.Parameter(torch.zeros(len(embeddings), dim))
        self.weights = nn.Parameter(torch.full((sizes[0], sizes[1], dim), _FIRST_WEIGHT))
        self.own = nn.Parameter(torch.ones(sizes[0], sizes[2], dim))
        self.factor = nn.Parameter(torch.ones(()))

    def drugs(self) -> Tensor:
        """Shape (drugs, dim)."""
        return self.embeddings @ self.map + self.offset

    def diseases(self, drugs: Tensor, propagation: Propagation, hidden: Mask | None) -> Tensor:
        """Shape (diseases, dim), each of length 1, or 0 where no drug is near."""
        links = propagation.links(hidden)
        return functional.normalize(propagation.carry(drugs, links, self.weights, self.own), dim=1)


@dataclass(frozen=True)
class _Question:
    hidden: Mask  # (K,), of the known pairs
    asked: IntArray  # (A,), the diseases of hidden pairs
    row: Tensor  # (H,), of each hidden pair its disease's place in `asked`
    goal: Tensor  # (H,), its drug
    known: Tensor  # (A, drugs), all known pairs, which are no wrong answers
    weight: Tensor  # (H,)


def fit_treatment_decoder(
    propagation: Propagation,
    embeddings: Tensor,
    *,
    left_out: IntArray,
    dim: int = DIM,
    num_epochs: int = 80,
    learning_rate: float = 0.02,
    decay: float = 1.0,
    seed: int = 0,
) -> TreatmentDecoder:
    """Fit a decoder on the known pairs of a graph.

    Args:
        propagation: of the graph.
        embeddings: shape (drugs, any), of a model of the graph.
        left_out: diseases, numbered within their type, whose treatments stay hidden throughout.
        dim: of the vectors that are carried.
        num_epochs: steps of training, each over the whole graph.
        learning_rate: highest of the schedule.
        decay: of the offsets: this times their mean squared length is added to the loss.
        seed: of everything that is drawn.

    Returns:
        The decoder.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    decoder = TreatmentDecoder(propagation, embeddings, dim, generator)
    optimizer = Adam(decoder.parameters(), learning_rate)
    never = np.isin(propagation.disease, left_out)
    for epoch in range(num_epochs):
        question = _draw(propagation, never, rng)
        kept = torch.rand(dim, generator=generator) > _DROPPED
        loss = _loss(decoder, propagation, question, kept / (1 - _DROPPED))
        loss = loss + decay * decoder.offset.square().sum(dim=1).mean()
        torch.autograd.backward(loss)
        optimizer.step(
            min(1.0, (epoch + 1) / _WARM_STEPS) * (1 + math.cos(math.pi * epoch / num_epochs)) / 2
        )
    return decoder


def _draw(propagation: Propagation, never: Mask, rng: np.random.Generator) -> _Question:
    """Hide some treatments, and those that are never seen, and ask for the former."""
    diseases = np.unique(propagation.disease[~never])
    most = min(1.0, MOST_ASKED / (_HIDE_ALL + _HIDE_SOME) / max(len(diseases), 1))
    lot = np.ones(propagation.num_diseases)
    lot[diseases] = rng.random(len(diseases)) / most
    of_pair = lot[propagation.disease]
    some = (of_pair >= _HIDE_ALL) & (of_pair < _HIDE_ALL + _HIDE_SOME)
    goals = (of_pair < _HIDE_ALL) | (some & (rng.random(len(of_pair)) < _PART))
    goals &= ~never
    if not goals.any():  # a handful of pairs
        goals[rng.choice(np.flatnonzero(~never))] = True
    asked, row, count = np.unique(
        propagation.disease[goals], return_inverse=True, return_counts=True
    )
    about = np.flatnonzero(np.isin(propagation.disease, asked))
    known = torch.zeros(len(asked), propagation.num_drugs, dtype=torch.bool)
    known[np.searchsorted(asked, propagation.disease[about]), propagation.drug[about]] = True
    weight = torch.from_numpy(count[row] ** -_BELOW).float()
    return _Question(
        goals | never,
        asked,
        torch.from_numpy(row),
        torch.from_numpy(propagation.drug[goals]),
        known,
        weight / weight.sum(),
    )


def _loss(
    decoder: TreatmentDecoder, propagation: Propagation, question: _Question, kept: Tensor
) -> Tensor:
    """Weighted listwise loss of the hidden pairs, each among the drugs that are not known."""
    drugs = decoder.drugs()
    carried = propagation.carry(
        drugs, propagation.links(question.hidden), decoder.weights, decoder.own
    )
    asked = carried[torch.from_numpy(question.asked)] * kept
    scores = functional.normalize(asked, dim=1) * (_FACTOR * decoder.factor) @ drugs.T
    others = scores.masked_fill(question.known, -torch.inf).logsumexp(dim=1)[question.row]
    goals = scores[question.row, question.goal]
    return ((torch.logaddexp(others, goals) - goals) * question.weight).sum()


@torch.no_grad()
def decode(
    decoder: TreatmentDecoder, propagation: Propagation, *, unseen: IntArray | None = None
) -> EmbeddingScore:
    """Score all pairs, known ones as if the graph did not say so.

    Args:
        decoder: fitted.
        propagation: of the graph.
        unseen: diseases, numbered within their type, to be scored as if nothing treated them; none
            if None.
    """
    drugs = decoder.drugs()
    disease, drug = torch.from_numpy(propagation.disease), torch.from_numpy(propagation.drug)
    none = np.zeros(len(propagation.drug), bool)
    never = none if unseen is None else np.isin(propagation.disease, unseen)
    factor = _FACTOR * decoder.factor
    logits = torch.empty(len(propagation.drug))
    # Neighbours in the order of pairs treat the same disease: they are hidden in turn.
    turn = np.arange(len(propagation.drug)) % _ROUNDS
    for n in range(_ROUNDS):
        diseases = decoder.diseases(drugs, propagation, never | (turn == n)) * factor
        at = torch.from_numpy(np.flatnonzero(turn == n))
        logits[at] = (diseases[disease[at]] * drugs[drug[at]]).sum(dim=1)
    diseases = decoder.diseases(drugs, propagation, never) * factor
    return EmbeddingScore(drugs, diseases, KnownPairs(disease, drug, logits))


NUM_STEPS = 4  #: from a drug to a disease


@dataclass(frozen=True)
class FittedDecoders:
    """What several decoders say together, and each of the diseases that it was asked about."""

    score: EmbeddingScore
    with_known: list[Floats]  #: log-chances (n, D), of known pairs with a tenth of all hidden
    without_known: list[Floats]  #: as if nothing were known to treat these diseases


def fit_decoders(
    graph: KnowledgeGraph,
    embeddings: Tensor,
    *,
    left_out: Sequence[IntArray],
    asked: Sequence[IntArray],
    seed: int,
) -> FittedDecoders:
    """Fit one decoder for each set of diseases to leave out.

    Args:
        graph: on the CPU.
        embeddings: shape (drugs, any), of a model of the graph.
        left_out: for each decoder diseases that it learns nothing from, numbered within their type.
        asked: for each decoder the diseases to ask it about.
        seed: of everything that is drawn.

    Raises:
        InputError: the graph has no known pairs.
    """
    propagation = Propagation(graph, NUM_STEPS)
    scores: list[EmbeddingScore] = []
    with_known, without_known = [], []
    for n, (never, diseases) in enumerate(zip(left_out, asked, strict=True)):
        decoder = fit_treatment_decoder(
            propagation, embeddings, left_out=never, seed=seed * 1000 + n
        )
        scores.append(decode(decoder, propagation))
        with_known.append(scores[-1].log_chances(diseases))
        unseen = decode(decoder, propagation, unseen=diseases)
        without_known.append(unseen.log_chances(diseases))
    return FittedDecoders(mean_score(scores), with_known, without_known)
