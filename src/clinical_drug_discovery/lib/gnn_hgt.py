"""HGT embeddings of a knowledge graph: read, train, embed, write."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.contrast import PairSampler
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.evaluate import similarity_spearman
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.hgt import Hgt
from clinical_drug_discovery.losses import DistMult, contrastive_loss, link_prediction_loss
from clinical_drug_discovery.memory import CHUNK_SIZES, GraphSizes, HgtPlan
from clinical_drug_discovery.optimizer import Adam
from clinical_drug_discovery.pairs import span_of
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
from clinical_drug_discovery.runtime import GIB, check_between, empty_cache
from clinical_drug_discovery.sampling import EdgeSampler, SteadyRows
from clinical_drug_discovery.similarity import most_sharing_pairs, shared_neighbor_jaccard


def generate_hgt_embeddings(
    edges_csv: str | Path,
    output_csv: str | Path,
    embedding_dim: int = 512,
    hidden_dim: int = 256,
    num_layers: int = 2,
    num_heads: int = 8,
    num_epochs: int = 100,
    learning_rate: float = 0.001,
    device: str | None = None,
    contrastive_weight: float = 0.5,
    edge_sample_size: int = 1_000,
    *,
    similarity_threshold: float = 0.1,
    temperature: float = 0.1,
    disease_type: str = "disease",
    gene_type: str = "gene/protein",
    disease_gene_relation: str = "disease_protein",
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
    """Embed all nodes of a knowledge graph with HGT, trained on the whole graph.

    Each epoch is one step of Adam: a full-batch forward pass, the loss on sampled facts and on
    negatives of the same node type that are no known facts, and a contrastive loss on diseases that
    share genes. The embeddings are then computed exactly, layer by layer, for all nodes. See
    `hgt.Hgt` for the model and the paper.

    Args:
        edges_csv: knowledge graph in PrimeKG's columns: .csv, .csv.gz, .csv.zst or .parquet.
        output_csv: where to write the embeddings: .csv, .parquet or .npy (with an index beside it).
        embedding_dim: length of an embedding.
        hidden_dim: width of the layers and of the learned vector of each node; a multiple of
            num_heads.
        num_layers: number of HGT layers; an embedding sees as many steps around its node.
        num_heads: number of attention heads of each layer.
        num_epochs: training steps, each over the whole graph.
        learning_rate: step size of Adam.
        device: mps, cuda or cpu; the first of these that is available if left out.
        contrastive_weight: w in the loss (1 - w) link + w contrastive, from 0 to 1.
        edge_sample_size: facts of each edge type in the loss of an epoch, and pairs of diseases.
        similarity_threshold: two diseases are alike if the Jaccard index of their genes is at
            least this, above 0 and up to 1.
        temperature: divides the cosines of the contrastive loss; at least 0.001.
        disease_type: node type of the contrastive loss.
        gene_type: node type that makes two diseases alike.
        disease_gene_relation: relation between these two types.
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
            "num_heads": (num_heads, 1),
            "num_epochs": (num_epochs, 1),
            "edge_sample_size": (edge_sample_size, 1),
            "chunk_size": (chunk_size, 1),
            "seed": (seed, 0),
        },
    )
    if hidden_dim % num_heads:
        raise InputError(
            f"hidden_dim (got {hidden_dim}) must be divisible by num_heads (got {num_heads})"
        )
    check_between("contrastive_weight", contrastive_weight, 0, 1, low_allowed=True)
    check_between("similarity_threshold", similarity_threshold, 0, 1)
    check_between("temperature", temperature, 0.001, math.inf, low_allowed=True)
    graph = read_edges(run, include_node_types, limit_nodes, cache, cache_dir)
    names = {
        "node_type": disease_type, "neighbor_type": gene_type, "relation": disease_gene_relation
    }  # fmt: skip
    sizes = GraphSizes.of(graph)
    plan = HgtPlan(
        graph=sizes,
        num_sharing=most_sharing_pairs(graph, **names),
        num_diseases=sizes.node_type_counts.get(disease_type, 0) if contrastive_weight else 0,
        hidden_dim=hidden_dim,
        embedding_dim=embedding_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        edge_sample_size=edge_sample_size,
        chunk_size=CHUNK_SIZES[0],
    )
    chunk_size, predicted = plan_memory(run, graph, plan, memory_budget, chunk_size, ranker)

    with run.timed("train"):
        alike = _alike(run, graph, names, similarity_threshold, seed)
        weight = _weight(run, alike, contrastive_weight, edge_sample_size)
        generator = torch.Generator().manual_seed(seed)
        model = Hgt(
            graph.bounds, len(graph.edge_types), hidden_dim, embedding_dim, num_layers, num_heads,
            generator,
        ).to(run.device)  # fmt: skip
        decoder = DistMult(len(graph.relations), embedding_dim).to(run.device)
        drawn = np.minimum(graph.edge_type_counts, edge_sample_size)
        history = _train(
            run, model, decoder, graph, EdgeSampler(graph, drawn, seed), num_epochs,
            alike, edge_sample_size, weight, temperature,
        )  # fmt: skip

    embeddings, collapse = embed_nodes(run, model, graph, chunk_size)
    similarity = None
    if alike is not None:
        similarity = {
            "num_pairs": alike.num_pairs,
            "num_held_out_nodes": alike.num_held_out_nodes,
            **similarity_spearman(embeddings, alike.left_out),
        }
    fitted = fit_ranker_of(run, graph, ranker, seed)
    return write_results(
        run,
        graph,
        fitted,
        {"model": model, "decoder": decoder},
        {
            "model": "hgt",
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "num_epochs": num_epochs,
            "learning_rate": learning_rate,
            "contrastive_weight": contrastive_weight,
            "edge_sample_size": edge_sample_size,
            "similarity_threshold": similarity_threshold,
            "temperature": temperature,
            "disease_type": disease_type,
            "gene_type": gene_type,
            "disease_gene_relation": disease_gene_relation,
            "limit_nodes": limit_nodes,
            "include_node_types": include_node_types and list(include_node_types),
            "seed": seed,
        },
        embeddings,
        history,
        predicted_memory_gib=predicted / GIB,
        collapse=collapse,
        similarity=similarity,
    )


