"""OptimusKG: Parquet tables of nodes (id, label, properties) and edges (from, to, relation)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from .head import Head
from .node_table import joined_table, read_nodes, require
from .table import NodeRules, Table

_PREFIX = r"^([A-Za-z][A-Za-z.\-]*)(?::|_[0-9])"
_NAMES = ("symbol", "name")  # PrimeKG names a gene by its symbol


class OptimusKG:
    """Node types are the labels of three letters, such as DRG, DIS and GEN.

    A node's name is in its properties, a JSON text, or a struct in the tables of one node type. The
    source is the prefix of the id (MONDO_0005148), or empty (ENSG00000141510).
    """

    name = "OptimusKG"
    has_nodes = True

    def recognizes(self, head: Head) -> bool:
        """Return True if the columns are those of OptimusKG's edges."""
        return {"from", "to", "relation", "label"} <= {*head.columns}

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        assert nodes is not None
        require(nodes, ("id", "label"))
        id_ = pl.col("id").cast(pl.String)
        columns = {"key": id_, "id": id_, "type": pl.col("label"), "name": _name(nodes)}
        columns["source"] = id_.str.extract(_PREFIX, 1).fill_null("")
        table = read_nodes(nodes, rules, columns, nodes.scan())
        yield from joined_table(self.name, edges, table, ("from", "relation", "to"), edges.scan())


def _name(nodes: Head) -> pl.Expr:
    """Return the name of each node, or null."""
    kind = nodes.scan().collect_schema().get("properties")
    properties = pl.col("properties")
    if kind == pl.String:
        return pl.coalesce(properties.str.json_path_match(f"$.{name}") for name in _NAMES)
    if isinstance(kind, pl.Struct):
        present = [field.name for field in kind.fields]
        found = [
            properties.struct.field(name).cast(pl.String) for name in _NAMES if name in present
        ]
        return pl.coalesce(found) if found else pl.lit(None)
    return pl.lit(None)
