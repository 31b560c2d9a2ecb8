"""The layout of the evidence for a drug in a disease as a small network.

The drug is on the left and the disease on the right; each path is a row between them. Paths that
begin alike share these nodes. So lines meet only at the drug, at shared nodes and at the disease,
and every label has a place of its own. `network` draws the layout with matplotlib, `network_svg`
writes it as SVG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from ...graph.knowledge_graph import EdgeType
from ...ranking.evidence.sentences import PHRASES, phrase
from ...system.errors import InputError, shown
from ...system.untrusted.text import printable
from .style import BLUE, GREEN, NORMAL, PURPLE, SMALL, VERMILION

STATED, AGAINST = "stated", "contraindicated"
#: Color of each kind of path, and lengths of its dashes and gaps in points; empty: a whole line.
KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    STATED: ("black", ()),
    AGAINST: (VERMILION, ()),
    "mechanism": (BLUE, ()),
    "similar drug": (GREEN, (9, 2)),
    "related disease": (PURPLE, (14, 2, 2, 2)),
}
# Lengths in inches.
_STEP, _BEND, _HALF_LABEL, _ROW, _BELOW, _ABOVE = 1.26, 0.4, 0.6, 0.66, 0.42, 0.3
_BOLD_LETTER, _BESIDE = 0.096, 0.16  # width of a letter; from the middle of a node to its name
_LETTERS, _BOLD_LETTERS = 19, 17  # of a line of the name of a middle node, of an end
_THIN, _THICK, _PLAIN = 1.2, 5.0, 1.6  # widths of lines, in points
_DOT, _END_DOT = 7, 11  # diameters of nodes, in points

_Prefix = tuple[tuple[str, int], ...]  # phrase and node of each step from the drug to a middle node


class Point(NamedTuple):
    """A place in inches: to the right of the drug, and above the first row."""

    x: float
    y: float


class Line(NamedTuple):
    """A line from one node to the next."""

    kind: str
    width: float  #: in points
    start: Point
    #: one point: straight to it; three points: a cubic Bezier curve with two control points
    steps: tuple[tuple[Point, ...], ...]


class Dot(NamedTuple):
    """A node."""

    at: Point
    diameter: float  #: in points


class Label(NamedTuple):
    """A text of one or several lines."""

    at: Point
    text: str
    size: float  #: in points
    across: str = "center"  #: the place is at the left, center or right of the text
    along: str = "top"  #: likewise top, center or bottom
    spacing: float = 1.0  #: between lines, relative to the height of a line
    color: str = "black"
    bold: bool = False
    opacity: float = 1.0


class LegendLine(NamedTuple):
    """A kind of path in the legend."""

    kind: str
    width: float  #: of the line, in points
    text: str


@dataclass
class Layout:
    """All parts of the picture, and its size in inches."""

    left: float  #: room to the left of the drug
    right: float  #: x of the right border
    bottom: float  #: y of the border between the paths and the legend
    legend: list[LegendLine]
    legend_title: str | None
    legend_height: float
    description: str  #: all sentences of the paths, with whole names
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    top = _ABOVE

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.left + self.right, self.top - self.bottom + self.legend_height


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


def layout_of(explanation: Any) -> Layout:
    """Lay out the paths between a drug and a disease; see `network.evidence`.

    Raises:
        InputError: the explanation does not have rows, or a row does not have nodes and relations.
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
    widths = _line_widths(paths)
    legend = _legend(paths, widths)
    made = Layout(
        left,
        x[-1] + right,
        lowest - _BELOW,
        legend,
        "line width: effect on the score" if any(path.effect for path in paths) else None,
        0.3 + 0.17 * ((len(legend) + 1) // 2),
        " ".join(f"{row['text']}." for row in rows),
    )
    ends = Point(0.0, lowest / 2), Point(x[-1], lowest / 2)
    for at, name, side, shift in zip(
        ends, (drug, disease), ("right", "left"), (-_BESIDE, _BESIDE), strict=True
    ):
        made.dots.append(Dot(at, _END_DOT))
        beside = Point(at.x + shift, at.y)
        made.labels.append(Label(beside, name, NORMAL - 0.5, side, "center", 1.2, bold=True))
    drawn: set[_Prefix] = set()
    for row, path in enumerate(paths):
        start = ends[0]
        for prefix, node in zip(path.prefixes(), path.middle, strict=True):
            if prefix not in drawn:
                drawn.add(prefix)
                _add_node(made, places[prefix], node)
                _add_line(made, start, places[prefix], row, path, len(prefix), widths)
            start = places[prefix]
        _add_line(made, start, ends[1], row, path, len(path.words), widths)
    return made


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


def _placed(paths: list[_Path]) -> tuple[list[float], dict[_Prefix, Point]]:
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
    return x, {prefix: Point(x[len(prefix)], -row * _ROW) for prefix, row in rows.items()}


def _line_widths(paths: Sequence[_Path]) -> dict[str, float]:
    """Return the width of the lines of each kind, from the effect on the score."""
    effects = {path.kind: path.effect for path in paths}
    most = max((effect for effect in effects.values() if effect), default=0.0)
    return {
        kind: _PLAIN if effect is None or not most else _THIN + (_THICK - _THIN) * effect / most
        for kind, effect in effects.items()
    }


def _wrapped(name: str, letters: int, most: int) -> str:
    lines = textwrap.wrap(printable(name), letters, max_lines=most, placeholder="…")
    return "\n".join(lines)


def _add_line(
    made: Layout,
    start: Point,
    end: Point,
    row: int,
    path: _Path,
    step: int,
    widths: Mapping[str, float],
) -> None:
    """Add a line that runs along a row, with its words above, and bends at its ends if needed.

    Args:
        made: is extended.
        start: place of a node.
        end: place of the next node.
        row: number of the row of this path.
        path: gives the words and the kind.
        step: number of the step in the path, from 1.
        widths: of lines, by kind.
    """
    height = -row * _ROW
    steps: list[tuple[Point, ...]] = []
    left, right = start.x, end.x
    if start.y != height:
        begin = start.x + (_HALF_LABEL if start.x else 0.0)  # the name of a middle node is below it
        left = begin + _BEND
        middle = begin + _BEND / 2
        steps.append((Point(begin, start.y),))
        steps.append((Point(middle, start.y), Point(middle, height), Point(left, height)))
    if end.y != height:
        right = end.x - _BEND
        middle = end.x - _BEND / 2
        steps.append((Point(right, height),))
        steps.append((Point(middle, height), Point(middle, end.y), end))
    else:
        steps.append((end,))
    made.lines.append(Line(path.kind, widths[path.kind], start, tuple(steps)))
    color = VERMILION if path.kind == AGAINST else "black"
    above = Point((left + right) / 2, height + 0.06)
    made.labels.append(Label(above, path.words[step - 1], SMALL - 1, along="bottom", color=color))


def _add_node(made: Layout, at: Point, node: Mapping[str, Any]) -> None:
    """Add a middle node, with its name and its type below."""
    made.dots.append(Dot(at, _DOT))
    name = _wrapped(str(node["node_name"]), _LETTERS, 2)
    below = Point(at.x, at.y - 0.1 - 0.135 * (name.count("\n") + 1))
    kind = printable(str(node["node_type"]))
    made.labels.append(Label(Point(at.x, at.y - 0.08), name, SMALL - 0.5))
    made.labels.append(Label(below, kind, SMALL - 2, opacity=0.75))


def _legend(paths: Sequence[_Path], widths: Mapping[str, float]) -> list[LegendLine]:
    """Return the kinds of the paths, with their effects on the score."""
    effects = {path.kind: path.effect for path in paths}
    found = []
    for kind, effect in effects.items():
        text = {STATED: "stated by the graph"}.get(kind, kind)
        found.append(
            LegendLine(kind, widths[kind], text if effect is None else f"{text}, {effect:+.2g}")
        )
    return found
