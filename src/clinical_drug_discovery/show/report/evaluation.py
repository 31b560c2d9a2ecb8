"""The report about an evaluation: its tables, from the files that `cdd evaluate` writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ...lib._run.evaluation import RANKS, REPORT
from ...system.errors import InputError, counted
from ...system.untrusted.inputs import read_json
from ...system.untrusted.text import printable_record
from ..terminal.evaluation import (
    CONTRAINDICATION_COLUMNS,
    EVALUATION_COLUMNS,
    STRATUM_TITLES,
    headline,
)
from .tables import Cell, Interval, Table

_RANK_COLUMNS = ("ranker", "disease_index", "drug_index", "rank", "drugs_of_disease")
_STRATUM_METRICS = ("recall@50", "mrr")
_ABOVE = ("approved_above_failed", "approved_above_contraindicated")


#: Words of an evaluation, for readers who do not know the program.
_MEANINGS = {
    "ranker": "the drug ranker of cdd rank",
    "ranker, no popularity": "the same without the popularity of drugs",
    "paths": "the drug ranker without the embeddings",
    "gnn": "the decoder that the model was trained with",
    "neighbors": "neighbors in the embeddings",
    "popularity": "number of indications of the drug",
    "degree": "number of facts about the drug",
    "relatives": "indications of related diseases, up to three steps away",
    "shared": "indications of diseases that share genes or phenotypes",
    "walk": "indications of diseases that random walks along related diseases reach",
    "mrr": "mean of 1 / rank over the held-out pairs",
    "map": "mean over diseases of the average precision",
    "hits@10": "fraction of the held-out pairs among the first 10 drugs",
    "recall@50": "fraction of the held-out pairs among the first 50 drugs",
    "recall@100": "fraction of the held-out pairs among the first 100 drugs",
    "auroc": "area under the ROC curve, held-out pairs against all drugs that are not known",
    "auprc": "area under the precision-recall curve, for the same pairs",
    "entropy@50": "low if every disease gets the same few drugs; in nats",
}


class Evaluation(NamedTuple):
    """The files of an evaluation."""

    directory: Path
    report: dict[str, Any]  #: report.json
    ranks: pl.DataFrame  #: ranks.parquet

    @staticmethod
    def read(directory: Path) -> Evaluation:
        """Read the files of an evaluation.

        Raises:
            InputError: a file is missing or damaged.
        """
        try:
            report = dict(printable_record(read_json(directory / REPORT)))
            ranks = pl.read_parquet(directory / RANKS)
            _check(report, ranks)
        except (OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
            reason = str(error).split("\n")[0]
            if isinstance(error, OSError) and error.strerror:
                reason = f"{error.filename}: {error.strerror}"
            raise InputError(
                f"evaluation (got {directory}) must be a directory that cdd evaluate has written, "
                f"with {REPORT} and {RANKS}: {reason}"
            ) from None
        return Evaluation(directory, report, ranks)


def _check(report: Mapping[str, Any], ranks: pl.DataFrame) -> None:
    """Check what both kinds of reports read; other figures are checked when they are shown.

    Raises:
        ValueError, TypeError, KeyError: an entry is missing or invalid.
    """
    for name in ("rankers", "strata"):
        if not dict(report[name]):
            raise ValueError(f"{name} is empty")
    int(report["num_candidates"])
    for name in _RANK_COLUMNS:
        kind = ranks.schema[name]
        if not (kind == pl.String if name == "ranker" else kind.is_numeric()):
            raise ValueError(f"column {name} of {RANKS} has the type {kind}")


@contextmanager
def refusing_damage(evaluation: Evaluation) -> Iterator[None]:
    """Turn errors about the content of a report within the `with` block into one line.

    Raises:
        InputError: the report lacks a figure, or has one of another type.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{evaluation.directory / REPORT} is damaged: {type(error).__name__} {error}"
        ) from None


def evaluation_tables(evaluation: Evaluation) -> tuple[str, list[Table]]:
    """Return a sentence about the ranked pairs of an evaluation, and its tables."""
    return headline(evaluation.report), list(_tables(evaluation.report))


