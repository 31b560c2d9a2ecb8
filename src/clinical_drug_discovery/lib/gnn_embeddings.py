"""GraphSAGE embeddings of a knowledge graph: read, train, embed, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinical_drug_discovery.lib._run.results import fit_ranker_of, write_results
from clinical_drug_discovery.lib._run.start import check_rest, read_edges, start_run
from clinical_drug_discovery.training.settings import SageSettings
from clinical_drug_discovery.training.train_sage import train_sage


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
    training: str = "full",
    subgraph_size: int | None = None,
    limit_nodes: int | None = None,
    include_node_types: Sequence[str] | None = None,
    seed: int = 0,
    memory_budget: str | int | None = None,
    model_dir: str | Path | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    ranker: bool = True,
    bfloat16: bool = False,
) -> dict[str, Any]:
    """Embed all nodes of a knowledge graph with GraphSAGE, trained on all of it or on parts.

    Each epoch is one step of Adam, or several on parts of the graph: a forward pass, and the loss
    of telling the targets of sampled facts from nodes of the same type that make no known fact. The
    embeddings are then computed exactly, layer by layer, for all nodes. See `sage.GraphSage` for
    the model and the paper, `ops.listwise_loss` for the loss.

    Args:
        edges_csv: knowledge graph in PrimeKG's columns: .csv, .csv.gz, .csv.zst or .parquet.
        output_csv: where to write the embeddings: .csv, .parquet or .npy (with an index beside it).
        embedding_dim: length of an embedding.
        hidden_dim: width of the hidden layers and of the learned vector of each node.
        num_layers: number of GraphSAGE layers; an embedding sees as many steps around its node.
        num_epochs: how often the graph is gone over in training.
        learning_rate: step size of Adam in the first step; it falls to nothing in a half wave.
        device: mps, cuda or cpu; the first of these that is available if left out.
        edge_batch_size: facts in the loss of an epoch.
        training: full, each step over the whole graph; or sampled, an epoch in several steps, each
            over a part of it: the nodes of the step's share of the facts and of their candidates,
            neighbours of these, and all edges among them but those facts themselves.
        subgraph_size: sampled: nodes of such a part, 20,000 if left out; an epoch has as many steps
            as parts of this size have as many nodes as the graph.
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
        bfloat16: on cuda, store the rows that edges gather in bfloat16 and multiply matrices in it;
            weights, sums and gradients stay float32. No use on a cpu, which does so without being
            asked, and not offered on mps, where nobody has measured it.

    Returns:
        The fields of `stats.EmbeddingStats`.

    Raises:
        InputError: a parameter or the file breaks a rule; at most the cached graph is written then.
    """
    settings = SageSettings(
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        num_layers=num_layers,
        num_epochs=num_epochs,
        learning_rate=learning_rate,
        edge_batch_size=edge_batch_size,
        training=training,
        subgraph_size=subgraph_size,
        bfloat16=bfloat16,
    )
    settings.check()
    check_rest(chunk_size=chunk_size, seed=seed)
    run = start_run(edges_csv, output_csv, model_dir, device, learning_rate, bfloat16)
    graph = read_edges(run, include_node_types, limit_nodes, cache, cache_dir)
    trained = train_sage(
        run,
        graph,
        settings,
        seed=seed,
        memory_budget=memory_budget,
        chunk_size=chunk_size,
        ranker=ranker,
    )
    fitted = fit_ranker_of(run, graph, trained, ranker, seed)
    return write_results(run, graph, trained, fitted, seed, limit_nodes, include_node_types)
