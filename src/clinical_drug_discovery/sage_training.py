"""Training of GraphSAGE on a graph in memory, and the embeddings of all its nodes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import torch

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.losses import DistMult, link_prediction_loss
from clinical_drug_discovery.memory import CHUNK_SIZES, GraphSizes, SagePlan
from clinical_drug_discovery.ops.backend import in_bfloat16
from clinical_drug_discovery.optimizer import Adam
from clinical_drug_discovery.run import (
    History,
    Run,
    Trained,
    check_sizes,
    embed_nodes,
    plan_memory,
    take_step,
    watch_collapse,
)
from clinical_drug_discovery.runtime import empty_cache
from clinical_drug_discovery.sage import GraphSage
from clinical_drug_discovery.sampling import EdgeSampler, SteadyRows, share_out
from clinical_drug_discovery.structure import structural_vectors


@dataclass(frozen=True)
class SageSettings:
    """What GraphSAGE is trained with; `lib.gnn_embeddings` says what it means, and the defaults."""

    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    learning_rate: float
    edge_batch_size: int
    bfloat16: bool

    def check(self) -> None:
        """Refuse what breaks a rule whatever the graph.

        Raises:
            InputError: it names the parameter.
        """
        check_sizes(self, "edge_batch_size")


def train_sage(
    run: Run,
    graph: KnowledgeGraph,
    settings: SageSettings,
    *,
    seed: int,
    memory_budget: str | int | None,
    chunk_size: int | None,
    ranker: bool,
) -> Trained:
    """Train on a graph, then embed all its nodes.

    Args:
        run: says on what device; gets times and warnings.
        graph: on the CPU.
        settings: checked.
        seed: of the initial weights and of all sampling.
        memory_budget: see `memory.parse_memory`.
        chunk_size: nodes embedded at a time; None for the most that the budget allows.
        ranker: whether one is fitted afterwards, for the plan of memory.

    Raises:
        InputError: the budget is too small, or the learning rate too high.
    """
    hidden_dim, dim, num_layers = settings.hidden_dim, settings.embedding_dim, settings.num_layers
    plan = SagePlan(
        GraphSizes.of(graph), hidden_dim, dim, num_layers, settings.edge_batch_size, CHUNK_SIZES[0]
    )
    with in_bfloat16(settings.bfloat16):
        chunk_size, predicted = plan_memory(run, graph, plan, memory_budget, chunk_size, ranker)

        with run.timed("train"):
            generator = torch.Generator().manual_seed(seed)
            model = GraphSage(graph.num_nodes, hidden_dim, dim, num_layers, generator)
            model = model.to(run.device)
            with torch.no_grad():
                model.node_embedding.copy_(structural_vectors(graph, hidden_dim, generator))
            decoder = DistMult(len(graph.relations), dim, generator).to(run.device)
            sizes = share_out(graph.edge_type_counts, settings.edge_batch_size)
            sampler = EdgeSampler(graph, sizes, seed)
            history = _train(run, model, decoder, graph, sampler, settings.num_epochs)

        embeddings, collapse = embed_nodes(run, model, graph, chunk_size)
    return Trained(
        model=model,
        decoder=decoder,
        parameters={"model": "graphsage", **asdict(settings)},
        embeddings=embeddings,
        history=history,
        predicted_memory=predicted,
        collapse=collapse,
        similarity=None,
    )


def _train(
    run: Run,
    model: GraphSage,
    decoder: DistMult,
    graph: KnowledgeGraph,
    sampler: EdgeSampler,
    num_epochs: int,
) -> History:
    """Train in place; returns a record of each epoch."""
    run.progress.milestone("Full-batch training with edge sampling")
    placed = graph.to(run.device)
    hidden, steady = full_block(placed), SteadyRows(graph, run.device)
    optimizer = Adam([*model.parameters(), *decoder.parameters()], run.learning_rate)
    history: History = []
    with run.progress.bar("Training", num_epochs) as advance:
        for epoch in range(1, num_epochs + 1):
            start = time.perf_counter()
            batch = steady.fill(sampler.sample())
            target = row_block(placed, batch.rows)
            z = model(hidden, target)
            loss = link_prediction_loss(decoder, z, batch.to(run.device))
            watched = watch_collapse(z, batch.rows, graph, epoch, num_epochs)
            del z  # the backward pass gives it back as soon as it is not needed
            value = take_step(run, loss, optimizer, epoch)
            del loss, target
            seconds = time.perf_counter() - start
            history.append({"epoch": epoch, "loss": value, "seconds": seconds, **watched})
            empty_cache(run.device)
            advance(f"loss {value:.4f}")
    return history
