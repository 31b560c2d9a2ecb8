"""A report as one page of HTML that needs no network.

Names come from files of strangers: jinja2 escapes every text, and the page forbids scripts and all
requests. An address is requested only if a reader clicks a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ...api.optional import optional_package
from .tables import Cell, Interval, Share


def to_html(template: str, values: Mapping[str, Any]) -> bytes:
    """Return a page.

    Args:
        template: a file of `templates/`.
        values: what the template names.

    Raises:
        ImportError: the package jinja2 is not installed.
    """
    text: str = _environment().get_template(template).render(values)
    return text.encode()


@cache
def _environment() -> Any:
    jinja2 = optional_package("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clinical_drug_discovery.show.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "cell": cell, "number": number}
    return environment


def percent(share: float) -> str:
    """Return a share as a percentage with two digits, or one if it is small.

    Example:
        >>> percent(0.5731), percent(0.0412), percent(0.00031), percent(1.0)
        ('57%', '4.1%', '0.03%', '100%')
    """
    points = round(100 * share, 2)
    digits = 0 if points >= 9.95 else 1 if points >= 0.995 else 2
    return f"{points:.{digits}f}%"


def number(value: float) -> str:
    """Return a number with thousands separators, or with three decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{round(value, 3) + 0.0:.3f}"  # not -0.000


def cell(value: Cell) -> str:
    """Return the text of a cell of a table; of an interval, the figure alone."""
    if value is None:
        return ""
    if isinstance(value, Share):
        return percent(value)
    if isinstance(value, Interval):
        return number(float(value.value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else number(value)
