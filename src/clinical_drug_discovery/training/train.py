"""The training of both models: one training loop for each model, and one training step for both."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph, node_range_of
from ..models.collapse import check_batch
from ..models.hgt import Hgt
from ..models.initialisation import structural_vectors
from ..models.layers import DistMult
from ..models.sage import GraphSage
from ..system.errors import InputError
from ..system.machine import empty_cache
from ..system.processes import import_for_gradients
from ..system.progress import Run
from .batches import FullBatch, HostBatch, SubgraphBatches, make_batches
from .disease_pairs import PairBatch, PairSampler, compared_by_genes, shared_neighbor_jaccard
from .edge_sampler import NUM_CANDIDATES, EdgeSampler
from .losses import CENTRING, contrastive_loss, link_prediction_loss
from .memory_plan import Plan
from .optimizer import ModelOptimizer
from .settings import SAMPLED, HgtSettings, SageSettings, Settings

History = list[dict[str, Any]]  #: one record per epoch, from `EpochRecord.finish`
# The largest link loss of a model that knows nothing: all scores are equal, and all embeddings of a
# type are equal. Good runs stay below it; when a run diverges, its loss rises far above.
_KNOWS_NOTHING = math.log(1 + NUM_CANDIDATES) + CENTRING


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training."""

    model: GraphSage | Hgt
    decoder: DistMult
    history: History
    pairs: PairSampler | None  #: HGT: similar diseases; None without disease-gene edges


@dataclass(frozen=True)
class ContrastiveTerm:
    """The contrastive term of a step's loss."""

    pairs: PairBatch  #: pairs of nodes of the batch
    weight: float  #: w in (1 - w) link + w contrastive
    temperature: float


def train_sage(
    run: Run, graph: KnowledgeGraph, settings: SageSettings, plan: Plan, seed: int
) -> Trained:
    """Train GraphSAGE.

    Args:
        run: provides the device; receives times and warnings.
        graph: on the CPU.
        settings: already checked.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.

    Raises:
        InputError: the loss diverges, because the learning rate is too high.
    """
    with run.timed("train"):
        generator = torch.Generator().manual_seed(seed)
        model = GraphSage(
            graph.num_nodes, settings.hidden_dim, settings.embedding_dim, settings.num_layers,
            generator,
        )  # fmt: skip
        decoder, optimizer, sampler, batches = _prepare(
            run, graph, settings, plan, model, generator, seed
        )
        history: History = []
        with run.progress.bar("Training", settings.num_epochs, "epoch") as advance:
            for epoch in range(1, settings.num_epochs + 1):
                record = EpochRecord(run, graph, epoch, settings.num_epochs)
                for _ in range(batches.num_steps):
                    batch = batches.next(sampler.sample())
                    record.add(training_step(model, decoder, optimizer, batch, None, record))
                    del batch  # free the memory before the next subgraph is sampled
                    empty_cache(run.device)
                history.append(record.finish())
                run.history.append(history[-1])
                advance(f"loss {history[-1]['loss']:.4f}")
    return Trained(model, decoder, history, None)


