"""A figure as SVG text for a page: the same text for the same figure, and readable in the dark."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from html import escape
from typing import TYPE_CHECKING, Any

from ...api.optional import optional_package
from ...system.errors import InputError, shown
from ...system.untrusted.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLACK = re.compile(r"(?<![\w#])(#000000|black)\b")
_SVG_METADATA = ("Date", "Creator", "Format", "Type")  # which would change the bytes
_LOCK = threading.Lock()  # of the settings of matplotlib, which belong to the whole process


def svg(figure: Figure, *, title: str, description: str | None = None) -> str:
    """Return a figure as an SVG element that can stand in an HTML page.

    The text is the same in every run. Names are text in it, never markup. Black lines and letters
    take the color of the page's text (`currentColor`), and the background is transparent. The
    picture shrinks with the page. Identifiers start with a hash of the picture, so that several
    pictures can stand in one page.

    Args:
        figure: of one of the functions of this module, or any other figure of matplotlib.
        title: short name of the picture, for screen readers and as a tooltip.
        description: what the picture shows (default: the description that the functions of this
            module keep in the figure).

    Returns:
        One `<svg>` element, with the class `picture`.

    Raises:
        InputError: figure is not a figure of matplotlib.

    Example:
        >>> from clinical_drug_discovery import plot
        >>> report = {"reliability": [{"predicted": 0.1, "recorded": 0.2, "num_pairs": 9}]}
        >>> plot.svg(plot.reliability(report), title="Reliability").startswith("<svg")
        True
    """
    optional_package("matplotlib")
    from matplotlib.figure import Figure

    if not isinstance(figure, Figure):
        raise InputError(f"figure (got {shown(figure)}) must be a figure of matplotlib")
    if description is None:
        found = (ax.get_label() for ax in figure.axes)
        description = " ".join(
            str(text) for text in found if text and not str(text).startswith("<")
        )
    text = _written(figure)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    body = text[text.index(">", text.index("<svg")) + 1 :].replace("</svg>", "")
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    prefix = _prefix_of(body)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", body))
    # Names stand between the tags, with < and > escaped. They stay as they are.
    body = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], prefix, used), body)
    body = re.sub(r"\n\s*", "\n", body)
    return element(body, width, height, title=title, description=description, prefix=prefix)


def element(
    body: str, width: float, height: float, *, title: str, description: str, prefix: str = ""
) -> str:
    """Return an SVG element for a page; see `svg`.

    Args:
        body: the elements inside.
        width: in points.
        height: in points.
        title: short name of the picture.
        description: what the picture shows.
        prefix: begins the identifiers (default: from a hash of the body).
    """
    prefix = prefix or _prefix_of(body)
    names = {"title": title, "desc": description}
    texts = {tag: escape(printable(name)) for tag, name in names.items() if name}
    style = f"width: 100%; max-width: {round(width * 96 / 72)}px; height: auto"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" role="img" '
        f'viewBox="0 0 {width:g} {height:g}" '
        f'style="{style}; stroke-linejoin: round; fill: currentColor" '
        f'aria-labelledby="{" ".join(f"{prefix}-{tag}" for tag in texts)}">'
        + "".join(f'<{tag} id="{prefix}-{tag}">{text}</{tag}>' for tag, text in texts.items())
        + f"{body.strip()}</svg>"
    )


def _prefix_of(body: str) -> str:
    return f"p{hashlib.sha256(body.encode()).hexdigest()[:8]}"


def _for_page(tag: str, prefix: str, used: set[str]) -> str:
    """Return a tag with identifiers that are unique in a page, and with the page's own color."""
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' * (m[1] in used), tag)
    tag = re.sub(r"(url\(|href=\")#", rf"\1#{prefix}-", tag).replace("xlink:href", "href")
    return _BLACK.sub("currentColor", tag)


def file_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as the content of a file: the same bytes for the same figure.

    Args:
        figure: to be written.
        kind: "png" (200 dots per inch) or "svg" (with letters as outlines, so that it looks the
            same everywhere).
    """
    settings = {"svg.fonttype": "path"}
    metadata = dict.fromkeys(_SVG_METADATA) if kind == "svg" else {"Software": None}
    return _saved(figure, kind, settings, metadata, dpi=200)


def _written(figure: Figure) -> str:
    """Return the SVG that matplotlib writes, with letters as text."""
    settings, metadata = {"svg.fonttype": "none"}, dict.fromkeys(_SVG_METADATA)
    return _saved(figure, "svg", settings, metadata, transparent=True).decode()


def _saved(
    figure: Figure, kind: str, settings: dict[Any, Any], metadata: dict[str, None], **how: Any
) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with _LOCK, mpl.rc_context({"svg.hashsalt": "clinical-drug-discovery", **settings}):
        figure.draw_without_rendering()  # the first drawing of a legend differs from the others
        figure.savefig(buffer, format=kind, metadata=metadata, **how)
    return buffer.getvalue()
