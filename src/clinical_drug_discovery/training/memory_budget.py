"""The fit of a memory plan to the budget of a run, and what a run that does not fit can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..graph.knowledge_graph import KnowledgeGraph
from ..models.kinds.interface import FULL, SAMPLED, Settings
from ..ops.backend import BLOCK_ROWS
from ..system.errors import DoesNotFitError, InputError
from ..system.limits.memory import available_memory, parse_memory, sufficient_gib
from ..system.machine import GIB, anonymous_bytes, held_bytes, limit_memory, peak_memory_bytes
from ..system.progress import Run
from .graph_sizes import GraphSizes
from .memory_plan import CHUNK_SIZES, FILE_CHUNK_SIZES, LARGE_CHUNK_SIZES, Plan, plan_for
from .objective.disease_pairs import compared_by_genes, most_sharing_pairs

_PAGE = 4096  # least number of bytes that are read from a file
#: Largest part of the predicted peak that large chunks may take. The prediction of inference is
#: closer to the measured bytes than that of training: with 0.96, GraphSAGE took 0.1 GiB more.
_INFERENCE_SHARE = 0.9
_BATCH_ROOM = 1.1  # largest number of nodes of a batch / expected number of nodes


def plan_training(
    run: Run,
    graph: KnowledgeGraph,
    settings: Settings,
    memory_budget: str | int | None,
    chunk_size: int | None,
    rank_fit: int,
    scratch_dir: Path | None = None,
) -> Plan:
    """Make the plan of a run and log it; apply an explicit memory budget to the GPU as well.

    Args:
        run: provides the device and the log.
        graph: on the CPU.
        settings: already checked.
        memory_budget: see `parse_memory`.
        chunk_size: number of nodes that inference embeds at a time, rounded up to a multiple of
            `BLOCK_ROWS`; None: the largest that fits.
        rank_fit: bytes that the fit of the drug ranker takes; 0 without a ranker.
        scratch_dir: directory for large arrays, which is used if the run does not fit without it.

    Raises:
        InputError: the memory budget or the subgraph size is too small for the run.
    """
    plan = replace(plan_for(GraphSizes.of(graph), settings, run.device), group=run.group)
    _check_subgraph_size(plan)
    if chunk_size is not None:  # as inference rounds it
        plan = replace(plan, chunk_size=-(-chunk_size // BLOCK_ROWS) * BLOCK_ROWS)
    plan = replace(plan, rank_fit=rank_fit if run.group.rank == 0 else 0)
    if settings.contrast is not None:
        sharing = most_sharing_pairs(graph, **compared_by_genes(graph))
        plan = replace(plan, num_sharing=sharing)
    plan = fit_plan(
        plan, memory_budget, choose_chunk_size=chunk_size is None, scratch_dir=scratch_dir
    )
    if memory_budget is not None:
        limit_memory(run.device, parse_memory(memory_budget))
    run.progress.milestone(_describe_backend(plan))
    first, *others = run.group.gather(plan.predicted_bytes)
    of_others = f" in the first process, {max(others) / GIB:.2f} GiB in others" if others else ""
    run.progress.milestone(
        f"Predicted peak memory: {first / GIB:.2f} GiB{of_others}; inference embeds "
        f"{plan.chunk_size:,} nodes at a time"
    )
    if scratch_dir is not None:
        use = "not needed, since everything fits into memory"
        if plan.scratch_dir is not None:
            use = f"up to {plan.file_bytes / GIB:.2f} GiB for vectors, moments of Adam and layers"
        run.progress.milestone(f"Scratch directory {scratch_dir}: {use}{_traffic(plan)}")
    return plan


def _traffic(plan: Plan) -> str:
    """Return the most bytes that steps on subgraphs move from and to files, if there are any."""
    if plan.scratch_dir is None or plan.settings.training == FULL:
        return ""
    width = 16 * plan.settings.hidden_dim  # of a record, see `LazyAdam`
    pages = -(-width // _PAGE) + (_PAGE % width > 0 and width % _PAGE > 0)
    rows = min(plan.step_nodes * pages * _PAGE, width * plan.graph.num_nodes)
    moved = 2 * plan.num_parts * rows  # records are read and written
    return f"; an epoch moves at most {moved / GIB:.2f} GiB"


def _describe_backend(plan: Plan) -> str:
    """Return a line that names the operations of the run."""
    size = f"graph ({plan.graph.num_edges:,} edges)"
    if plan.is_small:
        return f"Small {size}: torch's own operations on one thread, nothing to compile"
    return f"Large {size}: {'torch operations' if plan.edge_chunk else 'compiled CPU kernels'}"


def _check_subgraph_size(plan: Plan) -> None:
    """Check that a subgraph has room for the nodes of a batch."""
    least = math.ceil(plan.num_rows * _BATCH_ROOM)
    if plan.step_nodes < min(least, plan.graph.num_nodes):
        raise InputError(
            f"subgraph_size (got {plan.step_nodes:,}) must be at least {least:,}: the positives "
            f"and candidates of a step have about {plan.num_rows:,} nodes, at most 10% more. "
            "Use a larger subgraph_size, or fewer positives (edge_batch_size or edge_sample_size)"
        )


def fit_plan(
    plan: Plan,
    memory_budget: str | int | None,
    *,
    choose_chunk_size: bool,
    is_read: bool = True,
    scratch_dir: Path | None = None,
) -> Plan:
    """Choose the chunk size of inference so that the predicted peak fits the budget.

    Args:
        plan: its `predicted_bytes` are ignored.
        memory_budget: see `parse_memory`.
        choose_chunk_size: use the largest of `CHUNK_SIZES` that fits, or of `LARGE_CHUNK_SIZES`
            that does not raise the peak of the run; not that of the plan.
        is_read: the graph is in memory already; False: count what it takes, and its reading.
        scratch_dir: takes the large arrays if no chunk size fits without it; None: do not use one.

    Returns:
        The plan with the chunk size, the scratch directory if it is used, and the predicted peak.

    Raises:
        DoesNotFitError: the peak is above the budget. The message lists settings that need less.
    """
    budget = parse_memory(memory_budget)
    if memory_budget is None:
        # The processes of a machine share its free memory, which does not include what they use.
        budget = budget // plan.group.local_size + held_bytes()
    start = _Start.of(plan.graph, is_read)
    choices: list[tuple[Path | None, Sequence[int]]] = [(None, CHUNK_SIZES)]
    if scratch_dir is not None:
        choices.append((scratch_dir, FILE_CHUNK_SIZES))
    for place, size in (
        (place, size)
        for place, sizes in choices
        for size in (sizes if choose_chunk_size else (plan.chunk_size,))
    ):
        fitted = replace(plan, scratch_dir=place, chunk_size=size)
        peak = start.peak(fitted)
        if peak <= budget:
            fitted = replace(fitted, predicted_bytes=peak)
            return _with_large_chunks(fitted, start) if choose_chunk_size else fitted
    limit = f"memory_budget (got {memory_budget!r}"
    if memory_budget is None:
        limit = f"the default memory_budget (70% of {available_memory().limit}"
    before = start.before[fitted.scratch_dir is not None]
    read = f" (reading the graph took {sufficient_gib(before)})" if before > budget else ""
    raise DoesNotFitError(
        f"{limit}, {budget / GIB:.2f} GiB) is too small: this run needs {sufficient_gib(peak)}"
        f"{read}. Single changes that lower this: {_what_helps(fitted, start, budget)}"
    )


def _with_large_chunks(plan: Plan, start: _Start) -> Plan:
    """Return the plan with the largest chunks of inference on a CPU that do not raise the peak."""
    most = _INFERENCE_SHARE * (plan.predicted_bytes - start.held[0])
    if plan.copies == 1 and plan.scratch_dir is None:
        for size in LARGE_CHUNK_SIZES:
            larger = replace(plan, chunk_size=size)
            if larger.inference_bytes <= most:
                return replace(larger, predicted_bytes=start.peak(larger))
    return plan


class _Start(NamedTuple):
    """The memory before the training, without (index 0) and with (1) large arrays in files.

    With files, the pages of files do not count, since the system can drop them. They may have been
    resident while the graph was read, so the measured peak does not count either: reading has a
    plan of its own (`graph.reading.room`).
    """

    held: tuple[int, int]  #: bytes in use when the training begins
    before: tuple[int, int]  #: the peak until then

    @staticmethod
    def of(graph: GraphSizes, is_read: bool) -> _Start:
        """Return the memory of this process; if the graph is not read yet, as it will be then."""
        held, own = held_bytes(), anonymous_bytes()
        if is_read:
            return _Start((held, own), (peak_memory_bytes(), own))
        return _Start(
            (held + graph.tensor_bytes + graph.names_bytes, own + graph.names_bytes),
            (
                max(peak_memory_bytes(), held + graph.reading_bytes),
                own + graph.reading_in_files_bytes,
            ),
        )

    def peak(self, plan: Plan) -> int:
        """Return the peak of the run, with reading."""
        in_files = plan.scratch_dir is not None
        return max(self.held[in_files] + plan.bytes_needed(), self.before[in_files])


def _what_helps(plan: Plan, start: _Start, budget: int) -> str:
    """Return the peak after each change that lowers it: numbers are halved or divided by four."""
    settings, options = plan.settings, []

    def consider(text: str, changed: Plan) -> None:
        with suppress(InputError):  # a change that is refused for another reason does not help
            _check_subgraph_size(changed)
            if (needed := start.peak(changed)) < start.peak(plan):
                enough = "" if needed <= budget else ", still above the budget"
                options.append(f"{text}: {sufficient_gib(needed)}{enough}")

    for name in ("hidden_dim", "num_layers", settings.positives.name, "embedding_dim"):
        unit = settings.hidden_unit if name == "hidden_dim" else 1
        least = max(unit, 1 if name == "num_layers" else 2)
        half, quarter = (
            replace(plan, settings=replace(settings, **{name: max(least, value // unit * unit)}))
            for value in (getattr(settings, name) // part for part in (2, 4))
        )
        changed = half if start.peak(half) <= budget else quarter
        consider(f"{name} {getattr(changed.settings, name)}", changed)
    if settings.training == FULL:
        sampled = replace(settings, training=SAMPLED)
        consider(f"training {SAMPLED}", replace(plan, settings=sampled))
    if plan.num_sharing and (needed := start.peak(replace(plan, num_sharing=0))) <= budget:
        options.append(
            f"disease_gene_relation gives {plan.num_sharing:,} pairs of diseases with a common gene"
            f", which is too many; without these pairs: {sufficient_gib(needed)}"
        )
    if plan.scratch_dir is None and plan.copies == 1 and plan.group.size == 1:
        consider("scratch_dir (cdd embed --scratch-dir)", replace(plan, scratch_dir=Path()))
    consider("without the ranker (--no-ranker)", replace(plan, rank_fit=0))
    return "; ".join([*options, "fewer nodes (limit_nodes)"])
