"""Fit the drug ranker of a saved model, later than the model or again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..graph.knowledge_graph import KnowledgeGraph
from ..ranking.drug_ranker import fit_drug_ranker, why_no_ranker
from ..ranking.fit_memory import rank_fit_bytes
from ..system.arguments import plain_arguments
from ..system.errors import DoesNotFitError, InputError
from ..system.files import save_record
from ..system.limits.memory import parse_memory, sufficient_gib
from ..system.log import milestone, part
from ..system.machine import GIB, held_bytes, peak_memory_bytes
from ..system.processes import alone, use_threads
from ..system.run_directory import locked
from ..system.untrusted.inputs import read_json
from ._run.model_dir import RANKER_FILE, STATS_FILE, add_ranker
from ._run.results import example_node
from ._run.saved_model import SavedModel

# bytes of libraries that the fit loads, and of freed memory that the C heap keeps for a while
_LIBRARIES = 190 * 2**20


@plain_arguments
@alone()
@part("Fitting the drug ranker")
def fit_model_ranker(
    model_dir: str | Path,
    *,
    embeddings: str | Path | None = None,
    memory_budget: str | int | None = None,
) -> dict[str, Any]:
    """Fit the drug ranker of a saved model, and replace an earlier ranker.

    This gives the ranker that `cdd embed` fits at the end of a run. It is useful after
    `--no-ranker`, or if the fit was stopped.

    Args:
        model_dir: model directory that `cdd embed` has written.
        embeddings: file with the model's embeddings (default: the file that the model's run wrote,
            beside the model directory).
        memory_budget: largest peak memory of the process, such as 4GiB (default: 70% of the free
            memory, or of what the limits on the process leave).

    Returns:
        A dict with model_dir, run (its id), seed (of the run and the fit), example_node (a disease
        to rank drugs for), seconds_rank_fit and peak_memory_gib.

    Raises:
        InputError: a file is missing or damaged, the files are of different runs, the graph has too
            few known treatments, the fit does not fit the memory budget, or another process writes
            to the directory. An earlier ranker stays in this case.

    Example:
        >>> from clinical_drug_discovery.lib.fit_ranker import fit_model_ranker
        >>> fit_model_ranker("embeddings_model")["seconds_rank_fit"]
    """
    use_threads()
    directory = Path(model_dir)
    if not directory.is_dir() and not directory.with_name(f"{directory.name}.run").is_dir():
        raise InputError(f"model_dir (got {model_dir}) must be a directory")
    with locked(directory):
        saved = SavedModel.read(directory, embeddings, with_ranker=False)
        if saved.embeddings is None:
            raise InputError(
                f"embeddings (got {embeddings}) must be the file that was written with the model: "
                f"it does not lie beside {directory}"
            )
        why = why_no_ranker(saved.graph)
        if why is not None:
            raise InputError(f"model_dir (got {model_dir}) cannot have a drug ranker: {why}")
        check_fit_memory(saved.graph, saved.embeddings.shape[1], memory_budget)
        milestone("Fitting the drug ranker on paths in the graph and on embeddings")
        start = time.perf_counter()
        ranker = fit_drug_ranker(saved.graph, embeddings=saved.embeddings, seed=saved.seed)
        found = {
            "example_node": example_node(saved.graph, of_diseases=True),
            "seconds_rank_fit": time.perf_counter() - start,
        }
        add_ranker(directory, ranker, saved.run)
        stats = read_json(directory / STATS_FILE)
        save_record(directory / STATS_FILE, {**stats, **found, "has_ranker": True})
    milestone(f"Wrote {RANKER_FILE} to {directory}")
    return {
        "model_dir": str(directory),
        "run": saved.run,
        "seed": saved.seed,
        **found,
        "peak_memory_gib": peak_memory_bytes() / GIB,
    }


def fit_peak_bytes(graph: KnowledgeGraph, dim: int) -> int:
    """Predict the peak of a process that fits the ranker now, with all that it holds already."""
    return max(held_bytes() + _LIBRARIES + rank_fit_bytes(graph, dim), peak_memory_bytes())


def check_fit_memory(graph: KnowledgeGraph, dim: int, memory_budget: str | int | None) -> None:
    """Check that the fit fits the memory budget, with everything that the process holds already.

    Raises:
        DoesNotFitError: it does not; the message names a budget that is enough.
    """
    budget, needed = parse_memory(memory_budget), fit_peak_bytes(graph, dim)
    if memory_budget is None:
        budget += held_bytes()  # the free memory does not include what this process uses already
    if needed > budget:
        raise DoesNotFitError(
            f"memory_budget (got {memory_budget!r}, {budget / GIB:.2f} GiB) is too small: the fit "
            f"of the ranker needs {sufficient_gib(needed)}"
        )
