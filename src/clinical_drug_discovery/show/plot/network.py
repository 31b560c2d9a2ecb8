"""The evidence for a drug in a disease as a small network.

The drug is on the left and the disease on the right; each path is a row between them. Paths that
begin alike share these nodes. So lines meet only at the drug, at shared nodes and at the disease,
and every label has a place of its own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from ...graph.knowledge_graph import EdgeType
from ...ranking.evidence.sentences import PHRASES, phrase
from ...system.errors import InputError, shown
from ...system.untrusted.text import printable
from .style import BLUE, GREEN, NORMAL, PURPLE, SMALL, VERMILION, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATED, AGAINST = "stated", "contraindicated"
#: Color of each kind of path, and lengths of its dashes and gaps in points; empty: a whole line.
KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    STATED: ("black", ()),
    AGAINST: (VERMILION, ()),
    "mechanism": (BLUE, ()),
    "similar drug": (GREEN, (9, 2)),
    "related disease": (PURPLE, (14, 2, 2, 2)),
}
# Lengths in inches; one unit of the axes is one inch.
_STEP, _BEND, _HALF_LABEL, _ROW, _BELOW = 1.26, 0.4, 0.6, 0.66, 0.42
_BOLD_LETTER, _BESIDE = 0.096, 0.16  # width of a letter; from the middle of a node to its name
_LETTERS, _BOLD_LETTERS = 19, 17  # of a line of the name of a middle node, of an end
_THIN, _THICK, _PLAIN = 1.2, 5.0, 1.6  # widths of lines, in points

_Prefix = tuple[tuple[str, int], ...]  # phrase and node of each step from the drug to a middle node


class _Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True)
class _Path:
    """A path from the drug to the disease."""

    kind: str
    effect: float | None
    words: tuple[str, ...]  #: a phrase for each step
    middle: tuple[Mapping[str, Any], ...]  #: the nodes between drug and disease

    def prefixes(self) -> list[_Prefix]:
        """Return the ways from the drug to each middle node."""
        steps = [(w, node["node_index"]) for w, node in zip(self.words, self.middle, strict=False)]
        return [tuple(steps[: i + 1]) for i in range(len(steps))]


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
    rows = _rows(explanation)
    paths = _in_order([_path(row) for row in rows])
    x, places = _placed(paths)
    lowest = -(len(paths) - 1) * _ROW
    drug, disease = (
        _wrapped(str(rows[0]["nodes"][i]["node_name"]), _BOLD_LETTERS, 3) for i in (0, -1)
    )
    left, right = (
        _BESIDE + _BOLD_LETTER * max(map(len, name.split("\n"))) for name in (drug, disease)
    )
    legend = 0.3 + 0.17 * ((len({path.kind for path in paths}) + 1) // 2)
    size = (x[-1] + left + right, -lowest + _BELOW + 0.3 + legend)
    figure, axes = figure_of(ax, *size, (0, 0, legend, 0))
    axes.set_axis_off()
    axes.set_xlim(-left, x[-1] + right)
    axes.set_ylim(lowest - _BELOW, 0.3)
    ends = _Point(0.0, lowest / 2), _Point(x[-1], lowest / 2)
    _draw_end(axes, ends[0], drug, left=True)
    _draw_end(axes, ends[1], disease, left=False)
    places[()] = ends[0]
    widths = _line_widths(paths)
    drawn: set[_Prefix] = set()
    for row, path in enumerate(paths):
        start = ends[0]
        for prefix, node in zip(path.prefixes(), path.middle, strict=True):
            if prefix not in drawn:
                drawn.add(prefix)
                _draw_node(axes, places[prefix], node)
                _draw_edge(axes, start, places[prefix], -row * _ROW, path, len(prefix), widths)
            start = places[prefix]
        _draw_edge(axes, start, ends[1], -row * _ROW, path, len(path.words), widths)
    _draw_legend(axes, paths, widths)
    axes.set_label(" ".join(f"{row['text']}." for row in rows))
    return figure


def _rows(explanation: Any) -> list[dict[str, Any]]:
    """Return the rows as dicts, the facts first, and mark contraindications."""
    found = explanation.to_dicts() if isinstance(explanation, pl.DataFrame) else explanation
    if not isinstance(found, Sequence) or not found:
        raise InputError(f"explanation (got {shown(found)}) must have at least one row")
    needed = ("kind", "text", "nodes", "relations")
    rows = []
    for number, row in enumerate(found, start=1):
        if not isinstance(row, Mapping) or not all(row.get(name) for name in needed):
            names = ", ".join(needed)
            raise InputError(f"explanation, row {number} (got {shown(row)}) must have {names}")
        if len(row["nodes"]) != len(row["relations"]) + 1:
            raise InputError(
                f"explanation, row {number} (got {len(row['nodes'])} nodes and "
                f"{len(row['relations'])} relations) must have one node more than relations"
            )
        against = any(words in row["text"] for words in PHRASES["contraindication"].values())
        harmful = row["kind"] == STATED and against
        rows.append({**row, "kind": AGAINST} if harmful else dict(row))
    return sorted(rows, key=lambda row: row["kind"] not in (STATED, AGAINST))


def _path(row: Mapping[str, Any]) -> _Path:
    nodes = row["nodes"]
    steps = zip(row["relations"], nodes[:-1], nodes[1:], strict=True)
    words = tuple(_words(r, str(a["node_type"]), str(b["node_type"])) for r, a, b in steps)
    return _Path(row["kind"], row.get("effect"), words, tuple(nodes[1:-1]))


def _words(relation: str, start: str, end: str) -> str:
    """Return a few words for a step, such as "binds", which read the same in both directions."""
    known = PHRASES.get(relation)
    if known is None:
        return printable(relation.split("::")[-1].replace("_", " "))
    active = next(iter(known))  # the first type has the active phrase: "binds", not "is bound by"
    src_type = active if active in (start, end) else start
    return phrase(EdgeType(src_type, relation, end)).removeprefix("is ")


def _in_order(paths: list[_Path]) -> list[_Path]:
    """Put paths that begin alike below each other; leave out a path that is there already."""
    first: dict[_Prefix, int] = {}
    for path in paths:
        for prefix in path.prefixes():
            first.setdefault(prefix, len(first))
    unique = {(path.words, *(node["node_index"] for node in path.middle)): path for path in paths}
    facts = [path for path in unique.values() if not path.middle]
    others = [path for path in unique.values() if path.middle]
    return facts + sorted(others, key=lambda path: [first[p] for p in path.prefixes()])


def _placed(paths: list[_Path]) -> tuple[list[float], dict[_Prefix, _Point]]:
    """Return the horizontal place of each column, and the place of each middle node."""
    rows: dict[_Prefix, int] = {}
    branching: set[int] = set()  # columns with a node from which a line goes to another row
    for row, path in enumerate(paths):
        for prefix in path.prefixes():
            rows.setdefault(prefix, row)
        shared = [prefix for prefix in path.prefixes() if rows[prefix] != row]
        if shared:
            branching.add(len(shared[-1]))
    columns = max(len(path.words) for path in paths)
    x, bend = [0.0], _BEND if len(paths) > 1 else 0.0
    for column in range(columns):
        extra = bend * ((column == 0) + (column == columns - 1))
        x.append(x[-1] + _STEP + extra + (_HALF_LABEL + _BEND) * (column in branching))
    return x, {prefix: _Point(x[len(prefix)], -row * _ROW) for prefix, row in rows.items()}


def _line_widths(paths: Sequence[_Path]) -> dict[str, float]:
    """Return the width of the lines of each kind, from the effect on the score."""
    effects = {path.kind: path.effect for path in paths}
    most = max((effect for effect in effects.values() if effect), default=0.0)
    return {
        kind: _PLAIN if effect is None or not most else _THIN + (_THICK - _THIN) * effect / most
        for kind, effect in effects.items()
    }


def _draw_edge(
    axes: Axes,
    start: _Point,
    end: _Point,
    row: float,
    path: _Path,
    step: int,
    widths: Mapping[str, float],
) -> None:
    """Draw a line that runs along a row, with its words above, and bends at its ends if needed.

    Args:
        axes: to draw into.
        start: place of a node.
        end: place of the next node.
        row: height of the row of this path.
        path: gives the words and the color.
        step: number of the step in the path, from 1.
        widths: of lines, by kind.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points, codes = [start], [Path.MOVETO]
    left, right = start.x, end.x
    if start.y != row:
        begin = start.x + (_HALF_LABEL if start.x else 0.0)  # the name of a middle node is below it
        left = begin + _BEND
        middle = begin + _BEND / 2
        points += [_Point(begin, start.y), _Point(middle, start.y), _Point(middle, row)]
        points.append(_Point(left, row))
        codes += [Path.LINETO, *[Path.CURVE4] * 3]
    if end.y != row:
        right = end.x - _BEND
        middle = end.x - _BEND / 2
        points += [_Point(right, row), _Point(middle, row), _Point(middle, end.y)]
        codes += [Path.LINETO, *[Path.CURVE4] * 3]
    else:
        codes.append(Path.LINETO)
    points.append(end)
    line = PathPatch(
        Path(points, codes), fill=False, capstyle="butt", zorder=1,
        **_line(path.kind, widths[path.kind]),
    )  # fmt: skip
    axes.add_patch(line)
    axes.text(
        (left + right) / 2, row + 0.06, path.words[step - 1], fontsize=SMALL - 1, ha="center",
        va="bottom", parse_math=False, color=VERMILION if path.kind == AGAINST else "black",
    )  # fmt: skip


