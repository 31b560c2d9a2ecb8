"""The protocol of a format: recognize the first lines of a file, and give its rows as tables.

A format maps the columns of its files to the columns below. The reading engine (`graph.read`) takes
any table. It checks nodes and rows, numbers nodes, and drops duplicates, in the same way for every
format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from .head import Head

FIELDS = ("source", "type", "id", "name")
#: The columns of a table. `x_index` and `y_index`, the numbers of the nodes, are optional.
COLUMNS = ("relation", *(f"{side}_{field}" for side in "xy" for field in FIELDS))
INDEX = ("x_index", "y_index")
KEY = "key"  #: the column by which edges name nodes that a format keeps apart
SKIP = "#skip"  #: column of a table: True for rows that are not facts, such as blank lines
AROUND_WORDS = "\ufeff\"' \t\r\xa0"  #: characters around a word of a repeated header
HEADER_ROWS = 1  # the header of a text file is row 1, as in a text editor


def header_word(text: str) -> str:
    """Return a word of a header in the form that is compared with repeated headers."""
    return text.strip(AROUND_WORDS).lower()


@dataclass(frozen=True)
class Table:
    """Rows of facts in the columns `COLUMNS` and `SKIP`.

    The frame has one row for each row of the file, in the order of the file, so that row numbers
    are right. `SKIP` is usually `Head.is_blank`. The engine casts the other columns to text.
    """

    path: Path  #: the file that messages name
    format: str  #: name of the format and, if unusual, the separator; for the log
    frame: pl.LazyFrame
    first_row: int  #: number of the first row of `frame` in the file, as a text editor counts
    #: column of the table: its name in the header of the file; empty for a file without a header.
    #: The engine finds a header that is repeated in the middle by these names.
    header: Mapping[str, str] = field(default_factory=dict)
    #: words of headers; a row of such words alone is a header in another order, and is refused
    header_words: tuple[str, ...] = ()
    #: fields ("name", "source") that the format fills in, because the file lacks them. They may be
    #: empty text. If "source" is among them, nodes of two types may have the same id.
    filled: tuple[str, ...] = ()
    hint: str = ""  #: why a field may be missing, such as "the node is not in nodes.csv"
    #: the nodes, if the format keeps them apart from the edges: the columns key, id, type, name,
    #: source and perhaps index. The frame then has the columns relation, x_key and y_key instead of
    #: `COLUMNS`, and the engine looks up each distinct key once. Nodes without rows are left out.
    nodes: pl.DataFrame | None = None
    warnings: tuple[str, ...] = ()  #: texts for the user about the list of nodes

    @property
    def num_nodes(self) -> int | None:
        """The number of nodes that the format lists apart from the edges, or None."""
        return None if self.nodes is None else len(self.nodes)

    @property
    def has_numbers(self) -> bool:
        """True if the nodes are numbered."""
        if self.nodes is not None:
            return "index" in self.nodes.columns
        return INDEX[0] in self.frame.collect_schema().names()


@dataclass(frozen=True)
class NodeRules:
    """Rules for faults in a list of nodes; see `graph.source.ReadSettings`."""

    on_conflict: str = "error"  #: error or first
    on_missing: str = "error"  #: error or drop


NODE_RULES = NodeRules()  #: stop at the first fault


class Format(Protocol):
    """A file format. Register an instance in `registry.FORMATS`."""

    @property
    def name(self) -> str:
        """The name for the log, the documentation and error messages."""

    @property
    def has_nodes(self) -> bool:
        """True if the nodes are in a second file, which the user gives as `nodes`."""

    def recognizes(self, head: Head) -> bool:
        """Return True if the first lines are of this format; never look at the suffix."""

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterable[Table]:
        """Return the rows of one file.

        Args:
            edges: a file that this format recognizes.
            nodes: the node table; None if `has_nodes` is False.
            rules: what to do about faults in the list of nodes, if the format has one.

        Raises:
            InputError: the header or the node table is invalid.
        """
