"""Pictures by matplotlib, for papers, reports and notebooks.

Each function returns a `matplotlib.figure.Figure`, or draws into the axes that it gets. The module
pyplot is never imported, so a figure belongs to the caller alone, and windows of other figures stay
as they are. `svg` turns a figure into text for a page.

The extra `plot` has the packages: `pip install matplotlib plotly umap-learn`.
"""

from __future__ import annotations

from .curves import recall, reliability, strata
from .inline_svg import svg
from .network import evidence
from .points import map_nodes as map  # noqa: A004  # plot.map reads best
from .training import history

__all__ = ["evidence", "history", "map", "recall", "reliability", "strata", "svg"]
