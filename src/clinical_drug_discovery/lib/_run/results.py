"""The end of a run: the fit of the drug ranker, the files, and the record of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ...graph.knowledge_graph import KnowledgeGraph
from ...models.collapse import Collapse
from ...models.embeddings_file import write_embeddings
from ...ranking.bilinear_score import GnnScores
from ...ranking.drug_ranker import DrugRanker, fit_drug_ranker, why_no_ranker
from ...system.files import save_record
from ...system.machine import GIB, empty_cache, peak_memory_bytes
from ...system.progress import Run
from ...training.disease_pairs import PairSampler, similarity_spearman
from ...training.memory_plan import Plan
from ...training.train import Trained
from .model_dir import save_model, write_ranker


def fit_ranker(
    run: Run, graph: KnowledgeGraph, trained: Trained, embeddings: Tensor, wanted: bool, seed: int
) -> DrugRanker | None:
    """Fit the ranker that `cdd rank` uses.

    Args:
        run: collects times and warnings.
        graph: on the CPU.
        trained: the model.
        embeddings: shape (N, D), of all nodes, on the CPU.
        wanted: False returns None.
        seed: of the fit.

    Returns:
        The ranker; None, with a warning, if the graph has too few known treatments.
    """
    with run.timed("rank_fit"):
        if not wanted:
            return None
        why = why_no_ranker(graph)
        if why is not None:
            run.warn(f"no drug ranker was fitted, so cdd rank will refuse this model: {why}")
            return None
        run.progress.milestone("Fitting the drug ranker on paths in the graph and on embeddings")
        empty_cache(run.device)  # the memory of the training is then free for the fit
        gnn = GnnScores(embeddings, trained.decoder)
        ranker = fit_drug_ranker(graph, gnn=gnn, seed=seed)
        run.peak.sample()
        empty_cache(run.device)
    return ranker


def write_results(
    run: Run,
    graph: KnowledgeGraph,
    plan: Plan,
    trained: Trained,
    embeddings: Tensor,
    collapse: Collapse,
    ranker: DrugRanker | None,
    *,
    seed: int,
    limit_nodes: int | None,
    include_node_types: Sequence[str] | None,
) -> dict[str, Any]:
    """Write the model, the embeddings and the record; return the record.

    Args:
        run: has the paths.
        graph: that was embedded, on the CPU.
        plan: has the settings and the predicted peak.
        trained: the model.
        embeddings: shape (N, D), of all nodes, on the CPU.
        collapse: figures of these embeddings by node type.
        ranker: from `fit_ranker`.
        seed: of the run.
        limit_nodes: filter that the graph was read with.
        include_node_types: filter that the graph was read with.
    """
    parameters = {
        "model": plan.settings.model,
        **asdict(plan.settings),
        "limit_nodes": limit_nodes,
        "include_node_types": include_node_types and list(include_node_types),
        "seed": seed,
    }
    with run.timed("write"):
        save_model(run, graph, trained, parameters)
        write_ranker(run.model_dir, graph, ranker)
        saved_nodes = write_embeddings(run.output, graph.nodes, embeddings)
    device_peak = run.peak.num_bytes()
    names = (
        "model", "embedding_dim", "hidden_dim", "num_layers", "num_epochs", "training", "seed"
    )  # fmt: skip
    known: dict[str, Any] = {**{name: parameters[name] for name in names}, **run.seconds}
    stats = EmbeddingStats(
        **known,
        num_nodes=graph.num_nodes,
        num_edges=graph.num_edges,
        num_relations=len(graph.relations),
        num_edge_types=len(graph.edge_types),
        device=str(run.device),
        peak_memory_gib=peak_memory_bytes() / GIB,
        device_memory_gib=None if device_peak is None else device_peak / GIB,
        device_memory_source=run.peak.source,
        final_loss=trained.history[-1]["loss"],
        output_file=str(run.output),
        model_dir=str(run.model_dir),
        saved_nodes=saved_nodes,
        warnings=run.warnings,
        read_report=graph.report.to_dict(),
        predicted_memory_gib=plan.predicted_bytes / GIB,
        collapse=collapse,
        similarity=_similarity(trained.pairs, embeddings),
    )
    record = asdict(stats)
    save_record(run.model_dir / "stats.json", record)
    run.progress.milestone(
        f"Wrote {saved_nodes:,} nodes to {run.output} and the model to {run.model_dir}"
    )
    return record


def _similarity(
    pairs: PairSampler | None, embeddings: Tensor
) -> dict[str, float | int | None] | None:
    """Return the figures of `EmbeddingStats.similarity`."""
    if pairs is None:
        return None
    return {
        "num_pairs": pairs.num_pairs,
        "num_held_out_nodes": pairs.num_held_out_nodes,
        "num_held_out_pairs": len(pairs.held_out.a),
        "spearman": similarity_spearman(embeddings, pairs.held_out),
    }


@dataclass(frozen=True)
class EmbeddingStats:
    """The record of a run: its sizes, settings, times, memory and results."""

    model: str  #: "graphsage" or "hgt"
    num_nodes: int
    num_edges: int  #: directed edges; every fact counts twice
    num_relations: int  #: distinct relation names
    num_edge_types: int  #: distinct (source type, relation, target type)
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    training: str  #: "full" or "sampled"
    device: str
    seed: int
    seconds_read: float
    seconds_compile: float  #: compilation of the CPU kernels; 0 if nothing was compiled
    seconds_train: float
    seconds_inference: float  #: embedding all nodes
    seconds_collapse: float  #: collapse check of all embeddings
    seconds_rank_fit: float  #: fit of the drug ranker; 0 without one
    seconds_write: float
    predicted_memory_gib: float  #: peak of the process, predicted before the training
    peak_memory_gib: float  #: peak resident size of the process so far, libraries included
    device_memory_gib: float | None  #: peak of the GPU's allocator; None on the CPU
    #: source of device_memory_gib: "reported" by torch, maximum of "samples", or "none"
    device_memory_source: str
    final_loss: float  #: of the last epoch
    #: HGT on a graph with diseases and genes: num_pairs (similar diseases in the training),
    #: num_held_out_nodes, num_held_out_pairs (pairs with such a node) and spearman (rank
    #: correlation of gene Jaccard index and cosine over these pairs; None if it is undefined)
    similarity: dict[str, float | int | None] | None
    output_file: str
    model_dir: str
    saved_nodes: int  #: rows in output_file
    collapse: dict[str, dict[str, float | None]]  #: per node type: mean_cosine, effective_rank
    warnings: list[str]  #: collapsed node types, and parts of the loss that the graph cannot have
    read_report: dict[str, Any]  #: what the file held: rows, duplicates, self-loops, spelling, ...
