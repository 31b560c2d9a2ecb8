"""The record that both public functions return."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
