"""A run that writes nothing: the caller gets the embeddings."""

from __future__ import annotations

from typing import Any

from ...evaluation.embedding_probe import probe_embeddings
from ...graph.knowledge_graph import KnowledgeGraph
from ...models.inference import embed_nodes
from ...models.warm_start import WarmStart
from ...ops.buffers import used_again
from ...system.machine import GIB, one_thread, peak_memory_bytes
from ...system.progress import Run
from ...training.compile_kernels import Compilation, compile_kernels
from ...training.hooks import EpochHook, hooks
from ...training.memory_plan import Plan
from ...training.train import train
from .._run.results import record_of


def embed_in_memory(
    run: Run,
    graph: KnowledgeGraph,
    plan: Plan,
    kernels: Compilation | None,
    start: WarmStart | None,
    *,
    seed: int,
    on_epoch: EpochHook | None,
    tracker: str | None,
) -> dict[str, Any]:
    """Train and embed, and return the record of the run with the nodes and the embeddings.

    Args:
        run: a run without output.
        graph: on the CPU.
        plan: provides the settings and the backend.
        kernels: the compilation that has begun, if any.
        start: the earlier model that the run starts from; None: it starts from the beginning.
        seed: seed of the run.
        on_epoch: see `training.hooks.hooks`.
        tracker: see `training.hooks.hooks`.

    Returns:
        The fields of `EmbeddingStats`, with empty paths; nodes, the node table of the graph; and
        embeddings, an array of shape (N, D) in the order of the nodes.
    """
    compile_kernels(run, plan.backend, plan.settings.model, kernels)
    with (
        one_thread(plan.is_small), used_again(),
        hooks(run, plan.settings, on_epoch, tracker) as after_epoch,
    ):  # fmt: skip
        trained = train(run, graph, plan.settings, plan, seed, None, after_epoch, start)
        embeddings, collapse = embed_nodes(
            run, trained.model, trained.graph, plan.chunk_size, plan.backend
        )
    if run.group.rank:
        return {}
    with run.timed("probe"):
        probe = probe_embeddings(graph, embeddings, seed=seed)
    run.seconds["seconds_rank_fit"] = run.seconds["seconds_write"] = 0.0
    found = record_of(run, graph, plan, trained, embeddings)
    return {
        **found,
        **run.seconds,
        "output_file": "",
        "model_dir": "",
        "collapse": collapse,
        "probe": probe,
        "seed": seed,
        "peak_memory_gib": peak_memory_bytes() / GIB,
        "nodes": graph.nodes,
        "embeddings": embeddings.numpy(),
    }
