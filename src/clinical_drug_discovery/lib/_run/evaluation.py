"""Parts of an evaluation: rank pairs with several rankers, and write the report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ...evaluation.gold import above_metrics
from ...evaluation.measures.contraindications import contraindicated_drugs, contraindication_metrics
from ...evaluation.measures.differences import differences
from ...evaluation.measures.reliability import Bin, held_out_fraction, reliability, trained_pairs
from ...evaluation.measures.strata import known_counts, strata_metrics
from ...evaluation.metrics import Metrics, filtered_ranks, ranking_metrics
from ...evaluation.rankers import FittedRanker, Ranker
from ...evaluation.split import RankingTask
from ...graph.knowledge_graph import IntArray, KnowledgeGraph
from ...graph.source import Source
from ...models.embeddings_file import without_formulas
from ...ranking.treatments import Pairs
from ...system import disk
from ...system.files import atomic_path, check_new, check_writable, writing
from ...system.log import detail, milestone
from ...system.progress import Run
from ...system.run_directory import locked_output
from .model_dir import check_targets
from .start import begin_run, input_names

REPORT, RANKS, GOLD_PAIRS = "report.json", "ranks.parquet", "gold_pairs.csv"


class Ranked(NamedTuple):
    """The ranks of some pairs by several rankers, and the metrics."""

    metrics: dict[str, Metrics]  #: of each ranker
    ranks: pl.DataFrame  #: one row per ranker and pair
    seconds: dict[str, float]  #: of each ranker, with its fit
    reliability: list[Bin] | None  #: of the ranker that gives probabilities


def rank_pairs(
    graph: KnowledgeGraph,
    task: RankingTask,
    pairs: Pairs,
    rankers: Iterable[tuple[str, Ranker]],
    *,
    seed: int,
    others: Mapping[str, tuple[IntArray, IntArray]] | None = None,
    recorded: bool = True,
) -> Ranked:
    """Rank the drugs of some pairs among all drugs with each ranker.

    Args:
        graph: the graph that the rankers know, on the CPU; it does not list the pairs.
        task: the diseases of the pairs, and the drugs to leave out.
        pairs: the pairs to rank, in the order of the task.
        rankers: name and ranker; each may be fitted when the iteration reaches it.
        seed: seed of the sampled negatives and of the bootstrap.
        others: pairs with which the held-out pairs of the same disease are compared, by label: the
            rows (position in `task.diseases`) and the columns (drug); see `above_metrics`.
        recorded: the pairs were held out of the record that the ranker learned from, so that its
            probabilities can be checked.

    Raises:
        InputError: a score is NaN or infinite.
    """
    harmful = contraindicated_drugs(graph, task)
    index = graph.nodes["node_index"].to_numpy()
    columns = {"disease_index": index[pairs.disease], "drug_index": index[pairs.drug]}
    counts = known_counts(graph, pairs)
    ranked = Ranked({}, pl.DataFrame(), {}, None)
    curve: list[Bin] | None = None
    tables: list[pl.DataFrame] = []
    milestone("Ranking all drugs with each ranker")
    start = time.perf_counter()
    for name, ranker in rankers:
        detail(f"{name}...")
        scores = ranker(task.diseases)
        ranking = (scores, task.known, task.row, task.candidate)
        ranked.metrics[name] = ranking_metrics(*ranking, seed=seed)
        ranked.metrics[name] |= contraindication_metrics(scores, task, *harmful)
        ranks = filtered_ranks(*ranking)
        tables.append(
            pl.DataFrame({"ranker": [name] * len(pairs), **columns, "rank": ranks, **counts})
        )
        if recorded and isinstance(ranker, FittedRanker):
            trained = trained_pairs(graph, task)
            curve = reliability(
                ranker.probabilities(task.diseases, scores), task.known, trained, task.row,
                task.candidate, fraction=held_out_fraction(graph, trained, pairs),
            )  # fmt: skip
        for label, (row, column) in (others or {}).items():
            ranked.metrics[name] |= above_metrics(label, scores, task, row, column, seed=seed)
        ranked.seconds[f"rank, {name}"] = time.perf_counter() - start  # includes the fit
        start = time.perf_counter()
    return ranked._replace(ranks=pl.concat(tables), reliability=curve)


def parts_and_differences(ranks: pl.DataFrame, *, seed: int) -> dict[str, Any]:
    """Return the entries of a report about strata, and about differences to the walk."""
    return {
        "strata": strata_metrics(ranks, seed=seed),
        "differences": differences(ranks, seed=seed),
    }


def write_report(
    directory: Path, report: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]
) -> None:
    """Write the report and some tables (.parquet or .csv, by file name), or nothing.

    An earlier report is removed before the first table is replaced, and the new report gets its
    name last. So a directory with a report is complete, and of one evaluation.
    """
    with ExitStack() as stack:
        paths = {
            name: stack.enter_context(atomic_path(directory / name)) for name in (REPORT, *tables)
        }
        for name, table in tables.items():
            with disk.create(paths[name]) as file:
                if name.endswith(".csv"):
                    without_formulas(table).write_csv(file)
                else:
                    table.write_parquet(file)
        saved = {**report, "output_dir": directory.resolve().name}  # no path of this machine
        text = json.dumps(saved, indent=2, allow_nan=False)
        with disk.create(paths[REPORT]) as file:
            file.write((text + "\n").encode())
        with writing(directory / REPORT):
            disk.remove(directory / REPORT)
    milestone(f"Wrote {REPORT} and {', '.join(tables)} to {directory}")


def check_outputs(
    inputs: Mapping[str, Path], files: Sequence[Path], directory: Path, overwrite: bool
) -> None:
    """Check that files can be written, and that they replace nothing that they must not replace.

    Args:
        inputs: input files by their names in error messages.
        files: the files to write, and files of earlier evaluations that must not exist.
        directory: directory of the files.
        overwrite: replace existing files that are not inputs.
    """
    check_writable("output_dir", directory)
    check_targets(inputs, files, directory)
    check_new(files, overwrite)


@contextmanager
def writing_alone(directory: Path, files: Sequence[Path], overwrite: bool) -> Iterator[None]:
    """Keep other processes from writing to the directory of an evaluation within the `with` block.

    Args:
        directory: of the evaluation.
        files: see `check_outputs`.
        overwrite: replace existing files.

    Raises:
        InputError: another process writes to the directory, or has written the files meanwhile.
    """
    with locked_output(directory):
        check_new(files, overwrite)
        yield


def start_evaluation(
    source: Source,
    files: Sequence[Path],
    directory: Path,
    device: str | None,
    learning_rate: float,
    overwrite: bool,
) -> Run:
    """Check parameters and files before the graph is read, and return the run; write nothing.

    Args:
        source: the files of the graph.
        files: the files to write, the report first, and files of earlier evaluations that must
            not exist.
        directory: directory of the files.
        device: see `choose_device`.
        learning_rate: already checked; for error messages.
        overwrite: replace the files of an earlier evaluation.
    """
    check_outputs(input_names(source), files, directory, overwrite)
    return begin_run(source, files[0], directory, device, learning_rate)
