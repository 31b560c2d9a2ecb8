"""Training of GraphSAGE on a graph in memory, and the embeddings of all its nodes."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import fmean

import torch

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.collapse import watch_collapse
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.models.initialisation import structural_vectors
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import in_bfloat16
from clinical_drug_discovery.system.machine import empty_cache
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.batches import Subgraphs, WholeGraph, see, views_of
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.losses import link_prediction_loss
from clinical_drug_discovery.training.memory_plan import CHUNK_SIZES, GraphSizes, SagePlan
from clinical_drug_discovery.training.optimizer import Learner
from clinical_drug_discovery.training.plan import plan_memory
from clinical_drug_discovery.training.settings import SageSettings
from clinical_drug_discovery.training.step import History, Trained, take_step


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
        GraphSizes.of(graph), hidden_dim, dim, num_layers, settings.edge_batch_size,
        CHUNK_SIZES[0], settings.training, settings.subgraph_size,
    )  # fmt: skip
    with in_bfloat16(settings.bfloat16):
        chunk_size, predicted = plan_memory(run, graph, plan, memory_budget, chunk_size, ranker)

        with run.timed("train"):
            generator = torch.Generator().manual_seed(seed)
            model = GraphSage(graph.num_nodes, hidden_dim, dim, num_layers, generator)
            model = model.to(run.device)
            with torch.no_grad():
                model.node_embedding.copy_(structural_vectors(graph, hidden_dim, generator))
            decoder = DistMult(len(graph.relations), dim, generator).to(run.device)
            sampler = EdgeSampler(graph, list(plan.step_sizes().values()), seed)
            views = views_of(graph, run.device, settings.training, settings.subgraph_size, seed)
            run.progress.milestone(views.described)
            history = _train(run, model, decoder, graph, views, sampler, settings.num_epochs)

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
    views: WholeGraph | Subgraphs,
    sampler: EdgeSampler,
    num_epochs: int,
) -> History:
    """Train in place; returns a record of each epoch."""
    num_steps, by_parts = num_epochs * views.num_steps, isinstance(views, Subgraphs)
    learner = Learner(model, decoder, run.learning_rate, num_steps, by_parts=by_parts)
    history: History = []
    with run.progress.bar("Training", num_epochs) as advance:
        for epoch in range(1, num_epochs + 1):
            start, losses, watched = time.perf_counter(), [], {}
            for step in range(views.num_steps):
                view = see(views.draw(sampler.sample()), run.device)
                z = model(view.hidden, view.target, learner.vectors(view.nodes))
                loss = link_prediction_loss(decoder, z, view.batch)
                if step == 0:
                    watched = watch_collapse(z, view.rows, graph, epoch, num_epochs)
                del z  # the backward pass gives it back as soon as it is not needed
                losses.append(take_step(run, loss, learner, epoch))
                del loss, view
                empty_cache(run.device)
            value, seconds = fmean(losses), time.perf_counter() - start
            history.append({"epoch": epoch, "loss": value, "seconds": seconds, **watched})
            advance(f"loss {value:.4f}")
    return history
