"""The curves of an evaluation: reliability, recall over rank, recall by how much is known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ...system.errors import InputError, counted, shown
from .style import BESIDE, BLUE, LINES, SMALL, add_legend, figure_of, label_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The rankers that are drawn if the caller does not choose, as far as the report has them.
RANKERS = ("ranker", "gnn", "paths", "neighbors", "walk", "popularity")
_STRATA = {
    "diseases_of_drug": "number of other diseases that the drug treats in the training graph",
    "drugs_of_disease": "number of other drugs of the disease in the training graph",
}
_WHOLE = (-0.03, 1.03)  # limits of an axis for fractions, so that a point at an end is whole
_STEP = 1.07  # factor between the points of two rankers, so that their intervals do not overlap


def reliability(report: Mapping[str, Any], *, ax: Axes | None = None) -> Figure:
    """Draw which part of the drugs with a probability of p was recorded as a treatment.

    Args:
        report: `report.json` of `cdd evaluate`, read as a dict. See `reliability` there.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure. The number at each point counts its pairs of drug and disease.

    Raises:
        InputError: the report does not have a reliability curve, because none of its rankers gives
            probabilities or because the pairs come from an outside list.
        ImportError: matplotlib is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> report = {"reliability": [{"predicted": 0.1, "recorded": 0.2, "num_pairs": 9}]}
        >>> plot.reliability(report).axes[0].get_xlabel()
        'predicted probability'
    """
    bins = _entry(report, "reliability", "a reliability curve")
    figure, axes = figure_of(ax, 4.2, 4.2)
    predicted, recorded = ([one[name] for one in bins] for name in ("predicted", "recorded"))
    axes.plot([0, 1], [0, 1], color="black", alpha=0.6, linewidth=1, linestyle="--",
              label="as often as predicted")  # fmt: skip
    axes.plot(predicted, recorded, color=BLUE, marker="o", linewidth=1.8, clip_on=False,
              label="held-out treatments\n(number: pairs of a point)")  # fmt: skip
    for one in bins:
        left = one["recorded"] >= one["predicted"] > 0.1
        above = left or one["predicted"] <= 0.1
        axes.annotate(
            f"{one['num_pairs']:,}", (one["predicted"], one["recorded"]), fontsize=SMALL - 1,
            xytext=(-5, 4) if left else (7, -2), textcoords="offset points",
            ha="right" if left else "left", va="bottom" if above else "top",
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    pairs = "; ".join(f"{p:.2f}: {r:.2f}" for p, r in zip(predicted, recorded, strict=True))
    about = f"Share of recorded treatments for each predicted probability. {pairs}."
    label_axes(axes, "predicted probability", "recorded share", about)
    add_legend(axes, loc="lower right")
    return figure


def recall(
    report: Mapping[str, Any],
    *,
    rankers: Sequence[str] | None = None,
    ranks: pl.DataFrame | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the fraction of held-out pairs that each ranker places among its first k.

    Args:
        report: `report.json` of `cdd evaluate`, read as a dict. It has the fractions for k = 10, 50
            and 100 with their 95% intervals.
        rankers: names of rankers, in the order of the legend (default: up to six).
        ranks: `ranks.parquet` beside the report. With it, lines go through all k.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure. k has a logarithmic axis; points are moved sideways a little.

    Raises:
        InputError: the report or ranks do not have a ranker.
        ImportError: matplotlib is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> figures = {"recall@50": 0.6, "recall@50_low": 0.5, "recall@50_high": 0.7}
        >>> figure = plot.recall({"rankers": {"walk": figures}})
        >>> figure.axes[0].get_ylabel()
        'recall'
    """
    metrics = _entry(report, "rankers", "the metrics of rankers")
    figure, axes = figure_of(ax, 6.6, 3.6, BESIDE)
    names = _chosen(rankers, metrics)
    ends: list[float] = []
    for place, (name, style) in enumerate(zip(names, LINES * len(names), strict=False)):
        found = sorted(
            (int(match[1]), key)
            for key in metrics[name]
            if (match := re.fullmatch(r"(?:hits|recall)@(\d+)", key))
        )
        k = np.array([number for number, _ in found]) * _STEP ** (place - (len(names) - 1) / 2)
        _interval_line(
            axes, k, metrics[name], [key for _, key in found], name, style, ranks is None
        )
        if ranks is not None:
            _steps(axes, name, ranks, style)
        ends += [number for number, _ in found]
    axes.set_xscale("log")
    last = max(ends)
    if ranks is not None:
        axes.set_xlim(1, last * 2)
    ticks = sorted({int(k) for k in ends} | ({1, 2, 5} if ranks is not None else set()))
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(*_WHOLE)
    best = "; ".join(f"{n}: {_last_recall(metrics[n]):.2f}" for n in names)
    about = f"Recall over rank k with 95% intervals. Recall among the first {last}: {best}."
    label_axes(axes, "rank k", "recall", about)
    add_legend(axes)
    return figure


