"""Training of HGT on a graph in memory, and the embeddings of all its nodes."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict
from statistics import fmean

import torch

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.models.collapse import watch_collapse
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import embed_nodes
from clinical_drug_discovery.models.initialisation import structural_vectors
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.ops.backend import in_bfloat16
from clinical_drug_discovery.system.machine import empty_cache
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.batches import Subgraphs, WholeGraph, see, views_of
from clinical_drug_discovery.training.disease_pairs import (
    PairSampler,
    most_sharing_pairs,
    shared_neighbor_jaccard,
    similarity_spearman,
)
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.losses import contrastive_loss, link_prediction_loss
from clinical_drug_discovery.training.memory_plan import CHUNK_SIZES, GraphSizes, HgtPlan
from clinical_drug_discovery.training.optimizer import Learner
from clinical_drug_discovery.training.plan import plan_memory
from clinical_drug_discovery.training.settings import HgtSettings
from clinical_drug_discovery.training.step import History, Trained, take_step


def train_hgt(
    run: Run,
    graph: KnowledgeGraph,
    settings: HgtSettings,
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
    sizes = GraphSizes.of(graph)
    plan = HgtPlan(
        graph=sizes,
        num_sharing=most_sharing_pairs(graph, **settings.alike),
        num_diseases=(
            sizes.node_type_counts.get(settings.disease_type, 0)
            if settings.contrastive_weight
            else 0
        ),
        hidden_dim=settings.hidden_dim,
        embedding_dim=settings.embedding_dim,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        edge_sample_size=settings.edge_sample_size,
        chunk_size=CHUNK_SIZES[0],
        training=settings.training,
        subgraph_size=settings.subgraph_size,
    )
    with in_bfloat16(settings.bfloat16):
        chunk_size, predicted = plan_memory(run, graph, plan, memory_budget, chunk_size, ranker)

        with run.timed("train"):
            alike = _alike(run, graph, settings, seed)
            num_pairs = plan.step_size()
            weight = _weight(run, alike, settings.contrastive_weight, num_pairs)
            generator = torch.Generator().manual_seed(seed)
            model = Hgt(
                graph.type_offsets, len(graph.edge_types), settings.hidden_dim,
                settings.embedding_dim,
                settings.num_layers, settings.num_heads, generator,
            ).to(run.device)  # fmt: skip
            with torch.no_grad():
                vectors = structural_vectors(graph, settings.hidden_dim, generator)
                model.node_embedding.copy_(vectors)
            decoder = DistMult(len(graph.relations), settings.embedding_dim, generator)
            decoder = decoder.to(run.device)
            sampler = EdgeSampler(graph, list(plan.step_sizes().values()), seed)
            views = views_of(graph, run.device, settings.training, settings.subgraph_size, seed)
            run.progress.milestone(views.described)
            history = _train(
                run, model, decoder, graph, views, sampler, alike, weight, num_pairs, settings
            )

        embeddings, collapse = embed_nodes(run, model, graph, chunk_size)
    similarity = None
    if alike is not None:
        similarity = {
            "num_pairs": alike.num_pairs,
            "num_held_out_nodes": alike.num_held_out_nodes,
            **similarity_spearman(embeddings, alike.left_out),
        }
    return Trained(
        model=model,
        decoder=decoder,
        parameters={"model": "hgt", **asdict(settings)},
        embeddings=embeddings,
        history=history,
        predicted_memory=predicted,
        collapse=collapse,
        similarity=similarity,
    )


def _alike(run: Run, graph: KnowledgeGraph, settings: HgtSettings, seed: int) -> PairSampler | None:
    """Which diseases are alike; None, said aloud, if the graph has no such facts."""
    names, threshold = settings.alike, settings.similarity_threshold
    jaccard = shared_neighbor_jaccard(graph, **names)
    if jaccard is None:
        run.warn(
            f"the graph has no facts of disease_gene_relation {names['relation']!r} between "
            f"disease_type {names['node_type']!r} and gene_type {names['neighbor_type']!r}: "
            "trained on links alone"
        )
        return None
    first, _ = node_range_of(graph, names["node_type"])
    alike = PairSampler(jaccard, first, threshold, seed)
    run.progress.milestone(
        f"{alike.num_alike_pairs:,} pairs of type {names['node_type']!r} share "
        f"{names['neighbor_type']!r} with a Jaccard index of at least {threshold:g}; "
        f"{alike.num_held_out_nodes:,} nodes are held out to measure with, {alike.num_pairs:,} "
        "pairs are left to train on"
    )
    return alike


def _weight(run: Run, alike: PairSampler | None, weight: float, batch_size: int) -> float:
    """The weight of the contrastive term: 0, said aloud, where it would have no gradient."""
    if alike is None or weight == 0:
        return 0.0
    if not alike.has_negatives(batch_size):
        run.warn(
            f"no contrastive loss: {alike.num_pairs:,} pairs of alike diseases (of "
            f"{alike.num_alike_pairs:,}, the others have a held-out node) and edge_sample_size "
            f"({batch_size:,} a step) give no pair that could be told apart from another: trained "
            "on links alone"
        )
        return 0.0
    return weight


def _train(
    run: Run,
    model: Hgt,
    decoder: DistMult,
    graph: KnowledgeGraph,
    views: WholeGraph | Subgraphs,
    sampler: EdgeSampler,
    alike: PairSampler | None,
    weight: float,
    num_pairs: int,
    settings: HgtSettings,
) -> History:
    """Train in place; returns a record of each epoch."""
    num_epochs, temperature = settings.num_epochs, settings.temperature
    num_steps, by_parts = num_epochs * views.num_steps, isinstance(views, Subgraphs)
    learner = Learner(model, decoder, run.learning_rate, num_steps, by_parts=by_parts)
    history: History = []
    with run.progress.bar("Training", num_epochs) as advance:
        for epoch in range(1, num_epochs + 1):
            start, watched = time.perf_counter(), {}
            values: dict[str, list[float]] = defaultdict(list)
            for step in range(views.num_steps):
                batch = sampler.sample()
                pairs = None
                if alike is not None and weight:
                    pairs = alike.sample(num_pairs)
                    batch = batch.including(pairs.nodes)
                view = see(views.draw(batch), run.device)
                z = model(view.hidden, view.target, learner.vectors(view.nodes))
                parts = {"link_loss": link_prediction_loss(decoder, z, view.batch)}
                loss = parts["link_loss"]
                if pairs is not None:
                    parts["contrastive_loss"] = contrastive_loss(z, view.rows, pairs, temperature)
                    loss = (1 - weight) * loss + weight * parts["contrastive_loss"]
                if step == 0:
                    watched = watch_collapse(z, view.rows, graph, epoch, num_epochs)
                del z  # the backward pass gives it back as soon as it is not needed
                values["loss"].append(take_step(run, loss, learner, epoch))
                for name in parts:
                    values[name].append(parts[name].item())
                del loss, parts, view
                empty_cache(run.device)
            means = {name: fmean(found) for name, found in values.items()}
            seconds = time.perf_counter() - start
            history.append({"epoch": epoch, **means, "seconds": seconds, **watched})
            advance(f"loss {means['loss']:.4f}")
    return history
