"""PrimeKG's `kg.csv`: one table with all fields of both nodes in each row; CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from ...system.errors import InputError
from .head import Head
from .node_table import joined_table, read_nodes, require
from .table import COLUMNS, HEADER_ROWS, INDEX, SKIP, NodeRules, Table, header_word

_OPTIONAL = ("name", "source")
_REQUIRED = tuple(name for name in COLUMNS if not name.endswith(_OPTIONAL))
_DISTINCTIVE = ("x_id", "y_id", "x_name", "y_name")  # in no other format


class PrimeKG:
    """Columns relation, x_id, x_type, x_name, x_source, and the same four with y_.

    Names and sources may be left out. A node's name is then its id, and its source is empty.
    """

    name = "PrimeKG kg.csv"
    has_nodes = False

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has a name or an id of each node, and is not TxGNN's."""
        return len({*_DISTINCTIVE} & {*head.columns}) >= 2 and "x_idx" not in head.columns

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        present = edges.columns
        if missing := [name for name in _REQUIRED if name not in present]:
            found = ", ".join(repr(name[:40]) for name in present[:15])
            raise InputError(f"{edges.path}: the header lacks {', '.join(missing)}; it has {found}")
        for pair in (INDEX, *((f"x_{field}", f"y_{field}") for field in _OPTIONAL)):
            found_names = [name for name in pair if name in present]
            if len(found_names) == 1:
                rule = f"it must have both or neither of {' and '.join(pair)}"
                raise InputError(f"{edges.path}: the header has {found_names[0]}; {rule}")
        given = [name for name in (*COLUMNS, *INDEX) if name in present]
        words = [header_word(name) for name in present]
        if twice := [name for name in given if words.count(name) > 1]:
            # polars would rename the second column
            raise InputError(f"{edges.path}: the header has {', '.join(twice)} more than once")
        filled = tuple(field for field in _OPTIONAL if f"x_{field}" not in present)
        yield Table(
            path=edges.path,
            format=self.name + edges.separator_note,
            frame=edges.scan().with_columns(
                edges.is_blank.alias(SKIP),
                *(
                    (pl.col(f"{side}_id") if field == "name" else pl.lit("")).alias(
                        f"{side}_{field}"
                    )
                    for field in filled
                    for side in "xy"
                ),
            ),
            first_row=1 if edges.is_parquet else HEADER_ROWS + 1,
            header={} if edges.is_parquet else {name: name for name in given},
            header_words=edges.columns,
            filled=filled,
            warnings=tuple(
                f"{edges.path}: the columns x_{field} and y_{field} are missing; "
                + ("the ids stand for the names" if field == "name" else "the sources are empty")
                for field in filled
            ),
        )


class PrimeKGTables:
    """PrimeKG's `edges.csv` (relation, x_index, y_index) and `nodes.csv` (node_index, ...).

    Names and sources of the nodes may be left out.
    """

    name = "PrimeKG edges.csv and nodes.csv"
    has_nodes = True

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has the numbers of both nodes, and no ids."""
        return {"relation", *INDEX} <= {*head.columns} and "x_id" not in head.columns

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        assert nodes is not None
        require(edges, ("relation", *INDEX))
        require(nodes, ("node_index", "node_id", "node_type"))
        index = pl.col("node_index")
        columns = {"key": index, "index": index}
        columns |= {field: pl.col(f"node_{field}") for field in ("id", "type")}
        given = [field for field in _OPTIONAL if f"node_{field}" in nodes.columns]
        columns |= {field: pl.col(f"node_{field}") for field in given}
        columns.setdefault("name", pl.lit(None))
        columns.setdefault("source", pl.lit(""))
        table = read_nodes(nodes, rules, columns, nodes.scan())
        if "source" not in given:
            text = f"{nodes.path}: the column node_source is missing; the sources are empty"
            table = replace(table, warnings=(*table.warnings, text))
        ends = ("x_index", "relation", "y_index")
        filled = ("name", *(field for field in ("source",) if field not in given))
        yield from joined_table(self.name, edges, table, ends, edges.scan(), filled=filled)
