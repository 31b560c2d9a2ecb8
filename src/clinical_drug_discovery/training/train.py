"""The training of all models: one loop, and one training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ..graph.knowledge_graph import KnowledgeGraph
from ..models.initialisation import structural_vectors
from ..models.kinds.interface import SAMPLED, Settings, TrainableModel
from ..models.kinds.table import kind_of
from ..models.layers import DistMult
from ..models.warm_start import ORIGIN, WarmStart, take_over
from ..ops.buffers import used_again
from ..system.machine import empty_cache
from ..system.progress import Run
from .batches import FullBatch, HostBatch, SubgraphBatches, make_batches
from .checkpoint import Checkpoints, Part, keeping
from .distributed.shards import Shards
from .edge_sampler import EdgeSampler
from .history import History, TrainingRecord
from .hooks import EpochHook
from .memory_plan import Plan
from .objective.disease_pairs import PairSampler
from .objective.step_loss import step_loss
from .objective.terms import Term, Terms, make_terms, nodes_of
from .objective.treatment_votes import without_treatments
from .optimizer import ModelOptimizer
from .schedule import vector_rate_factor


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
    init_from: dict[str, Any] | None = None  #: record of the earlier model, see `WarmStart`


def train(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None = None,
    after_epoch: EpochHook | None = None,
    start: WarmStart | None = None,
) -> Trained:
    """Train a model.

    With `training="sampled"`, a step has one or more parts, which several processes divide. The
    gradients of all parts are averaged. The samples of a part depend on its number alone, so they
    are the same for any number of processes.

    The model does not read known treatments, see `objective.treatment_votes.without_treatments`.

    Args:
        run: provides the device and the processes; receives times and warnings.
        graph: on the CPU.
        settings: already checked; their class decides the model.
        plan: the plan for this graph and these settings.
        seed: seed of the initial weights and of all sampling.
        checkpoints: saves the state now and then, and continues a saved one; None: do neither.
        after_epoch: gets each row of the history; a true answer ends the training.
        start: earlier model whose weights and vectors the new model takes over; None: none.

    Raises:
        InputError: the loss diverges, because the learning rate is too high.
    """
    with run.timed("train"):
        parts = make_parts(run, graph, settings, plan, seed, checkpoints, start)
        terms, record = parts.terms, parts.record
        with used_again(), keeping(
            checkpoints, parts.with_states(), parts.shards, record, run
        ) as (advance, after_step):  # fmt: skip
            while not record.is_finished:
                losses = []
                for number in parts.own_numbers():
                    batch, drawn = parts.draw(number)
                    losses.append(
                        add_gradients(
                            parts.model, parts.decoder, parts.optimizer, batch, drawn,
                            terms.link_weight, record, 1 / parts.batches.per_step,
                        )
                    )  # fmt: skip
                    del batch, drawn  # free the memory before the next subgraph is sampled
                parts.optimizer.step()
                if record.add(mean_losses(run.group.gather(losses))):
                    advance(record.note)
                    asked = after_epoch is not None and bool(after_epoch(record.history[-1]))
                    if any(run.group.gather(asked)):
                        record.end_early("on_epoch asked to stop")
                if not plan.is_small:  # a seventh of the time of a step on a small graph
                    empty_cache(run.device)
                after_step()
        parts.optimizer.write_back()
        parts.shards.complete_model(parts.model)
    run.seconds["seconds_train"] += record.seconds_before
    origin = None if start is None else dict(start.record)
    if checkpoints is not None:
        origin = checkpoints.identity.get(ORIGIN)
    return Trained(
        parts.model,
        parts.decoder,
        parts.read,
        record.history,
        terms.pairs,
        parts.cycles,
        record.ended_early,
        origin,
    )


class Parts(NamedTuple):
    """The parts of a training."""

    model: TrainableModel
    decoder: DistMult
    optimizer: ModelOptimizer
    edges: EdgeSampler
    batches: FullBatch | SubgraphBatches
    terms: Terms
    record: TrainingRecord
    shards: Shards  #: the division of the node tables among the processes
    read: KnowledgeGraph  #: the edges that the model reads
    cycles: tuple[int, ...]  #: epochs of each cycle of the learning rate

    def with_states(self) -> dict[str, Part]:
        """Return the parts that a checkpoint saves."""
        names = ("model", "decoder", "optimizer", "edges", "batches", "record")
        return {**{name: getattr(self, name) for name in names}, **self.terms.samplers}

    def own_numbers(self) -> range:
        """Return the numbers of the parts of the next step that this process computes."""
        group, per_step = self.shards.group, self.batches.per_step
        first = self.record.num_done * per_step
        bounds = [first + per_step * rank // group.size for rank in (group.rank, group.rank + 1)]
        return range(*bounds)

    def draw(self, number: int) -> tuple[HostBatch, list[Term]]:
        """Draw a part of a step: its batch, and the terms of its loss beside link prediction."""
        if isinstance(self.batches, SubgraphBatches):  # full batches follow one stream of numbers
            self.batches.begin(number)
            for sampler in (self.edges, *self.terms.samplers.values()):
                sampler.begin(number)
        drawn = self.terms.sample()
        return self.batches.next(self.edges.sample().including(nodes_of(drawn))), drawn


def make_parts(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    plan: Plan,
    seed: int,
    checkpoints: Checkpoints | None,
    start: WarmStart | None = None,
) -> Parts:
    """Make the parts of a training, on the device; see `train`."""
    read, hidden = without_treatments(graph)
    terms = make_terms(run, graph, settings, plan, seed)
    generator = torch.Generator().manual_seed(seed)
    kind = kind_of(settings.model)
    is_first, shards = run.group.rank == 0, Shards(run.group, graph.num_nodes)
    offsets = graph.type_offsets if is_first else (0,) * len(graph.type_offsets)
    model: TrainableModel = kind.make(offsets, len(graph.edge_types), settings, generator)
    model.to(run.device)
    # A checkpoint has the vectors, and other processes get them from the first.
    is_made_here = is_first and (checkpoints is None or checkpoints.found is None)
    if is_made_here and start is None:
        with torch.no_grad():
            model.node_embedding.copy_(structural_vectors(read, settings.hidden_dim, generator))
    decoder = DistMult(len(graph.relations), settings.embedding_dim, generator).to(run.device)
    if is_made_here and start is not None:
        take_over(start, model, decoder, read, settings, generator)
    shards.divide_model(model, decoder)
    batches = make_batches(
        graph, plan.backend, settings.training, settings.subgraph_size, seed,
        read=read, hidden=hidden, per_step=plan.per_step,
    )  # fmt: skip
    run.progress.milestone(batches.description)
    cycles = (settings.num_epochs,) if checkpoints is None else checkpoints.cycles
    first, *later = (num_epochs * batches.num_steps for num_epochs in cycles)
    optimizer = ModelOptimizer(
        model, decoder, settings.learning_rate, first, lazy=settings.training == SAMPLED,
        vector_rate=kind.vector_rate * vector_rate_factor(first), later_steps=later,
        group=run.group, rows=shards.rows,
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
    parts = Parts(model, decoder, optimizer, edges, batches, terms, record, shards, read, cycles)
    if run.group.size > 1:
        parts.draw(0)  # the first part decides the number of nodes of each type in all subgraphs
    return parts


def training_step(
    model: TrainableModel,
    decoder: DistMult,
    optimizer: ModelOptimizer,
    batch: HostBatch,
    terms: Sequence[Term] = (),
    link_weight: float = 1.0,
    record: TrainingRecord | None = None,
) -> dict[str, float]:
    """Take one training step of one part: add its gradients, and update the weights.

    See `add_gradients` for the parameters, the result and the errors.
    """
    losses = add_gradients(model, decoder, optimizer, batch, terms, link_weight, record)
    optimizer.step()
    return losses


def add_gradients(
    model: TrainableModel,
    decoder: DistMult,
    optimizer: ModelOptimizer,
    batch: HostBatch,
    terms: Sequence[Term],
    link_weight: float,
    record: TrainingRecord | None,
    share: float = 1.0,
) -> dict[str, float]:
    """Add the gradients of one part of a step: forward pass, loss, backward pass.

    Args:
        model: on the device.
        decoder: on the device.
        optimizer: provides the input vectors.
        batch: on the CPU; this function moves it to the device. It has all nodes of `terms`.
        terms: further terms of the loss.
        link_weight: factor of the loss of link prediction.
        record: record of the training, for the checks of the loss and of collapse, and the peak
            memory of the device.
        share: factor of the gradients: 1 / number of parts.

    Returns:
        "loss" (the weighted sum), "link_loss", and the loss of each term by its name.

    Raises:
        InputError: a loss is NaN or infinite; the weights have not changed.
    """
    seen = batch.to_device()
    z = model(seen.all_nodes, seen.targets, optimizer.vectors(seen.nodes))
    batch.backend.trim_heap()
    losses, root = step_loss(z, seen, decoder, terms, link_weight, share)
    batch.backend.trim_heap()
    # One transfer for all losses, because each .item() waits for the GPU.
    values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
    if record is not None:
        record.after_forward(z, seen.rows, values)
    del z  # otherwise it would stay in memory until the end of the backward pass
    root.backward()
    if record is not None:
        record.after_backward()
    return values


def mean_losses(losses: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Return the mean of each loss over the parts of all processes; a part may lack a term."""
    parts = [part for of_process in losses for part in of_process]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: fmean(part[name] for part in parts if name in part) for name in names}
