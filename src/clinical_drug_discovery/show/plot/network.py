"""The evidence for a drug in a disease as a small network, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .network_layout import KINDS, Layout, Line, layout_of
from .style import SMALL, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def evidence(explanation: Any, *, ax: Axes | None = None) -> Figure:
    """Draw the paths between a drug and a disease as a network.

    The color and style of a line say what kind of evidence it is, and its width how much all paths
    of this kind add to the score. Facts that the graph states about the two are the upper rows, and
    a contraindication is red.

    Args:
        explanation: of `Model.explain`, or the same rows as a list of dicts.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure. Long names are cut; the description of the picture (see `svg`) has them whole.

    Raises:
        InputError: the explanation does not have rows, or a row does not have nodes and relations.
        ImportError: matplotlib is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> figure = plot.evidence(model.explain("Warfarin", "atrial fibrillation"))
        >>> figure.axes[0].texts[0].get_text()
        'Warfarin'
    """
    found = layout_of(explanation)
    figure, axes = figure_of(ax, *found.size, (0, 0, found.legend_height, 0))
    axes.set_axis_off()  # one unit of the axes is one inch
    axes.set_xlim(-found.left, found.right)
    axes.set_ylim(found.bottom, found.top)
    for line in found.lines:
        _draw_line(axes, line)
    for dot in found.dots:
        axes.plot(*dot.at, marker="o", markersize=dot.diameter, color="black", zorder=2)
    for label in found.labels:
        axes.text(
            *label.at, label.text, fontsize=label.size, ha=label.across, va=label.along,
            linespacing=label.spacing, color=label.color, alpha=label.opacity,
            weight="bold" if label.bold else "normal", parse_math=False,
        )  # fmt: skip
    _draw_legend(axes, found)
    axes.set_label(found.description)
    return figure


def _draw_line(axes: Axes, line: Line) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points, codes = [line.start], [Path.MOVETO]
    for step in line.steps:
        points += step
        codes += [Path.LINETO if len(step) == 1 else Path.CURVE4] * len(step)
    style = _style(line.kind, line.width)
    axes.add_patch(PathPatch(Path(points, codes), fill=False, capstyle="butt", zorder=1, **style))


def _style(kind: str, width: float) -> dict[str, Any]:
    """Return the color, style and width of a line; matplotlib multiplies dashes by the width."""
    color, dashes = KINDS.get(kind, ("black", ()))
    style = (0, tuple(length / width for length in dashes)) if dashes else "-"
    return {"color": color, "linestyle": style, "linewidth": width}


def _draw_legend(axes: Axes, found: Layout) -> None:
    """List the kinds below the picture, with their effects on the score."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], label=one.text, **_style(one.kind, one.width)) for one in found.legend]
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=SMALL,
        frameon=False, title=found.legend_title, title_fontsize=SMALL - 1, handlelength=3,
    )  # fmt: skip
