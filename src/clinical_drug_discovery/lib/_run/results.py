"""What a run of a public function leaves behind: a ranker of drugs, the model, the embeddings.

The record that both public functions return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.lib._run.model_dir import save_model, write_ranker
from clinical_drug_discovery.models.embeddings_file import write_embeddings
from clinical_drug_discovery.ranking.bilinear_score import NetworkScores
from clinical_drug_discovery.ranking.drug_ranker import DrugRanker, fit_drug_ranker, why_no_ranker
from clinical_drug_discovery.system.files import save_record
from clinical_drug_discovery.system.machine import GIB, empty_cache, peak_memory_bytes
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.step import Trained


def fit_ranker_of(
    run: Run, graph: KnowledgeGraph, trained: Trained, wanted: bool, seed: int
) -> DrugRanker | None:
    """Fit the ranker that `cdd rank` will use; None, said aloud, if the graph gives nothing for it.

    Args:
        run: takes the time and the warning.
        graph: on the CPU.
        trained: the model on the graph.
        wanted: whether to fit one at all.
        seed: of the fit.
    """
    with run.timed("rank_fit"):
        if not wanted:
            return None
        why = why_no_ranker(graph)
        if why is not None:
            run.warn(f"no ranker of drugs was fitted, cdd rank will refuse this model: {why}")
            return None
        run.progress.milestone(
            "Fitting the ranker of drugs on paths in the graph and on embeddings"
        )
        empty_cache(run.device)  # what the training used is then there for the fit
        network = NetworkScores(trained.embeddings, trained.decoder)
        ranker = fit_drug_ranker(graph, network=network, seed=seed)
        run.peak.sample()
        empty_cache(run.device)
    return ranker


def write_results(
    run: Run,
    graph: KnowledgeGraph,
    trained: Trained,
    ranker: DrugRanker | None,
    seed: int,
    limit_nodes: int | None,
    include_node_types: Sequence[str] | None,
) -> dict[str, Any]:
    """Write the model, the embeddings and the record; returns the record.

    Args:
        run: says where to.
        graph: what was embedded.
        trained: the model of it.
        ranker: see `fit_ranker_of`.
        seed: what it was trained with.
        limit_nodes: what the graph was read with.
        include_node_types: what the graph was read with.
    """
    parameters = {
        **trained.parameters,
        "limit_nodes": limit_nodes,
        "include_node_types": include_node_types and list(include_node_types),
        "seed": seed,
    }
    with run.timed("write"):
        save_model(
            run.model_dir,
            weights={
                f"{name}.{key}": tensor
                for name, module in (("model", trained.model), ("decoder", trained.decoder))
                for key, tensor in module.state_dict().items()
            },
            config={
                **parameters,
                "edges_file": str(run.edges),
                "num_nodes": graph.num_nodes,
                "node_types": graph.node_type_names,
                "type_ptr": graph.type_ptr.tolist(),
                "relations": graph.relations,
                "edge_types": graph.edge_types,
            },
            nodes=graph.nodes,
            history=trained.history,
        )
        write_ranker(run.model_dir, graph, ranker)
        saved_nodes = write_embeddings(run.output, graph.nodes, trained.embeddings)
    device_peak = run.peak.num_bytes()
    names = (
        "model",
        "embedding_dim",
        "hidden_dim",
        "num_layers",
        "num_epochs",
        "training",
        "bfloat16",
        "seed",
    )
    known: dict[str, Any] = {name: parameters[name] for name in names}
    known |= run.seconds
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
        predicted_memory_gib=trained.predicted_memory / GIB,
        collapse=trained.collapse,
        similarity=trained.similarity,
    ).to_dict()
    save_record(run.model_dir / "stats.json", stats)
    run.progress.milestone(
        f"Wrote {saved_nodes:,} nodes to {run.output} and the model to {run.model_dir}"
    )
    return stats


@dataclass(frozen=True)
class EmbeddingStats:
    """What was done, with what, how long it took and how it came out."""

    model: str  #: "graphsage" or "hgt"
    num_nodes: int
    num_edges: int  #: directed; every fact counts twice
    num_relations: int  #: distinct relation names
    num_edge_types: int  #: distinct (source type, relation, target type)
    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_epochs: int
    training: str  #: "full" or "sampled"
    device: str
    bfloat16: bool  #: whether it was asked for; a CPU's kernels take it without
    seed: int
    seconds_read: float
    seconds_train: float
    seconds_inference: float  #: all nodes embedded
    seconds_collapse: float  #: all embeddings looked at, for `collapse`
    seconds_rank_fit: float  #: the ranker of drugs fitted; 0 without one
    seconds_write: float
    predicted_memory_gib: float  #: of the process, from the plan, before training
    peak_memory_gib: float  #: highest resident size of the process so far, libraries included
    device_memory_gib: float | None  #: the most that the GPU's allocator held; None on the CPU
    #: where that is from: "reported" by torch, the highest of "samples" taken, or "none"
    device_memory_source: str
    final_loss: float  #: of the last epoch
    #: of HGT on a graph with diseases and genes: num_pairs (alike, that the contrastive term draws
    #: from), num_held_out_nodes, num_held_out_pairs (with at least one such node) and spearman (of
    #: gene Jaccard and cosine over these pairs; None where it has no value)
    similarity: dict[str, float | int | None] | None
    output_file: str
    model_dir: str
    saved_nodes: int  #: rows in output_file
    collapse: dict[str, dict[str, float | None]]  #: per node type: mean_cosine, effective_rank
    warnings: list[str]  #: collapsed node types, parts of the loss that the graph has no facts for
    read_report: dict[str, Any]  #: what the file held: rows, duplicates, self-loops, spelling, ...

    def to_dict(self) -> dict[str, Any]:
        """The record as plain Python, ready for JSON."""
        return asdict(self)
