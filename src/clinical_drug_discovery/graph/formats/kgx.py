"""KGX: TSV tables of nodes (id, category, name) and edges (subject, predicate, object)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from .head import Head
from .node_table import joined_table, most_specific, read_nodes, require
from .table import NodeRules, Table

_ENDS = ("subject", "predicate", "object")
#: Anything else in "negated" denies the fact. The word "negated" is in a repeated header.
_NOT_DENIED = ("false", "0", "0.0", "no", "f", "n", "", "negated")


class KGX:
    """The names of the Biolink Model; the KGX specification requires id and category of a node.

    A node's type is the most specific of its categories, which are separated by |. The source is
    the prefix of the id. An edge with "negated" says that the fact does not hold; it gets a
    relation of its own ("not biolink:treats"). KGX does not quote fields, so a quotation mark is a
    character like any other, unless the header is quoted.
    """

    name = "KGX"
    has_nodes = True

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has subject, predicate and object."""
        return {*_ENDS} <= {*head.columns}

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        assert nodes is not None
        require(edges, _ENDS)
        require(nodes, ("id", "category"))
        frame = _scan(nodes)
        name = pl.col("name") if "name" in nodes.columns else pl.lit(None)
        columns = {"key": pl.col("id"), "id": pl.col("id"), "name": name}
        columns["type"], warnings = most_specific(nodes, frame, "category", "|")
        table = read_nodes(nodes, rules, columns, frame)
        table = replace(table, warnings=table.warnings + warnings)
        rows = _scan(edges)
        for column in edges.columns:
            if column.strip().lower() != "negated":
                continue
            denied = ~pl.col(column).cast(pl.String).str.strip_chars().str.to_lowercase().is_in(
                _NOT_DENIED
            )
            denied = denied.fill_null(False)
            predicate = pl.col("predicate")
            rows = rows.with_columns(
                pl.when(denied)
                .then(pl.format("not {}", predicate))
                .otherwise(predicate)
                .alias("predicate")
            )
        yield from joined_table(self.name, edges, table, _ENDS, rows)


def _scan(head: Head) -> pl.LazyFrame:
    return head.scan(quoted=head.is_parquet or '"' in head.lines[0])
