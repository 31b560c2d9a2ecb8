"""A map of nodes as a picture for print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...api.model import Model
from ...system.arguments import plain_arguments
from ...system.errors import InputError, shown
from ...system.untrusted.text import printable
from ..map.node_map import MapChoice, NodeMap, make_map
from .style import BLUE, GRAY, GREEN, NORMAL, ORANGE, PURPLE, SKY, SMALL, VERMILION, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Color and marker of each group. 18 groups differ in one of the two.
GROUP_STYLES = [
    (color, marker)
    for marker in ("o", "^", "s")
    for color in (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
]
COLORMAP = "viridis"  # for degrees; even in lightness, so it works in gray as well
_RASTER_FROM = 3000  # points of an SVG that are stored as an image, or the file would be huge
_LONGEST = 30  # characters of a group in the legend


def map_nodes(
    model: Model,
    *,
    type: str = "drug",
    color_by: str = "cluster",
    method: str = "umap",
    features: str | Path | None = None,
    feature: str | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Figure:
    """Draw the nodes of a model as points in two dimensions; near points have similar embeddings.

    Args:
        model: of `load_model`.
        type: node type to draw, or "all".
        color_by: "class", "area", "degree", "cluster" or "type"; see `cdd map`.
        method: "umap" or "pca".
        features: table of classes, see `cdd map`.
        feature: its column of classes.
        seed: of UMAP and of the clusters. The same seed gives the same picture.
        ax: axes to draw into (default: a new figure).

    Returns:
        The figure. The 18 largest groups have a color and a marker each; the others are gray.

    Raises:
        InputError: the type does not exist, or the colors need an input that is missing.
        ImportError: matplotlib or umap-learn is not installed.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> figure = plot.map(model, type="disease", color_by="area", method="pca")
        >>> figure.axes[0].get_legend().get_title().get_text()
        'area'
    """
    if not isinstance(model, Model):
        raise InputError(f"model (got {shown(model)}) must be a model of load_model")
    choice = _choice(
        type=type, color_by=color_by, method=method, features=features, feature=feature, seed=seed
    )
    nodes, values = model.embeddings()
    return draw_points(make_map(model.graph, nodes, values, choice), ax=ax)


@plain_arguments
def _choice(
    *,
    type: str,
    color_by: str,
    method: str,
    features: str | Path | None,
    feature: str | None,
    seed: int,
) -> MapChoice:
    """Return what a map shows, as checked plain values."""
    path = None if features is None else Path(features)
    return MapChoice(type, color_by, method, path, feature, seed)


def draw_points(node_map: NodeMap, *, ax: Axes | None = None) -> Figure:
    """Draw a map.

    Args:
        node_map: what to draw.
        ax: axes to draw into (default: a new figure).
    """
    right = (
        2.9 if node_map.coloring.numbers is None else 0.6
    )  # the legend, or the color bar's numbers
    figure, axes = figure_of(ax, 5.3 + right, 5.6, (0.1, right, 0.1, 0.1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    for spine in axes.spines.values():
        spine.set_alpha(0.3)
    number = node_map.nodes.height
    size = float(np.clip(300 / number**0.5, 0.8, 30))
    settings: dict[str, Any] = {"linewidths": 0, "rasterized": number >= _RASTER_FROM}
    if node_map.coloring.numbers is not None:
        _draw_numbers(figure, axes, node_map, size, settings)
    else:
        _draw_groups(axes, node_map, size, settings)
    axes.set_label(node_map.describe())
    return figure


def _draw_groups(axes: Axes, node_map: NodeMap, size: float, settings: dict[str, Any]) -> None:
    """Draw the groups, the gray ones below the others and the largest below the smallest."""
    from matplotlib.lines import Line2D

    legend = node_map.coloring.legend()
    handles = []
    for order, (name, places) in enumerate(legend):
        has_color = name in (node_map.coloring.groups or ()) and order < len(GROUP_STYLES)
        color, marker = GROUP_STYLES[order] if has_color else (GRAY, "o")
        x, y = node_map.places[places].T
        axes.scatter(
            x, y, s=size if has_color else size * 0.5, c=color, marker=marker,
            alpha=0.85 if has_color else 0.45, zorder=2 + order if has_color else 1, **settings,
        )  # fmt: skip
        short = printable(name)
        short = short if len(short) <= _LONGEST else f"{short[: _LONGEST - 1]}…"
        label = f"{short}, {len(places):,}"
        handles.append(
            Line2D([], [], color=color, marker=marker, linestyle="none", markersize=6, label=label)
        )
    found = axes.legend(
        handles=handles, title=node_map.coloring.title, loc="upper left", frameon=False,
        bbox_to_anchor=(1.0, 1.0), fontsize=SMALL, title_fontsize=NORMAL, alignment="left",
        handletextpad=0.2, labelspacing=0.35,
    )  # fmt: skip
    for text in found.get_texts():
        text.set_parse_math(False)


def _draw_numbers(
    figure: Figure, axes: Axes, node_map: NodeMap, size: float, settings: dict[str, Any]
) -> None:
    """Draw points in colors by a number of each, on a logarithmic scale; the largest on top."""
    from matplotlib.colors import LogNorm

    numbers = node_map.coloring.numbers
    assert numbers is not None
    order = np.argsort(numbers, kind="stable")
    x, y = node_map.places[order].T
    low, high = max(float(numbers.min()), 1.0), max(float(numbers.max()), 2.0)
    drawn = axes.scatter(
        x, y, s=size, c=numbers[order], cmap=COLORMAP, norm=LogNorm(low, high), **settings
    )
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label(f"{node_map.coloring.title} of the node", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