def _tables(report: Mapping[str, Any]) -> Iterator[Table]:
    rankers = list(report["rankers"].items())
    above = [name for name in _ABOVE if rankers[0][1].get(name) is not None]
    yield _metrics("rankers", "Rankers", "ranker", rankers, (*EVALUATION_COLUMNS, *above))
    if "outcomes" in report:
        outcomes = tuple((name, int(count)) for name, count in report["outcomes"].items())
        yield Table("outcomes", "Rows of the outside list", ("outcome", "rows"), outcomes)
    if report["differences"]:
        differences = list(report["differences"].items())
        title = "Difference to the walk along related diseases, on the same pairs"
        yield _metrics("differences", title, "ranker", differences, ("mrr", "recall@50"))
    for column, title in STRATUM_TITLES.items():
        for metric in _STRATUM_METRICS:
            yield _strata(report["strata"], column, metric, f"{metric} by {title}")
    if "gold" not in report:
        title = "One sampled drug for each pair (not comparable with the first table)"
        names = ("balanced_auroc", "balanced_auprc")
        yield _metrics("balanced", title, "ranker", rankers, names)
    yield from _contraindications(rankers)
    if report.get("reliability"):
        yield _reliability(report["reliability"])
    if report.get("relations"):
        kind = ("source_type", "relation", "target_type")
        rows = [(" - ".join(m[name] for name in kind), m) for m in report["relations"]]
        of_relations = ("num_targets", "num_candidates", "mrr", "hits@10", "recall@50")
        title = "Link prediction among all nodes of the target's type"
        yield _metrics("relations", title, "source - relation - target", rows, of_relations)
    yield _words(name for name, _ in rankers)


def _words(rankers: Iterable[str]) -> Table:
    """Return the meaning of rankers and metrics; "walk+popularity" is a walk with another tie."""
    names = {*rankers, *EVALUATION_COLUMNS}
    rows = [(name, text) for name, text in _MEANINGS.items() if name in names]
    if any(name.endswith("+popularity") for name in names):
        rows.append(("... +popularity", "the same; ties are broken by the number of indications"))
    return Table("words", "Words", ("word", "meaning"), tuple(rows))


def _contraindications(rankers: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Table]:
    first = rankers[0][1]
    if first.get("num_contraindicated_pairs"):
        note = (
            f"{counted(first['num_contraindicated_pairs'], 'pair')} of "
            f"{counted(first['num_contraindicated_diseases'], 'disease')}. Good rankers place them "
            "last: rank fraction and AUROC near 1, few of them among the first 50."
        )
        title = "Contraindicated drugs"
        table = _metrics("contraindicated", title, "ranker", rankers, CONTRAINDICATION_COLUMNS)
        yield Table(table.name, title, table.columns, table.rows, note)


def _metrics(
    name: str,
    title: str,
    first: str,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    metrics: Sequence[str],
) -> Table:
    cells = tuple(
        (label, *(_figure(values, metric) for metric in metrics)) for label, values in rows
    )
    return Table(name, title, (first, *metrics), cells)


def _figure(values: Mapping[str, Any], name: str) -> Cell:
    """Return a metric, with its interval if it has one."""
    value = values[name]
    if value is None or isinstance(value, int):
        return value
    low, high = (values.get(f"{name}_{end}") for end in ("low", "high"))
    return (
        float(value)
        if low is None or high is None
        else Interval(float(value), float(low), float(high))
    )


def _strata(strata: Mapping[str, Mapping[str, Any]], column: str, metric: str, title: str) -> Table:
    first = next(iter(strata.values()))[column]
    filled = [name for name, figures in first.items() if figures["num_pairs"]]
    columns = tuple(f"{name} ({counted(first[name]['num_pairs'], 'pair')})" for name in filled)
    rows = tuple(
        (ranker, *(_figure(by_column[column][name], metric) for name in filled))
        for ranker, by_column in strata.items()
    )
    return Table(f"{metric} {column}", title, ("ranker", *columns), rows)


def _reliability(bins: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            f"{one['low']:.1f} to {one['high']:.1f}", int(one["num_pairs"]),
            int(one["num_held_out"]), float(one["predicted"]), float(one["recorded"]),
        )
        for one in bins
    )  # fmt: skip
    columns = ("probability", "pairs", "held out", "mean probability", "recorded share")
    title = "Drugs by probability, and the share that the record lists as treatments"
    return Table("reliability", title, columns, rows)