def train_hgt(
    run: Run, graph: KnowledgeGraph, settings: HgtSettings, plan: Plan, seed: int
) -> Trained:
    """Train HGT on links and, if the graph has similar diseases, on pairs of similar diseases.

    Args:
        run: provides the device; receives times and warnings.
        graph: on the CPU.
        settings: already checked.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.

    Raises:
        InputError: the loss diverges, because the learning rate is too high.
    """
    with run.timed("train"):
        pairs = _similar_diseases(run, graph, settings, seed)
        weight = _contrastive_weight(run, pairs, settings.contrastive_weight, plan.num_pairs)
        generator = torch.Generator().manual_seed(seed)
        model = Hgt(
            graph.type_offsets, len(graph.edge_types), settings.hidden_dim,
            settings.embedding_dim, settings.num_layers, settings.num_heads, generator,
        )  # fmt: skip
        decoder, optimizer, sampler, batches = _prepare(
            run, graph, settings, plan, model, generator, seed
        )
        history: History = []
        with run.progress.bar("Training", settings.num_epochs, "epoch") as advance:
            for epoch in range(1, settings.num_epochs + 1):
                record = EpochRecord(run, graph, epoch, settings.num_epochs)
                for _ in range(batches.num_steps):
                    facts, term = sampler.sample(), None
                    if pairs is not None and weight:
                        drawn = pairs.sample(plan.num_pairs)
                        facts = facts.including(drawn.nodes)
                        term = ContrastiveTerm(drawn, weight, settings.temperature)
                    batch = batches.next(facts)
                    record.add(training_step(model, decoder, optimizer, batch, term, record))
                    del batch  # free the memory before the next subgraph is sampled
                    empty_cache(run.device)
                history.append(record.finish())
                run.history.append(history[-1])
                advance(f"loss {history[-1]['loss']:.4f}")
    return Trained(model, decoder, history, pairs)


def training_step(
    model: GraphSage | Hgt,
    decoder: DistMult,
    optimizer: ModelOptimizer,
    batch: HostBatch,
    contrastive: ContrastiveTerm | None = None,
    record: EpochRecord | None = None,
) -> dict[str, float]:
    """Take one training step: forward pass, loss, backward pass, update of the weights.

    Args:
        model: on the device.
        decoder: on the device.
        optimizer: updates the weights of the model and the decoder.
        batch: on the CPU; this function moves it to the device.
        contrastive: the contrastive term of the loss; None: train on links only.
        record: record of the epoch, for the collapse check and the peak memory of the device.

    Returns:
        "loss", "link_loss" and, if `contrastive` is given, "contrastive_loss".
    """
    seen = batch.to_device()
    z = model(seen.all_nodes, seen.targets, optimizer.vectors(seen.nodes))
    loss = link_prediction_loss(decoder, z, seen.facts)
    losses = {"link_loss": loss.detach()}
    if contrastive is not None:
        other = contrastive_loss(z, seen.rows, contrastive.pairs, contrastive.temperature)
        losses["contrastive_loss"] = other.detach()
        loss = (1 - contrastive.weight) * loss + contrastive.weight * other
        del other
    if record is not None:
        record.after_forward(z, seen.rows)
    del z  # otherwise z would stay in memory until the end of the backward pass
    loss.backward()
    if record is not None:
        record.after_backward()
    optimizer.step()
    losses = {"loss": loss.detach(), **losses}
    # One transfer for all losses, because each .item() waits for the GPU.
    return dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))


class EpochRecord:
    """Collects the losses, the time and the collapse figures of one epoch."""

    def __init__(self, run: Run, graph: KnowledgeGraph, epoch: int, num_epochs: int) -> None:
        """Start the clock.

        Args:
            run: provides the learning rate; measures the peak memory of the device.
            graph: on the CPU.
            epoch: number of the epoch, from 1.
            num_epochs: number of epochs.
        """
        self._run, self._graph, self._epoch, self._num_epochs = run, graph, epoch, num_epochs
        self._start = time.perf_counter()
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._collapse: dict[str, float | None] = {}

    def after_forward(self, z: Tensor, rows: Tensor) -> None:
        """Run the collapse check `check_batch` on the embeddings of the epoch's first step."""
        if not self._losses:
            self._collapse = check_batch(z, rows, self._graph, self._epoch, self._num_epochs)

    def after_backward(self) -> None:
        """Measure the memory of the device while the gradients exist."""
        self._run.peak.sample()

    def add(self, losses: Mapping[str, float]) -> None:
        """Add the losses of one step.

        Raises:
            InputError: the loss is NaN or infinite.
        """
        if not math.isfinite(losses["loss"]):
            raise InputError(
                f"learning_rate (got {self._run.learning_rate}) is too high: "
                f"the loss of epoch {self._epoch} is {losses['loss']}"
            )
        for name, value in losses.items():
            self._losses[name].append(value)

    def finish(self) -> dict[str, Any]:
        """Return the number, the mean losses, the seconds and the collapse figures of the epoch.

        Raises:
            InputError: the mean link loss is more than twice that of a model that knows nothing.
        """
        means = {name: fmean(values) for name, values in self._losses.items()}
        # With a contrastive weight of 1, the training ignores the link loss.
        is_linked = means["loss"] != means.get("contrastive_loss")
        if is_linked and means["link_loss"] > 2 * _KNOWS_NOTHING:
            raise InputError(
                f"learning_rate (got {self._run.learning_rate}) is too high: the link loss of "
                f"epoch {self._epoch} is {means['link_loss']:.3g}; a model that knows nothing has "
                f"at most {_KNOWS_NOTHING:.2g}"
            )
        seconds = time.perf_counter() - self._start
        return {"epoch": self._epoch, **means, "seconds": seconds, **self._collapse}


