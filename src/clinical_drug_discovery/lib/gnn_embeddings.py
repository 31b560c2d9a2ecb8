"""GraphSAGE embeddings of a knowledge graph: the parameters; `embed_model` has the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..graph.knowledge_graph import KnowledgeGraph
from ..graph.source import EdgesPath, ReadSettings, Source
from ..graph.vocabulary import VocabularyChoice
from ..models.kinds.graphsage import SageSettings
from ..system.arguments import plain_arguments
from ..system.log import part
from ..system.processes import alone
from ..training.hooks import EpochHook
from .embed_model import embed_graph


@plain_arguments
@alone()
@part("Embedding with GraphSAGE")
def generate_gnn_embeddings(
    edges_csv: EdgesPath | KnowledgeGraph,
    output_csv: str | Path | None,
    embedding_dim: int = 512,
    hidden_dim: int = 256,
    num_layers: int = 3,
    num_epochs: int = 100,
    learning_rate: float = 0.01,
    device: str | None = None,
    edge_batch_size: int = 10_000,
    *,
    nodes: str | Path | None = None,
    training: str = "full",
    subgraph_size: int | None = None,
    subgraphs_per_step: int | None = None,
    drug_type: str | None = None,
    disease_type: str | None = None,
    treats: Sequence[str] | None = None,
    contraindicates: Sequence[str] | None = None,
    limit_nodes: int | None = None,
    include_node_types: Sequence[str] | None = None,
    exclude_relations: Sequence[str] | None = None,
    on_conflict: str = "error",
    on_missing: str = "error",
    max_unpacked_gib: float | None = None,
    seed: int = 0,
    memory_budget: str | int | None = None,
    scratch_dir: str | Path | None = None,
    model_dir: str | Path | None = None,
    init_from: str | Path | None = None,
    chunk_size: int | None = None,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    ranker: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_minutes: float = 5.0,
    tracker: str | None = None,
    on_epoch: EpochHook | None = None,
) -> dict[str, Any]:
    """Embed all nodes of a knowledge graph with GraphSAGE.

    The model ("Inductive Representation Learning on Large Graphs", arXiv:1706.02216) is trained to
    predict links: for each sampled fact (a positive), the target must score higher than random
    nodes of its type that do not form a known fact with the source. Drugs and diseases that a short
    walk joins must be close, and a disease must find its known drugs by similar diseases and drugs.
    After training, all nodes are embedded. See `models.sage.GraphSage` for the formulas, and
    `ops.listwise` and `training.objective` for the losses.

    Args:
        edges_csv: knowledge graph in any format of the page "Formats", such as PrimeKG's kg.csv; a
            folder, or - for the standard input. Several files are read as parts of one graph. In
            Python also a graph in memory.
        output_csv: file to write the embeddings to: .csv, .parquet or .npy (with an index file
            in the same directory). In Python also None: nothing is written, and no drug ranker is
            fitted.
        embedding_dim: number of dimensions of an embedding.
        hidden_dim: width of the hidden layers and of each node's learned input vector.
        num_layers: number of layers. An embedding depends on neighbors up to this many
            steps away.
        num_epochs: number of epochs.
        learning_rate: learning rate of Adam in the first step; cosine decay lowers it to almost 0.
            That of the input vectors is higher in fewer than 100 steps, by up to ten times.
        device: cuda, mps or cpu (default: cuda if available, else mps if `cdd doctor --try mps` has
            passed on this machine, else cpu).
        edge_batch_size: number of positives in the loss of an epoch. A graph of fewer than 50,000
            directed edges has at most a quarter of its edges as positives, or 1,024.
        nodes: node table, for formats that keep the nodes in a file of their own.
        training: full or sampled. full: each step uses the whole graph, and an epoch is one step.
            sampled: each step uses a subgraph around the positives, without the positives' edges.
        subgraph_size: only for training sampled: number of nodes in each subgraph (default 20,000).
            An epoch has num_nodes / (subgraph_size * subgraphs_per_step) steps.
        subgraphs_per_step: only for training sampled: number of subgraphs whose gradients a step
            averages (default 1; with torchrun, the number of processes, which must divide it).
        drug_type: node type of the drugs. This and the next words are recognized by default, if
            the graph has the names of PrimeKG, OptimusKG, Hetionet, DRKG or Biolink.
        disease_type: node type of the diseases.
        treats: relations between drugs and diseases that mean a treatment; the first one means a
            recorded indication.
        contraindicates: relations between drugs and diseases that mean a contraindication.
        limit_nodes: keep at most this many nodes in all: the same fraction of every node type,
            namely the nodes with the most edges.
        include_node_types: keep only nodes of these types.
        exclude_relations: leave out the facts of these relations.
        on_conflict: error or first: what to do if a node has two names, types or numbers. error:
            stop and list such nodes. first: keep those of the node's first row.
        on_missing: error or drop: what to do if a row lacks a field. error: stop and list such
            rows. drop: leave them out, and count them.
        max_unpacked_gib: largest size of a compressed file after decompression, in GiB (default:
            200 times its size, but at least 0.25 and at most 64).
        seed: seed of the initial weights and of all sampling.
        memory_budget: largest peak memory of the process, such as 4GiB (default: 70% of the free
            memory).
        scratch_dir: directory on a disk for the rows of the graph while it is read, the vectors,
            the moments of Adam and the outputs of layers, if they do not fit the budget. The result
            has the same bytes, but takes longer. The files are gone at the end, also after a crash
            (default: keep everything in memory).
        model_dir: directory to write the model to (default: NAME_model beside the output NAME).
        init_from: model directory of an earlier model of the same kind and sizes, such as that of
            the previous release of the graph. The new model starts from its weights and vectors;
            new nodes start near their neighbors (default: start from the beginning).
        chunk_size: number of nodes that inference embeds at a time. A smaller number takes less
            memory and more time, and is rounded up to a multiple of 1,024. On the CPU, the result
            does not depend on it (default: a number that fits the budget; more than 32,768 only
            if that does not raise the peak of the run).
        cache: save the graph in a file that later runs read faster, until the edges file changes.
        cache_dir: directory of this file (default: the user's cache directory, see `cdd cache`).
        ranker: fit the drug ranker for `cdd rank`, if the graph has known treatments.
        overwrite: replace the files of an earlier run; without it, such files are an error.
        resume: continue an earlier run from its last checkpoint. Give the same parameters; only
            num_epochs may be larger. Without a checkpoint, start from the beginning.
        checkpoint_minutes: time between two checkpoints; 0 saves one after every step, 1000000 only
            one at the end, which takes less disk space.
        tracker: tensorboard, mlflow or wandb: also send the figures of each epoch to this program.
        on_epoch: function that gets the row of each epoch, such as `{"epoch": 3, "loss": 1.2}`. If
            it returns True or "stop", the training ends after this epoch.

    Returns:
        The fields of `EmbeddingStats`: sizes, settings, times in seconds, memory in GiB, final
        loss, warnings and the paths of the files. If output_csv is None, also nodes (a polars
        DataFrame of N rows) and embeddings (a float32 array of shape (N, embedding_dim), in the
        order of nodes).

    Raises:
        InputError: a parameter or the file is invalid, the run does not fit memory_budget, or the
            loss diverges. The run has then written the cached graph and checkpoints at most.
        WriteError: the results cannot be written; the message says where they are. It is an
            InputError, too.

    Example:
        >>> stats = cdd.generate_gnn_embeddings(
        ...     path, "gnn.parquet", hidden_dim=16, embedding_dim=16, num_epochs=2, ranker=False
        ... )
        >>> stats["saved_nodes"], stats["embedding_dim"]  # of the sample graph
        (820, 16)
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
        subgraphs_per_step=subgraphs_per_step,
    )
    words = VocabularyChoice(
        drug_type=drug_type,
        disease_type=disease_type,
        treats=treats,
        contraindicates=contraindicates,
    )
    reading = ReadSettings(
        include_node_types=include_node_types,
        limit_nodes=limit_nodes,
        exclude_relations=exclude_relations,
        on_conflict=on_conflict,
        on_missing=on_missing,
        max_unpacked_gib=max_unpacked_gib,
    )
    return embed_graph(
        settings, words, reading, Source.of(edges_csv, nodes), output_csv, device=device, seed=seed,
        memory_budget=memory_budget, scratch_dir=scratch_dir, model_dir=model_dir,
        init_from=init_from, chunk_size=chunk_size, cache=cache, cache_dir=cache_dir, ranker=ranker,
        overwrite=overwrite, resume=resume, checkpoint_minutes=checkpoint_minutes,
        tracker=tracker, on_epoch=on_epoch,
    )  # fmt: skip
