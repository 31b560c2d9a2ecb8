"""GraphSAGE embeddings of a knowledge graph: read, train, embed, write."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.checkpoint import (
    check_targets,
    check_writable,
    save_model,
    save_record,
)
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.evaluate import collapse_by_type
from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.inference import embed_all
from clinical_drug_discovery.losses import DistMult, link_prediction_loss
from clinical_drug_discovery.memory import SagePlan, check_budget
from clinical_drug_discovery.outputs import check_output, output_files, write_embeddings
from clinical_drug_discovery.progress import Progress
from clinical_drug_discovery.runtime import (
    GIB,
    check_at_least,
    empty_cache,
    peak_memory_bytes,
    resolve_device,
)
from clinical_drug_discovery.sage import GraphSage
from clinical_drug_discovery.sampling import EdgeSampler
from clinical_drug_discovery.stats import EmbeddingStats
from clinical_drug_discovery.tables import check_edges_file, read_graph


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
    chunk_size: int = 8_192,
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
        chunk_size: nodes embedded at a time; changes the memory that is used, and of the
            result only the rounding of float32.

    Returns:
        The fields of `stats.EmbeddingStats`.

    Raises:
        InputError: a parameter or the file breaks a rule; nothing has been written then.
    """
    for name, value, least in (
        ("embedding_dim", embedding_dim, 2),  # layer normalisation leaves nothing of one number
        ("hidden_dim", hidden_dim, 2),
        ("num_layers", num_layers, 1),
        ("num_epochs", num_epochs, 1),
        ("edge_batch_size", edge_batch_size, 1),
        ("chunk_size", chunk_size, 1),
        ("seed", seed, 0),
    ):
        check_at_least(name, value, least)
    if not isinstance(learning_rate, int | float) or not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate (got {learning_rate!r}) must be a finite number above 0")
    check_edges_file(Path(edges_csv))
    output = Path(output_csv)
    check_output(output)
    directory = output.with_name(f"{output.stem}_model") if model_dir is None else Path(model_dir)
    check_writable("model_dir", directory)
    check_targets(Path(edges_csv), output_files(output), directory)
    place = resolve_device(device)
    progress = Progress()
    progress.milestone(f"Device: {place}")

    start = time.perf_counter()
    graph = read_graph(edges_csv, include_node_types=include_node_types, limit_nodes=limit_nodes)
    empty_cache(place)  # what the reader used is then there for the training
    seconds_read = time.perf_counter() - start
    progress.milestone(
        f"Read {graph.num_nodes:,} nodes and {graph.num_edges:,} edges of {len(graph.relations)} "
        f"relations in {seconds_read:.1f} s: {graph.report.spelling}"
    )
    plan = SagePlan(
        graph.num_nodes, graph.num_edges, hidden_dim, embedding_dim, num_layers, edge_batch_size
    )
    predicted = check_budget(plan, memory_budget)
    progress.milestone(f"Predicted peak memory: {predicted / GIB:.2f} GiB")

    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    model = GraphSage(graph.num_nodes, hidden_dim, embedding_dim, num_layers, generator).to(place)
    decoder = DistMult(len(graph.relations), embedding_dim).to(place)
    progress.milestone("Full-batch training with edge sampling")
    history = _train(
        model, decoder, graph, num_epochs, learning_rate, edge_batch_size, seed, progress
    )
    seconds_train = time.perf_counter() - start

    start = time.perf_counter()
    progress.milestone("Layer-wise inference for memory efficiency")
    embeddings = embed_all(
        model,
        graph.to(place),
        chunk_size,
        on_layer=lambda index: progress.detail(f"Layer {index + 1}/{num_layers}..."),
    )
    if not torch.isfinite(embeddings).all():
        raise InputError(
            f"learning_rate (got {learning_rate}) is too high: the embeddings hold NaN or infinity"
        )
    collapse = collapse_by_type(embeddings, graph)
    seconds_inference = time.perf_counter() - start
    progress.milestone(f"Generated embeddings: {embeddings.shape}")

    start = time.perf_counter()
    save_model(
        directory,
        weights={
            **{f"model.{name}": tensor for name, tensor in model.state_dict().items()},
            **{f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()},
        },
        config={
            "model": "graphsage",
            "num_nodes": graph.num_nodes,
            "hidden_dim": hidden_dim,
            "embedding_dim": embedding_dim,
            "num_layers": num_layers,
            "learning_rate": learning_rate,
            "num_epochs": num_epochs,
            "edge_batch_size": edge_batch_size,
            "seed": seed,
            "edges_file": str(edges_csv),
            "limit_nodes": limit_nodes,
            "include_node_types": include_node_types and list(include_node_types),
            "relations": graph.relations,
            "node_types": graph.node_type_names,
        },
        nodes=graph.nodes,
        history=history,
    )
    saved_nodes = write_embeddings(output, graph.nodes, embeddings)
    stats = EmbeddingStats(
        model="graphsage",
        num_nodes=graph.num_nodes,
        num_edges=graph.num_edges,
        num_relations=len(graph.relations),
        num_edge_types=len(graph.edge_types),
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_epochs=num_epochs,
        device=str(place),
        seed=seed,
        seconds_read=seconds_read,
        seconds_train=seconds_train,
        seconds_inference=seconds_inference,
        seconds_write=time.perf_counter() - start,
        predicted_memory_gib=predicted / GIB,
        peak_memory_gib=peak_memory_bytes() / GIB,
        final_loss=history[-1]["loss"],
        output_file=str(output),
        model_dir=str(directory),
        saved_nodes=saved_nodes,
        collapse=collapse,
        read_report=graph.report.to_dict(),
    ).to_dict()
    save_record(directory / "stats.json", stats)
    progress.milestone(f"Wrote {saved_nodes:,} nodes to {output} and the model to {directory}")
    return stats


def _train(
    model: GraphSage,
    decoder: DistMult,
    graph: KnowledgeGraph,
    num_epochs: int,
    learning_rate: float,
    edge_batch_size: int,
    seed: int,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train in place; returns epoch, loss and seconds of each epoch."""
    place = model.node_embedding.device
    hidden = full_block(graph.to(place))
    optimizer = torch.optim.Adam(
        [*model.parameters(), *decoder.parameters()], lr=learning_rate, fused=True
    )
    sampler = EdgeSampler(graph, seed)
    history: list[dict[str, float]] = []
    with progress.bar("Training", num_epochs) as advance:
        for epoch in range(1, num_epochs + 1):
            start = time.perf_counter()
            batch = sampler.sample(edge_batch_size)
            target = row_block(graph, batch.rows, place)
            z = model(hidden, target)
            loss = link_prediction_loss(decoder, z, batch.to(place))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()  # to None: gradients do not lie beside the next forward pass
            value = loss.item()
            if not math.isfinite(value):
                raise InputError(
                    f"learning_rate (got {learning_rate}) is too high: "
                    f"the loss of epoch {epoch} is {value}"
                )
            del z, loss, target
            empty_cache(place)
            history.append({"epoch": epoch, "loss": value, "seconds": time.perf_counter() - start})
            advance(f"loss {value:.4f}")
    return history