def _prepare(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    model: GraphSage | Hgt,
    generator: torch.Generator,
    seed: int,
) -> tuple[DistMult, ModelOptimizer, EdgeSampler, FullBatch | SubgraphBatches]:
    """Move the model to the device, set its input vectors, and make the parts of its loop."""
    import_for_gradients()
    model.to(run.device)
    with torch.no_grad():
        model.node_embedding.copy_(structural_vectors(graph, settings.hidden_dim, generator))
    decoder = DistMult(len(graph.relations), settings.embedding_dim, generator).to(run.device)
    batches = make_batches(graph, plan.backend, settings.training, settings.subgraph_size, seed)
    run.progress.milestone(batches.description)
    optimizer = ModelOptimizer(
        model, decoder, settings.learning_rate, settings.num_epochs * batches.num_steps,
        lazy=settings.training == SAMPLED,
    )  # fmt: skip
    return decoder, optimizer, EdgeSampler(graph, list(plan.positives.values()), seed), batches


def _similar_diseases(
    run: Run, graph: KnowledgeGraph, settings: HgtSettings, seed: int
) -> PairSampler | None:
    """Return the pairs of similar diseases; if the graph lacks the edges, warn and return None."""
    names, threshold = compared_by_genes(graph), settings.similarity_threshold
    jaccard = shared_neighbor_jaccard(graph, **names)
    if jaccard is None:
        run.warn(
            f"the graph lacks facts of disease_gene_relation {names['relation']!r} between "
            f"disease_type {names['node_type']!r} and gene_type {names['neighbor_type']!r}, so HGT "
            "is trained on links alone"
        )
        return None
    first, _ = node_range_of(graph, names["node_type"])
    pairs = PairSampler(jaccard, first, threshold, seed)
    run.progress.milestone(
        f"{pairs.num_similar_pairs:,} pairs of {names['node_type']!r} nodes are similar (their "
        f"{names['neighbor_type']!r} neighbors have a Jaccard index of at least {threshold:g}); "
        f"{pairs.num_held_out_nodes:,} nodes are held out for measurement, and "
        f"{pairs.num_pairs:,} pairs remain for training"
    )
    return pairs


def _contrastive_weight(
    run: Run, pairs: PairSampler | None, weight: float, batch_size: int
) -> float:
    """Return the weight of the contrastive term; if no pair has negatives, warn and return 0."""
    if pairs is None or weight == 0:
        return 0.0
    if not pairs.has_negatives(batch_size):
        run.warn(
            f"the contrastive loss lacks negatives, so HGT is trained on links alone: "
            f"{pairs.num_pairs:,} of {pairs.num_similar_pairs:,} pairs of similar diseases remain "
            f"without the held-out diseases, and a step has {batch_size:,} pairs (edge_sample_size)"
        )
        return 0.0
    return weight
