"""Neo4j: the two files of `neo4j-admin import`, or the one file of `apoc.export.csv`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from ...system.errors import InputError, counted
from .head import Head
from .node_table import ROW, joined_table, most_specific, read_nodes, require
from .table import HEADER_ROWS, NodeRules, Table

_APOC = ("_id", "_labels", "_start", "_end", "_type")


class Neo4jImport:
    """Relationships have :START_ID, :END_ID and :TYPE; nodes have :ID, :LABEL and properties.

    A node's type is the most specific of its labels, which are separated by ; and its name is the
    property "name". The node table must be one file.
    """

    name = "Neo4j import CSV"
    has_nodes = True

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has a :START_ID and an :END_ID."""
        return all(_find(head, mark) for mark in ("START_ID", "END_ID"))

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        assert nodes is not None
        columns = _one(edges, "START_ID"), _one(edges, "TYPE"), _one(edges, "END_ID")
        id_, frame = pl.col(_one(nodes, "ID")), nodes.scan()
        named = [name for name in nodes.columns if name.split(":")[0] == "name"]
        kind, warnings = most_specific(nodes, frame, _one(nodes, "LABEL"), ";")
        fields = {"key": id_, "id": id_, "type": kind}
        fields["name"] = pl.col(named[0]) if named else pl.lit(None)
        table = read_nodes(nodes, rules, fields, frame)
        table = replace(table, warnings=table.warnings + warnings)
        yield from joined_table(self.name, edges, table, columns, edges.scan())


class Neo4jAPOC:
    """One file: rows of nodes (_id, _labels, ...) and rows of relationships (_start, _end, ...).

    A node's id is its property "identifier" or "id" (left of the column _start), else the number
    that the database gave it.
    """

    name = "Neo4j APOC CSV"
    has_nodes = False

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has the columns that APOC adds."""
        return {*_APOC} <= {*head.columns}

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        require(edges, _APOC)
        properties = edges.columns[: edges.columns.index("_start")]
        frame = edges.scan().with_columns(
            pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in _APOC
        )
        numbered = frame.with_row_index(ROW, offset=HEADER_ROWS + 1)
        found = numbered.filter(pl.col("_id").is_not_null())
        own = [pl.col(name) for name in ("identifier", "id") if name in properties]
        id_ = pl.coalesce(*(pl.when(one != "").then(one) for one in own), "_id")
        name = pl.col("name") if "name" in properties else pl.lit(None)
        fields = {"key": pl.col("_id"), "id": id_, "name": name}
        fields["type"], warnings = most_specific(edges, found, "_labels", ":")
        table = read_nodes(edges, rules, fields, found)
        warnings += table.warnings
        if not own:
            text = "nodes have neither a property identifier nor id; the database's numbers stand"
            warnings += (f"{edges.path}: the {text} for them",)
        given = pl.any_horizontal(pl.lit(False), *(one.fill_null("") != "" for one in own))
        without = found.filter(~given).select(pl.len()).collect().item() if own else 0
        if without:
            text = "nodes lack the property identifier or id; the database's numbers stand for it"
            warnings += (f"{edges.path}: {without:,} {text}",)
        if empty := frame.filter(edges.is_blank).select(pl.len()).collect().item():
            text = "without a node and a relationship"
            verb = "is" if empty == 1 else "are"
            warnings += (f"{edges.path}: {counted(empty, 'row')} {text} {verb} left out",)
        hint = f"the node does not have a row in {edges.path.name}"
        if not own:
            text = f"{edges.path}: the properties identifier and id are missing; the ids are the "
            text += "numbers that the database gave the nodes"
            table = replace(table, warnings=(*table.warnings, text))
        ends = ("_start", "_type", "_end")
        is_node = pl.col("_id").is_not_null() & pl.all_horizontal(pl.col(ends).is_null())
        yield from joined_table(
            self.name,
            edges,
            replace(table, hint=hint, warnings=warnings),
            ends,
            frame,
            skip=edges.is_blank | is_node,
        )


def _find(head: Head, mark: str) -> list[str]:
    """Return the columns of a kind: `:ID`, `id:ID` or `id:ID(Space)` for the mark ID."""
    pattern = re.compile(rf"[^:]*:{mark}(\(.*\))?(\{{.*\}})?")
    return [name for name in head.columns if pattern.fullmatch(name)]


def _one(head: Head, mark: str) -> str:
    found = _find(head, mark)
    if len(found) != 1:
        has = "lacks" if not found else "has more than once"
        names = ", ".join(repr(name[:40]) for name in head.columns[:15])
        raise InputError(f"{head.path}: the header {has} a column :{mark}; it has {names}")
    return found[0]
