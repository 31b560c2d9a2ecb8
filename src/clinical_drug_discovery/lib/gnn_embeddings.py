"""GraphSAGE embeddings of a knowledge graph: read, train, embed, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.losses import DistMult, link_prediction_loss
from clinical_drug_discovery.memory import CHUNK_SIZES, GraphSizes, SagePlan
from clinical_drug_discovery.optimizer import Adam
from clinical_drug_discovery.run import (
    History,
    Run,
    embed_nodes,
    fit_ranker_of,
    plan_memory,
    read_edges,
    start_run,
    take_step,
    watch_collapse,
    write_results,
)
from clinical_drug_discovery.runtime import GIB, empty_cache
from clinical_drug_discovery.sage import GraphSage
from clinical_drug_discovery.sampling import EdgeSampler, SteadyRows, share_out


def generate_gnn_embeddings(
    edges_csv: str | Path,
    output_csv: str | Path,
    embedding_dim: int = 512,
    hidden_dim: int = 256,
    num_layers: int = 3,
    num_epochs: int = 100,
    learning_rate: float = 0.01,
    device: str | None = None,
    edge_batch_size: int = 10_000,
    *,
    limit_nodes: int | None = None,
    include_node_types: Sequence[str] | None = None,
    seed: int = 0,
    memory_budget: str | int | None = None,
    model_dir: str | Path | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    ranker: bool = True,
) -> dict[str, Any]:
    """Embed all nodes of a knowledge graph with GraphSAGE, trained on the whole graph.

    Each epoch is one step of Adam: a full-batch forward pass, the loss on sampled facts and on
    negatives of the same node type that are no known facts. The embeddings are then computed
    exactly, layer by layer, for all nodes. See `sage.GraphSage` for the model and the paper.

    Args:
        edges_csv: knowledge graph in PrimeKG's columns: .csv, .csv.gz, .csv.zst or .parquet.
        output_csv: where to write the embeddings: .csv, .parquet or .npy (with an index beside it).
        embedding_dim: length of an embedding.
        hidden_dim: width of the hidden layers and of the learned vector of each node.
        num_layers: number of GraphSAGE layers; an embedding sees as many steps around its node.
        num_epochs: training steps, each over the whole graph.
        learning_rate: step size of Adam.
        device: mps, cuda or cpu; the first of these that is available if left out.
        edge_batch_size: facts in the loss of an epoch.
        limit_nodes: keep at most so many nodes, the best connected ones of each type.
        include_node_types: keep only nodes of these types.
        seed: of the initial weights and of all sampling.
        memory_budget: most memory the process may take, such as 4GiB; 70% of what is free if left
        out.
        model_dir: where to write the model; beside the embeddings if left out.
        chunk_size: nodes embedded at a time: fewer take less memory and more time; of the result
            it changes only the rounding. The most that the budget allows, if left out.
        cache: keep the graph once it is read, and take it from there as long as the file is the
            same.
        cache_dir: where to keep it; beside the edges file if left out.
        ranker: fit the ranker that `cdd rank` needs, where the graph says what treats what.

    Returns:
        The fields of `stats.EmbeddingStats`.

    Raises:
        InputError: a parameter or the file breaks a rule; at most the cached graph is written then.
    """
    run = start_run(
        edges_csv,
        output_csv,
        model_dir,
        device,
        learning_rate,
        least={
            "embedding_dim": (embedding_dim, 2),  # layer normalisation leaves nothing of one number
            "hidden_dim": (hidden_dim, 2),
            "num_layers": (num_layers, 1),
            "num_epochs": (num_epochs, 1),
            "edge_batch_size": (edge_batch_size, 1),
            "chunk_size": (chunk_size, 1),
            "seed": (seed, 0),
        },
    )
    graph = read_edges(run, include_node_types, limit_nodes, cache, cache_dir)
    plan = SagePlan(
        GraphSizes.of(graph), hidden_dim, embedding_dim, num_layers, edge_batch_size, CHUNK_SIZES[0]
    )
    chunk_size, predicted = plan_memory(run, graph, plan, memory_budget, chunk_size, ranker)

    with run.timed("train"):
        generator = torch.Generator().manual_seed(seed)
        model = GraphSage(graph.num_nodes, hidden_dim, embedding_dim, num_layers, generator)
        model = model.to(run.device)
        decoder = DistMult(len(graph.relations), embedding_dim).to(run.device)
        sizes = share_out(graph.edge_type_counts, edge_batch_size)
        history = _train(run, model, decoder, graph, EdgeSampler(graph, sizes, seed), num_epochs)

    embeddings, collapse = embed_nodes(run, model, graph, chunk_size)
    fitted = fit_ranker_of(run, graph, ranker, seed)
    return write_results(
        run,
        graph,
        fitted,
        {"model": model, "decoder": decoder},
        {
            "model": "graphsage",
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "num_epochs": num_epochs,
            "learning_rate": learning_rate,
            "edge_batch_size": edge_batch_size,
            "limit_nodes": limit_nodes,
            "include_node_types": include_node_types and list(include_node_types),
            "seed": seed,
        },
        embeddings,
        history,
        predicted_memory_gib=predicted / GIB,
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
