"""A map as one HTML file that needs no network: plotly.js and all names are inside.

Names may come from a stranger. They are in the file as JSON whose <, > and & are escaped, the
script writes them as text, and a content security policy keeps the page from loading anything.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from ...api.optional import optional_package
from ...graph.identifiers import shown_identifier
from ...system.untrusted.text import printable
from .node_map import ALL, NodeMap

#: plotly's names of matplotlib's markers.
_SYMBOLS = {"o": "circle", "^": "triangle-up", "s": "square"}
_DIGITS = 3  # after the point, of a map that is about 20 wide
# Above, points are drawn by WebGL, which some browsers and remote desktops lack.
_MOST_WITHOUT_WEBGL = 10_000


def map_page(node_map: NodeMap, styles: list[tuple[str, str]], gray: str) -> str:
    """Return the HTML page of a map.

    Args:
        node_map: what to draw.
        styles: color and marker (of matplotlib) of each group, the most frequent first.
        gray: color of the other groups.

    Raises:
        ImportError: plotly is not installed.
    """
    script = optional_package("plotly.offline", install="plotly").get_plotlyjs()
    kind = "all" if node_map.choice.type == ALL else node_map.choice.type
    title = f"Map of {kind} nodes by {node_map.choice.color_by}"
    number = node_map.nodes.height
    size = round(float(np.clip(60 / number**0.35, 2.5, 9)), 1)
    data = {
        "title": node_map.coloring.title,
        "traces": _traces(node_map, styles, gray),
        "size": size,
        "webgl": number > _MOST_WITHOUT_WEBGL,
        "logarithmic": node_map.coloring.numbers is not None,
    }
    rows = "".join(
        f"<tr><td>{escape(printable(name))}</td><td>{len(places):,}</td></tr>"
        for name, places in node_map.coloring.legend()
    )
    table = f"<details><summary>Groups</summary><table>{rows}</table></details>" if rows else ""
    return (
        _static("head.html")
        .replace("TITLE", escape(printable(title)))
        .replace("ABOUT", escape(printable(node_map.describe())))
        .replace("TABLE", table)
        + f"<script>{script}</script>\n"
        + f'<script type="application/json" id="data">{_safe_json(data)}</script>\n'
        + f"<script>{_static('map.js')}</script>\n</body>\n</html>\n"
    )


def _static(name: str) -> str:
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def _traces(node_map: NodeMap, styles: list[tuple[str, str]], gray: str) -> list[dict[str, Any]]:
    """Return the points of each group, the gray ones first, so that the others lie on top."""
    nodes, groups = node_map.nodes, node_map.coloring.groups
    ids = [
        shown_identifier(*row) for row in nodes.select("node_id", "node_source", "node_type").rows()
    ]
    names = [printable(name) for name in nodes["node_name"]]
    places = np.round(node_map.places.astype(np.float64), _DIGITS)

    def points(at: list[int]) -> dict[str, Any]:
        return {
            "x": places[at, 0].tolist(),
            "y": places[at, 1].tolist(),
            "names": [names[i] for i in at],
            "ids": [printable(ids[i]) for i in at],
        }

    if node_map.coloring.numbers is not None:
        order = np.argsort(node_map.coloring.numbers, kind="stable").tolist()
        values = node_map.coloring.numbers[order].astype(int).tolist()
        return [{"name": node_map.coloring.title, "values": values, **points(order)}]
    traces: list[dict[str, Any]] = []
    gray_ones: list[dict[str, Any]] = []
    for order, (name, at) in enumerate(node_map.coloring.legend()):
        has_color = name in (groups or ()) and order < len(styles)
        color, marker = styles[order] if has_color else (gray, "o")
        trace = {
            "name": f"{printable(name)} ({len(at):,})",
            "color": color,
            "symbol": _SYMBOLS[marker],
            "gray": not has_color,
            "rank": order,
            **points(at),
        }
        (traces if has_color else gray_ones).append(trace)
    return gray_ones + traces


def _safe_json(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
