"""Colors, line styles and axes that all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...api.optional import optional_package
from ...system.errors import InputError, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Four colors of Okabe and Ito (2008). People with any form of color blindness tell them apart, and
# each has a contrast of at least 3 : 1 to white and to nearly black (#1b1b1b).
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
#: Colors that have less contrast to white, for areas of many points.
ORANGE, SKY = "#E69F00", "#56B4E9"
GRAY = "#858585"  #: for groups without a color of their own; contrast 3.7 : 1 to white
#: Color, line style and marker of each line of a picture. A line differs from the others in two of
#: the three, so that it can be found in black and white as well.
LINES = (
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "D"),
    (GRAY, "-", "v"),
    (BLUE, ":", "P"),
    (VERMILION, "-.", "X"),
    (GREEN, "--", "<"),
    (PURPLE, "-", ">"),
    (GRAY, "--", "*"),
)
SMALL, NORMAL = 9, 10  #: font sizes, in points
BESIDE = (0.65, 1.9, 0.55, 0.15)  #: margins that leave room for a legend on the right


def figure_of(
    ax: Axes | None,
    width: float,
    height: float,
    margins: tuple[float, float, float, float] = (0.65, 0.15, 0.55, 0.15),
) -> tuple[Figure, Axes]:
    """Return the axes to draw into and their figure.

    The margins are fixed, because matplotlib's layout engines move the axes a little at each draw.

    Args:
        ax: axes of the caller; None: a new figure is made.
        width: of a new figure, in inches.
        height: of a new figure, in inches.
        margins: on the left, right, bottom and top of the axes, in inches.

    Raises:
        InputError: ax is not an object of matplotlib's class Axes.
        ImportError: matplotlib is not installed.
    """
    optional_package("matplotlib")
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is None:
        left, right, bottom, top = margins
        inside = (width - left - right) / width, (height - bottom - top) / height
        figure = Figure(figsize=(width, height))
        return figure, figure.add_axes((left / width, bottom / height, *inside))
    if not isinstance(ax, Axes):
        raise InputError(f"ax (got {shown(ax)}) must be axes of matplotlib")
    return ax.get_figure(root=True), ax  # type: ignore[return-value]  # None only if removed


def label_axes(ax: Axes, x: str, y: str, about: str) -> None:
    """Label both axes, and keep a description of the picture for people who cannot see it.

    Args:
        ax: is changed.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        about: a sentence or two; `svg` writes it into the picture.
    """
    ax.set_xlabel(x, fontsize=NORMAL, parse_math=False)
    ax.set_ylabel(y, fontsize=NORMAL, parse_math=False)
    ax.tick_params(labelsize=SMALL)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.grid(visible=True, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_label(about)


def add_legend(ax: Axes, **where: Any) -> None:
    """Add a legend without a frame; `where` goes to matplotlib. By default it is on the right."""
    where = where or {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    legend = ax.legend(fontsize=SMALL, frameon=False, handlelength=2.6, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)