def _line(kind: str, width: float) -> dict[str, Any]:
    """Return the color, style and width of a line; matplotlib multiplies dashes by the width."""
    color, dashes = KINDS.get(kind, ("black", ()))
    style = (0, tuple(length / width for length in dashes)) if dashes else "-"
    return {"color": color, "linestyle": style, "linewidth": width}


def _draw_node(axes: Axes, at: _Point, node: Mapping[str, Any]) -> None:
    """Draw a middle node, with its name and its type below."""
    axes.plot(*at, marker="o", markersize=7, color="black", zorder=2)
    name = _wrapped(str(node["node_name"]), _LETTERS, 2)
    lines = name.count("\n") + 1
    axes.text(
        at.x, at.y - 0.08, name, fontsize=SMALL - 0.5, ha="center", va="top", linespacing=1.0,
        parse_math=False,
    )  # fmt: skip
    axes.text(
        at.x, at.y - 0.1 - 0.135 * lines, printable(str(node["node_type"])), fontsize=SMALL - 2,
        ha="center", va="top", alpha=0.75, parse_math=False,
    )  # fmt: skip


def _draw_end(axes: Axes, at: _Point, name: str, *, left: bool) -> None:
    """Draw the drug or the disease, with its name outside."""
    axes.plot(*at, marker="o", markersize=11, color="black", zorder=2)
    axes.text(
        at.x + (-_BESIDE if left else _BESIDE), at.y, name, fontsize=NORMAL - 0.5,
        ha="right" if left else "left", va="center", weight="bold", parse_math=False,
    )  # fmt: skip


def _wrapped(name: str, letters: int, most: int) -> str:
    lines = textwrap.wrap(printable(name), letters, max_lines=most, placeholder="…")
    return "\n".join(lines)


def _draw_legend(axes: Axes, paths: Sequence[_Path], widths: Mapping[str, float]) -> None:
    """List the kinds below the picture, with their effects on the score."""
    from matplotlib.lines import Line2D

    effects = {path.kind: path.effect for path in paths}
    lines = []
    for kind, effect in effects.items():
        text = {STATED: "stated by the graph"}.get(kind, kind)
        label = text if effect is None else f"{text}, {effect:+.2g}"
        lines.append(Line2D([], [], label=label, **_line(kind, widths[kind])))
    note = "line width: effect on the score" if any(effects.values()) else None
    axes.legend(
        handles=lines, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=SMALL,
        frameon=False, title=note, title_fontsize=SMALL - 1, handlelength=3,
    )  # fmt: skip