def strata(
    report: Mapping[str, Any],
    *,
    column: str = "diseases_of_drug",
    rankers: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw recall@50 of each ranker for drugs or diseases with few and with many treatments.

    Args:
        report: `report.json` of `cdd evaluate`, read as a dict.
        column: `diseases_of_drug` or `drugs_of_disease`.
        rankers: see `recall`.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure, with 95% intervals. Strata without pairs are left out.

    Raises:
        InputError: the report does not have the column or a ranker.
        ImportError: matplotlib is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> one = {"num_pairs": 4, "recall@50": 0.6, "recall@50_low": 0.5, "recall@50_high": 0.7}
        >>> report = {"strata": {"walk": {"diseases_of_drug": {"0": one}}}}
        >>> plot.strata(report).axes[0].get_ylabel()
        'recall@50'
    """
    if column not in _STRATA:
        raise InputError(f"column (got {shown(column)}) must be one of {', '.join(_STRATA)}")
    by_ranker = _entry(report, "strata", "strata")
    figure, axes = figure_of(ax, 6.6, 3.8, (0.65, 1.9, 0.75, 0.15))
    names = _chosen(rankers, by_ranker)
    first = by_ranker[names[0]][column]
    filled = [name for name, figures in first.items() if figures["num_pairs"]]
    for place, (name, style) in enumerate(zip(names, LINES * len(names), strict=False)):
        at = np.arange(len(filled)) + 0.09 * (place - (len(names) - 1) / 2)
        joined = {
            f"{stratum}{end}": by_ranker[name][column][stratum][f"recall@50{end}"]
            for stratum in filled
            for end in ("", "_low", "_high")
        }
        _interval_line(axes, at, joined, filled, name, style, False)
    labels = [f"{name}\n{counted(first[name]['num_pairs'], 'pair')}" for name in filled]
    axes.set_xticks(range(len(filled)), labels)
    axes.set_ylim(*_WHOLE)
    about = f"Recall@50 with 95% intervals by the {_STRATA[column]}."
    label_axes(axes, _STRATA[column], "recall@50", about)
    add_legend(axes)
    return figure


def _interval_line(
    axes: Axes,
    x: np.ndarray,
    metrics: Mapping[str, Any],
    keys: Sequence[str],
    label: str,
    style: tuple[str, str, str],
    joined: bool,
) -> None:
    """Draw points with their intervals, which not every report has, and the line through them."""
    color, line, marker = style
    y, low, high = (
        np.array([metrics.get(f"{key}{end}", metrics[key]) for key in keys], float)
        for end in ("", "_low", "_high")
    )
    axes.errorbar(
        x, y, yerr=np.maximum(np.stack([y - low, high - y]), 0), color=color, marker=marker,
        linestyle=line if joined else "none", markersize=5, linewidth=1.5, elinewidth=1, capsize=2,
        label=label,
    )  # fmt: skip


def _steps(axes: Axes, name: str, ranks: pl.DataFrame, style: tuple[str, str, str]) -> None:
    """Draw the recall at every k."""
    if not {"ranker", "rank"} <= set(ranks.columns):
        raise InputError(
            f"ranks must have the columns ranker and rank; it has {', '.join(ranks.columns)}"
        )
    found = np.sort(ranks.filter(pl.col("ranker") == name)["rank"].to_numpy())
    if not len(found):
        raise InputError(f"ranks does not have the ranker {name!r}, which the report has")
    k = np.arange(1, int(found[-1]) + 2)
    share = np.searchsorted(found, k, side="right") / len(found)
    axes.plot(k, share, color=style[0], linestyle=style[1], linewidth=1.5)


def _last_recall(metrics: Mapping[str, Any]) -> float:
    keys = [key for key in metrics if re.fullmatch(r"(?:hits|recall)@\d+", key)]
    return float(metrics[max(keys, key=lambda key: int(key.split("@")[1]))])


def _chosen(rankers: Sequence[str] | None, known: Mapping[str, Any]) -> list[str]:
    """Return the rankers to draw."""
    if rankers is None:
        return [name for name in RANKERS if name in known] or [*known][: len(RANKERS)]
    for name in rankers:
        if name not in known:
            raise InputError(f"rankers (got {shown(name)}) must be some of {', '.join(known)}")
    if not rankers:
        raise InputError(f"rankers (got {shown(rankers)}) must be some of {', '.join(known)}")
    return [*rankers]


def _entry(report: Mapping[str, Any], name: str, words: str) -> Any:
    """Return an entry of a report that is not empty."""
    if not isinstance(report, Mapping):
        raise InputError(f"report (got {shown(report)}) must be the dict of report.json")
    if not report.get(name):
        raise InputError(f"report (got the entries {', '.join(report)}) does not have {words}")
    return report[name]
