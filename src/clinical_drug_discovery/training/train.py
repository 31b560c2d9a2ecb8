"""The training of all models: one loop, and one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from ..models.initialisation import structural_vectors
from ..models.kinds.interface import SAMPLED, Settings, TrainableModel
from ..models.kinds.table import kind_of
from ..models.layers import DistMult
from ..ops.mean import gather_rows
from ..system.machine import empty_cache
from ..system.processes import import_for_gradients
from ..system.progress import Run
from .batches import FullBatch, HostBatch, SubgraphBatches, make_batches
from .checkpoint import Checkpoints, Part, keeping
from .edge_sampler import EdgeSampler
from .history import History, TrainingRecord
from .hooks import EpochHook
from .memory_plan import Plan
from .objective.disease_pairs import PairSampler
from .objective.link_loss import link_prediction_loss
from .objective.terms import Term, Terms, losses_and_gradient, make_terms
from .objective.treatment_votes import without_treatments
from .optimizer import ModelOptimizer


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training."""

    model: TrainableModel
    decoder: DistMult
    graph: KnowledgeGraph  #: the edges that the model reads: all except known treatments
    history: History
    pairs: PairSampler | None  #: similar diseases; None without a contrastive loss
    cycles: tuple[int, ...] = ()  #: epochs of each cycle of the learning rate
    ended_early: str | None = None  #: the reason, if the training ended before its last epoch


def train(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None = None,
    after_epoch: EpochHook | None = None,
) -> Trained:
    """Train a model.

    The model does not read known treatments, see `objective.treatment_votes.without_treatments`.

    Args:
        run: provides the device; receives times and warnings.
        graph: on the CPU.
        settings: already checked; their class decides the model.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.
        checkpoints: saves the state now and then, and continues a saved one; None: do neither.
        after_epoch: gets each row of the history; a true answer ends the training.

    Raises:
        InputError: the loss diverges, because the learning rate is too high.
    """
    with run.timed("train"):
        parts = _make_parts(run, graph, settings, plan, seed, checkpoints)
        terms, record = parts.terms, parts.record
        with keeping(checkpoints, parts.with_states(), record, run) as (advance, after_step):
            while not record.is_finished:
                drawn = terms.sample()
                facts = parts.edges.sample().including(_nodes(drawn))
                step = training_step(
                    parts.model, parts.decoder, parts.optimizer, parts.batches.next(facts), drawn,
                    terms.link_weight, record,
                )  # fmt: skip
                if record.add(step):
                    advance(record.note)
                    if after_epoch is not None and after_epoch(record.history[-1]):
                        record.end_early("on_epoch asked to stop")
                del facts, drawn  # free the memory before the next subgraph is sampled
                if not plan.is_small:  # a seventh of the time of a step on a small graph
                    empty_cache(run.device)
                after_step()
    run.seconds["seconds_train"] += record.seconds_before
    return Trained(
        parts.model,
        parts.decoder,
        parts.read,
        record.history,
        terms.pairs,
        parts.cycles,
        record.ended_early,
    )


class _Parts(NamedTuple):
    """The parts of a training."""

    model: TrainableModel
    decoder: DistMult
    optimizer: ModelOptimizer
    edges: EdgeSampler
    batches: FullBatch | SubgraphBatches
    terms: Terms
    record: TrainingRecord
    read: KnowledgeGraph  #: the edges that the model reads
    cycles: tuple[int, ...]  #: epochs of each cycle of the learning rate

    def with_states(self) -> dict[str, Part]:
        """Return the parts that a checkpoint saves."""
        names = ("model", "decoder", "optimizer", "edges", "batches", "record")
        return {**{name: getattr(self, name) for name in names}, **self.terms.samplers}


def _make_parts(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None,
) -> _Parts:
    """Make the parts of a training, on the device; see `train`."""
    import_for_gradients()
    read, hidden = without_treatments(graph)
    terms = make_terms(run, graph, settings, plan, seed)
    generator = torch.Generator().manual_seed(seed)
    kind = kind_of(settings.model)
    model: TrainableModel = kind.make(
        graph.type_offsets, len(graph.edge_types), settings, generator
    )
    model.to(run.device)
    if checkpoints is None or checkpoints.found is None:  # else a checkpoint has the vectors
        with torch.no_grad():
            model.node_embedding.copy_(structural_vectors(read, settings.hidden_dim, generator))
    decoder = DistMult(len(graph.relations), settings.embedding_dim, generator).to(run.device)
    batches = make_batches(
        graph, plan.backend, settings.training, settings.subgraph_size, seed,
        read=read, hidden=hidden,
    )  # fmt: skip
    run.progress.milestone(batches.description)
    cycles = (settings.num_epochs,) if checkpoints is None else checkpoints.cycles
    first, *later = (num_epochs * batches.num_steps for num_epochs in cycles)
    optimizer = ModelOptimizer(
        model, decoder, settings.learning_rate, first, lazy=settings.training == SAMPLED,
        later_steps=later,
    )  # fmt: skip
    weights = (
        (f"{part}.{name}", weight)
        for part, module in (("model", model), ("decoder", decoder))
        for name, weight in module.named_parameters()
    )
    record = TrainingRecord(
        run, graph, sum(cycles), batches.num_steps, weights, is_linked=terms.link_weight > 0
    )
    edges = EdgeSampler(graph, list(plan.positives.values()), seed)
    return _Parts(model, decoder, optimizer, edges, batches, terms, record, read, cycles)


def training_step(
    model: TrainableModel,
    decoder: DistMult,
    optimizer: ModelOptimizer,
    batch: HostBatch,
    terms: Sequence[Term] = (),
    link_weight: float = 1.0,
    record: TrainingRecord | None = None,
) -> dict[str, float]:
    """Take one training step: forward pass, loss, backward pass, update of the weights.

    Args:
        model: on the device.
        decoder: on the device.
        optimizer: updates the weights of the model and the decoder.
        batch: on the CPU; this function moves it to the device. It has all nodes of `terms`.
        terms: further terms of the loss.
        link_weight: factor of the loss of link prediction.
        record: record of the training, for the checks of the loss and of collapse, and the peak
            memory of the device.

    Returns:
        "loss" (the weighted sum), "link_loss", and the loss of each term by its name.

    Raises:
        InputError: a loss is NaN or infinite; the weights have not changed.
    """
    seen = batch.to_device()
    z = model(seen.all_nodes, seen.targets, optimizer.vectors(seen.nodes))
    link = link_prediction_loss(decoder, z, seen.facts)
    total, losses = link_weight * link.detach(), {"link_loss": link.detach()}
    roots, gradients = [link], [torch.full_like(link, link_weight)]
    if terms:
        # One call gathers all rows, because each call makes a gradient of the size of z.
        found = gather_rows(z, torch.searchsorted(seen.rows, _nodes(terms)).to(z.device))
        others, gradient = losses_and_gradient(found, terms)
        total = total + sum(term.weight * others[term.name] for term in terms)
        losses |= others
        roots.append(found)
        gradients.append(gradient)
        del found, gradient
    losses = {"loss": total, **losses}
    # One transfer for all losses, because each .item() waits for the GPU.
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if record is not None:
        record.after_forward(z, seen.rows, values)
    del z, link  # otherwise z would stay in memory until the end of the backward pass
    torch.autograd.backward(roots, gradients)
    if record is not None:
        record.after_backward()
    optimizer.step()
    return values


def _nodes(terms: Sequence[Term]) -> Tensor:
    """Return the nodes of all terms, one term after the other."""
    return torch.cat([torch.empty(0, dtype=torch.int64), *(term.nodes for term in terms)])