def _alike(
    run: Run, graph: KnowledgeGraph, names: dict[str, str], threshold: float, seed: int
) -> PairSampler | None:
    """Which diseases are alike; None, said aloud, if the graph has no such facts."""
    jaccard = shared_neighbor_jaccard(graph, **names)
    if jaccard is None:
        run.warn(
            f"the graph has no facts of disease_gene_relation {names['relation']!r} between "
            f"disease_type {names['node_type']!r} and gene_type {names['neighbor_type']!r}: "
            "trained on links alone"
        )
        return None
    first, _ = span_of(graph, names["node_type"])
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
            f"({batch_size:,}) give no pair that could be told apart from another: trained on "
            "links alone"
        )
        return 0.0
    return weight


def _train(
    run: Run,
    model: Hgt,
    decoder: DistMult,
    graph: KnowledgeGraph,
    sampler: EdgeSampler,
    num_epochs: int,
    alike: PairSampler | None,
    pair_batch_size: int,
    weight: float,
    temperature: float,
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
            batch = sampler.sample()
            pairs = alike.sample(pair_batch_size) if alike is not None and weight else None
            if pairs is not None:
                batch = batch.including(pairs.nodes)
            batch = steady.fill(batch)
            target = row_block(placed, batch.rows)
            z = model(hidden, target)
            parts = {"link_loss": link_prediction_loss(decoder, z, batch.to(run.device))}
            loss = parts["link_loss"]
            if pairs is not None:
                parts["contrastive_loss"] = contrastive_loss(z, batch.rows, pairs, temperature)
                loss = (1 - weight) * loss + weight * parts["contrastive_loss"]
            watched = watch_collapse(z, batch.rows, graph, epoch, num_epochs)
            del z  # the backward pass gives it back as soon as it is not needed
            value = take_step(run, loss, optimizer, epoch)
            values = {name: part.item() for name, part in parts.items()}
            seconds = time.perf_counter() - start
            history.append({"epoch": epoch, "loss": value, **values, "seconds": seconds, **watched})
            del loss, parts, target
            empty_cache(run.device)
            advance(f"loss {value:.4f}")
    return history
