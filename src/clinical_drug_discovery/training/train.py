"""The training of both models: one training loop for each model, and one training step for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..graph.knowledge_graph import KnowledgeGraph, node_range_of
from ..models.hgt import Hgt
from ..models.initialisation import structural_vectors
from ..models.layers import DistMult
from ..models.sage import GraphSage
from ..system.machine import empty_cache
from ..system.processes import import_for_gradients
from ..system.progress import Run
from .batches import FullBatch, HostBatch, SubgraphBatches, make_batches
from .checkpoint import Checkpoints, Part, keeping
from .disease_pairs import PairBatch, PairSampler, compared_by_genes, shared_neighbor_jaccard
from .edge_sampler import EdgeSampler
from .history import History, TrainingRecord
from .losses import contrastive_loss, link_prediction_loss
from .memory_plan import Plan
from .optimizer import ModelOptimizer
from .settings import SAMPLED, HgtSettings, SageSettings, Settings


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training."""

    model: GraphSage | Hgt
    decoder: DistMult
    history: History
    pairs: PairSampler | None  #: HGT: similar diseases; None without disease-gene edges
    cycles: tuple[int, ...] = ()  #: epochs of each cycle of the learning rate


@dataclass(frozen=True)
class ContrastiveTerm:
    """The contrastive term of a step's loss."""

    pairs: PairBatch  #: pairs of nodes of the batch
    weight: float  #: w in (1 - w) link + w contrastive
    temperature: float


def train_sage(
    run: Run,
    graph: KnowledgeGraph,
    settings: SageSettings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train GraphSAGE.

    Args:
        run: provides the device; receives times and warnings.
        graph: on the CPU.
        settings: already checked.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.
        checkpoints: saves the state now and then, and continues a saved one; None: do neither.

    Raises:
        InputError: the loss diverges, because the learning rate is too high.
    """
    with run.timed("train"):
        generator = torch.Generator().manual_seed(seed)
        model = GraphSage(
            graph.num_nodes, settings.hidden_dim, settings.embedding_dim, settings.num_layers,
            generator,
        )  # fmt: skip
        cycles = (settings.num_epochs,) if checkpoints is None else checkpoints.cycles
        decoder, optimizer, sampler, batches, record = _prepare(
            run, graph, settings, plan, model, generator, seed, cycles
        )
        parts: dict[str, Part] = {
            "model": model, "decoder": decoder, "optimizer": optimizer, "edges": sampler,
            "batches": batches, "record": record,
        }  # fmt: skip
        with keeping(checkpoints, parts, record, run) as (advance, after_step):
            while not record.is_finished:
                batch = batches.next(sampler.sample())
                if record.add(training_step(model, decoder, optimizer, batch, None, record)):
                    advance(record.note)
                del batch  # free the memory before the next subgraph is sampled
                empty_cache(run.device)
                after_step()
    run.seconds["seconds_train"] += record.seconds_before
    return Trained(model, decoder, record.history, None, cycles)


def train_hgt(
    run: Run,
    graph: KnowledgeGraph,
    settings: HgtSettings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train HGT on links and, if the graph has similar diseases, on pairs of similar diseases.

    Args:
        run: provides the device; receives times and warnings.
        graph: on the CPU.
        settings: already checked.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.
        checkpoints: saves the state now and then, and continues a saved one; None: do neither.

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
        cycles = (settings.num_epochs,) if checkpoints is None else checkpoints.cycles
        decoder, optimizer, sampler, batches, record = _prepare(
            run, graph, settings, plan, model, generator, seed, cycles
        )
        parts: dict[str, Part] = {
            "model": model, "decoder": decoder, "optimizer": optimizer, "edges": sampler,
            "batches": batches, "record": record,
        }  # fmt: skip
        if pairs is not None:
            parts["pairs"] = pairs
        with keeping(checkpoints, parts, record, run) as (advance, after_step):
            while not record.is_finished:
                facts, term = sampler.sample(), None
                if pairs is not None and weight:
                    drawn = pairs.sample(plan.num_pairs)
                    facts = facts.including(drawn.nodes)
                    term = ContrastiveTerm(drawn, weight, settings.temperature)
                batch = batches.next(facts)
                if record.add(training_step(model, decoder, optimizer, batch, term, record)):
                    advance(record.note)
                del batch  # free the memory before the next subgraph is sampled
                empty_cache(run.device)
                after_step()
    run.seconds["seconds_train"] += record.seconds_before
    return Trained(model, decoder, record.history, pairs, cycles)


def training_step(
    model: GraphSage | Hgt,
    decoder: DistMult,
    optimizer: ModelOptimizer,
    batch: HostBatch,
    contrastive: ContrastiveTerm | None = None,
    record: TrainingRecord | None = None,
) -> dict[str, float]:
    """Take one training step: forward pass, loss, backward pass, update of the weights.

    Args:
        model: on the device.
        decoder: on the device.
        optimizer: updates the weights of the model and the decoder.
        batch: on the CPU; this function moves it to the device.
        contrastive: the contrastive term of the loss; None: train on links only.
        record: record of the training, for the checks of the loss and of collapse, and the peak
            memory of the device.

    Returns:
        "loss", "link_loss" and, if `contrastive` is given, "contrastive_loss".

    Raises:
        InputError: a loss is NaN or infinite; the weights have not changed.
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
    losses = {"loss": loss.detach(), **losses}
    # One transfer for all losses, because each .item() waits for the GPU.
    found = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if record is not None:
        record.after_forward(z, seen.rows, found)
    del z  # otherwise z would stay in memory until the end of the backward pass
    loss.backward()
    if record is not None:
        record.after_backward()
    optimizer.step()
    return found


def _prepare(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    model: GraphSage | Hgt,
    generator: torch.Generator,
    seed: int,
    cycles: Sequence[int],
) -> tuple[DistMult, ModelOptimizer, EdgeSampler, FullBatch | SubgraphBatches, TrainingRecord]:
    """Move the model to the device, set its input vectors, and make the parts of its loop."""
    import_for_gradients()
    model.to(run.device)
    with torch.no_grad():
        model.node_embedding.copy_(structural_vectors(graph, settings.hidden_dim, generator))
    decoder = DistMult(len(graph.relations), settings.embedding_dim, generator).to(run.device)
    batches = make_batches(graph, plan.backend, settings.training, settings.subgraph_size, seed)
    run.progress.milestone(batches.description)
    first, *later = (num_epochs * batches.num_steps for num_epochs in cycles)
    optimizer = ModelOptimizer(
        model, decoder, settings.learning_rate, first, lazy=settings.training == SAMPLED,
        later_steps=later,
    )  # fmt: skip
    sampler = EdgeSampler(graph, list(plan.positives.values()), seed)
    weights = (
        (f"{part}.{name}", weight)
        for part, module in (("model", model), ("decoder", decoder))
        for name, weight in module.named_parameters()
    )
    record = TrainingRecord(run, graph, sum(cycles), batches.num_steps, weights)
    return decoder, optimizer, sampler, batches, record


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
