"""TODO."""

from __future__ import annotations

import math
from dataclasses import replace

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ops.backend import uses_kernels
from clinical_drug_discovery.ranking.drug_ranker import rank_fit_bytes
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.machine import GIB, limit_memory, parse_memory
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training.batches import SAMPLED, SUBGRAPH_SIZE
from clinical_drug_discovery.training.compile_kernels import prepare_kernels
from clinical_drug_discovery.training.memory_plan import AnyPlan, fit_plan, plan_for

_BATCH_ROOM = 1.1  # times the nodes of a batch that are expected, for those that have more


def plan_memory(
    run: Run,
    graph: KnowledgeGraph,
    plan: AnyPlan,
    memory_budget: str | int | None,
    chunk_size: int | None,
    ranker: bool,
) -> tuple[int, int]:
    """Choose what the budget leaves to choose, say the predicted peak, or refuse.

    Returns:
        The chunk size of inference and the predicted peak in bytes.
    """
    if plan.training == SAMPLED:
        _check_part(plan.num_rows(), plan.subgraph_size or SUBGRAPH_SIZE, plan.graph.num_nodes)
    if uses_kernels(run.device):
        prepare_kernels(run.progress.milestone)
    plan = replace(
        plan_for(plan, run.device),
        chunk_size=chunk_size or plan.chunk_size,
        rank_fit=rank_fit_bytes(graph) if ranker else 0,
    )
    fitted, predicted = fit_plan(plan, memory_budget, choose_chunk_size=chunk_size is None)
    if memory_budget is not None:
        limit_memory(run.device, parse_memory(memory_budget))
    run.progress.milestone(
        f"Predicted peak memory: {predicted / GIB:.2f} GiB, {fitted.chunk_size:,} nodes embedded "
        "at a time"
    )
    return fitted.chunk_size, predicted


def _check_part(num_rows: int, subgraph_size: int, num_nodes: int) -> None:
    """Refuse parts that batches would hardly fit, before anything is trained."""
    wanted = math.ceil(num_rows * _BATCH_ROOM)
    if subgraph_size < min(wanted, num_nodes):
        raise InputError(
            f"subgraph_size (got {subgraph_size:,}) must be at least {wanted:,}: a step's facts "
            f"and candidates have about {num_rows:,} nodes; fewer facts (edge_batch_size, "
            "edge_sample_size) help, and larger parts, though steps then are fewer, of more facts"
        )
