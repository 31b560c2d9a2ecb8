"""The history of a training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ...graph.frames.tables import to_polars
from ...system.errors import InputError, shown
from .style import BESIDE, LINES, add_legend, figure_of, label_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def history(
    history: Any, *, columns: Sequence[str] | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the losses of a training over its epochs.

    Args:
        history: `history.csv` of a model directory: its path, or a polars or pandas DataFrame.
        columns: the columns to draw (default: `loss` and all columns that end in `_loss`). A name
            such as `effective_rank` stands for the columns of all node types.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure. Losses, which are all positive, have a logarithmic axis.

    Raises:
        InputError: the table does not have such a column, or no numbers in it.
        ImportError: matplotlib is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> figure = plot.history({"epoch": [1, 2], "loss": [3.5, 2.5]})
        >>> figure.axes[0].get_xlabel()
        'epoch'
    """
    table = _table(history)
    if columns is None:
        names = [name for name in table.columns if name == "loss" or name.endswith("_loss")]
        asked, label = "loss", "loss"
    else:
        names = [n for n in table.columns if any(n == c or n.startswith(f"{c}.") for c in columns)]
        asked, label = ", ".join(columns), ", ".join(columns).replace("_", " ")
    if not names or "epoch" not in table.columns:
        raise InputError(
            f"history must have the columns epoch and {asked}; it has {', '.join(table.columns)}"
        )
    figure, axes = figure_of(ax, 6.6, 3.4, BESIDE)
    lowest = []
    for name, (color, style, marker) in zip(names, LINES * len(names), strict=False):
        points = table.select("epoch", pl.col(name).cast(pl.Float64)).drop_nulls()
        if not points.height:
            raise InputError(f"history, column {name} (got no numbers) must have a number")
        short = name.removesuffix("_loss").replace("_", " ") if columns is None else name
        if columns is not None and len(columns) == 1:
            short = name.removeprefix(f"{columns[0]}.")
        axes.plot(
            points["epoch"].to_numpy(), points[name].to_numpy(), color=color, linestyle=style,
            marker=marker, markevery=max(points.height // 8, 1), markersize=4,
            linewidth=2 if name == "loss" else 1.4, label="total" if name == "loss" else short,
        )  # fmt: skip
        lowest.append(float(points[name].to_numpy().min()))
    if min(lowest) > 0 and columns is None:
        axes.set_yscale("log")
    about = f"{label.capitalize()} over {table.height} epochs: {', '.join(names)}."
    label_axes(axes, "epoch", label, about)
    add_legend(axes)
    return figure


def _table(history: Any) -> pl.DataFrame:
    if not isinstance(history, str | Path):
        return to_polars("history", history)
    try:
        return pl.read_csv(Path(history), infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"history (got {shown(str(history))}) cannot be read: {reason}") from error
