"""The evidence for a drug in a disease as a small network, written as SVG for a page.

A page with many pictures is written so: matplotlib takes 60 ms for one of these pictures, and this
takes less than one.
"""

from __future__ import annotations

from html import escape
from typing import Any

from .inline_svg import element
from .network_layout import KINDS, Label, Layout, LegendLine, Line, Point, layout_of
from .style import SMALL

_INCH = 72  # points
_ROUND = 2  # decimals of a place in points
# Relative to the size of letters in DejaVu Sans: from the place of a text to the base of its first
# line, the height of a line, and the mean width of a letter.
_BASE = {"top": 0.82, "center": 0.26, "bottom": -0.24}
_LINE, _LETTER = 1.0, 0.53
_ANCHORS = {"left": "start", "center": "middle", "right": "end"}
_EDGE = 0.5  # points by which the drawn edge of a node makes it larger
# The legend, in points: from the paths to the base of the title and to the middle of the first
# line, from one line to the next, the length of a line, and the gaps after a line and a column.
_TITLE, _FIRST, _FIRST_BELOW_TITLE, _EACH = 14.2, 12.3, 24.3, 13.5
_SAMPLE, _AFTER_SAMPLE, _AFTER_COLUMN = 27.0, 7.2, 18.0
_FONTS = "DejaVu Sans, Bitstream Vera Sans, Verdana, Arial, Helvetica, sans-serif"


def evidence_svg(explanation: Any, *, title: str) -> str:
    """Write the paths between a drug and a disease as a network: the picture of `plot.evidence`.

    Args:
        explanation: see `plot.evidence`.
        title: short name of the picture, for screen readers and as a tooltip.

    Returns:
        One `<svg>` element, as `plot.svg` returns it.

    Raises:
        InputError: see `plot.evidence`.

    Example:
        >>> rows = model.explain("Warfarin", "atrial fibrillation")
        >>> evidence_svg(rows, title="Warfarin").startswith("<svg")
        True
    """
    found = layout_of(explanation)
    width, height = (_rounded(length * _INCH) for length in found.size)
    parts = [
        *(_line(found, one) for one in found.lines),
        *(_dot(found, one.at, one.diameter) for one in found.dots),
        *(_text(found, one) for one in found.labels),
        *_legend(found),
    ]
    body = "\n".join([f'<g font-family="{_FONTS}">', *parts, "</g>"])
    return element(body, float(width), float(height), title=title, description=found.description)


def _rounded(value: float) -> str:
    return f"{round(value, _ROUND) + 0.0:g}"


def _place(found: Layout, at: Point) -> tuple[str, str]:
    return _rounded((at.x + found.left) * _INCH), _rounded((found.top - at.y) * _INCH)


def _line(found: Layout, line: Line) -> str:
    pieces = ["M", *_place(found, line.start)]
    for step in line.steps:
        pieces.append("L" if len(step) == 1 else "C")
        for point in step:
            pieces += _place(found, point)
    return f'<path d="{" ".join(pieces)}" {_style(line.kind, line.width)}/>'


def _style(kind: str, width: float) -> str:
    color, dashes = KINDS.get(kind, ("black", ()))
    dashed = f' stroke-dasharray="{",".join(map(str, dashes))}"' if dashes else ""
    return f'fill="none" stroke="{_color(color)}" stroke-width="{_rounded(width)}"{dashed}'


def _color(color: str) -> str:
    return "currentColor" if color == "black" else color


def _dot(found: Layout, at: Point, diameter: float) -> str:
    x, y = _place(found, at)
    return f'<circle cx="{x}" cy="{y}" r="{diameter / 2 + _EDGE:g}"/>'


def _text(found: Layout, label: Label) -> str:
    x, y = _place(found, label.at)
    lines = label.text.split("\n")
    each = _LINE * label.spacing * label.size
    first = float(y) + _BASE[label.along] * label.size
    if label.along == "center":
        first -= each * (len(lines) - 1) / 2
    style = f'font-size="{label.size:g}" text-anchor="{_ANCHORS[label.across]}"'
    style += ' font-weight="700"' * label.bold
    style += f' fill="{label.color}"' * (label.color != "black")
    style += f' opacity="{label.opacity:g}"' * (label.opacity < 1)
    return "\n".join(
        f'<text x="{x}" y="{_rounded(first + i * each)}" {style}>{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _legend(found: Layout) -> list[str]:
    """Return the legend, in two columns below the middle of the paths."""
    top, middle = (found.top - found.bottom) * _INCH, found.size[0] * _INCH / 2
    parts, first = [], top + _FIRST
    if found.legend_title:
        first = top + _FIRST_BELOW_TITLE
        style = f'font-size="{SMALL - 1}" text-anchor="middle"'
        at = f'x="{_rounded(middle)}" y="{_rounded(top + _TITLE)}"'
        parts.append(f"<text {at} {style}>{escape(found.legend_title)}</text>")
    half = (len(found.legend) + 1) // 2
    columns = [one for one in (found.legend[:half], found.legend[half:]) if one]
    widths = [_SAMPLE + _AFTER_SAMPLE + _LETTER * SMALL * _longest(one) for one in columns]
    x = middle - (sum(widths) + _AFTER_COLUMN * (len(columns) - 1)) / 2
    for column, width in zip(columns, widths, strict=True):
        for row, one in enumerate(column):
            y, style = first + row * _EACH, _style(one.kind, one.width)
            line = f"M {_rounded(x)} {_rounded(y)} h {_SAMPLE:g}"
            at = f'x="{_rounded(x + _SAMPLE + _AFTER_SAMPLE)}" y="{_rounded(y + 0.35 * SMALL)}"'
            parts.append(f'<path d="{line}" {style}/>')
            parts.append(f'<text {at} font-size="{SMALL}">{escape(one.text)}</text>')
        x += width + _AFTER_COLUMN
    return parts


def _longest(column: list[LegendLine]) -> int:
    return max(len(one.text) for one in column)
