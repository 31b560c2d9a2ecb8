"""Make a graph of data frames, and data frames of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl

from ...system.errors import InputError, shown
from ..formats.head import Head
from ..formats.registry import open_tables
from ..formats.table import NodeRules
from ..knowledge_graph import KnowledgeGraph
from ..read import graph_of_rows
from ..reading.records import Findings
from ..reading.rows import RowReader
from ..source import ReadSettings, Source

EDGES, NODES = "edges", "nodes"  #: the names of the frames in messages
_MISSING = ("NAType", "NaTType")  # pandas' own kinds of missing values


def graph_of_frames(
    edges: pl.DataFrame,
    nodes: pl.DataFrame | None = None,
    settings: ReadSettings | None = None,
    name: str = EDGES,
) -> KnowledgeGraph:
    """Build the graph of rows in memory, with the checks that files get.

    Args:
        edges: rows in the columns of any format that the program reads, such as those of kg.csv.
        nodes: the table of nodes, for formats that keep the nodes apart.
        settings: filters, and what to do about conflicts and missing fields.
        name: name of the edges in messages, which count the rows from 1.

    Raises:
        InputError: the rows are not a graph.
    """
    settings = ReadSettings() if settings is None else settings
    settings.check()
    listed = None if nodes is None else _head(NODES, nodes)
    reader, findings = RowReader(), Findings()
    source = Source((Path(name),), None if nodes is None else Path(NODES))
    try:
        rules = NodeRules(settings.on_conflict, settings.on_missing)
        for table in open_tables([_head(name, edges)], listed, rules):
            reader.read(table, Event())
            findings.warnings += table.warnings
    except pl.exceptions.PolarsError as error:
        first_line = str(error).split("\n")[0]
        raise InputError(f"{name} cannot be read as a graph: {first_line}") from error
    return graph_of_rows(source, settings, reader.finish(), findings)


def _head(name: str, table: pl.DataFrame) -> Head:
    return Head(Path(name), Path(name), is_parquet=True, table=table)


def frames_of(graph: KnowledgeGraph) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the nodes and the facts of a graph; `graph_of_frames` makes the same graph of them.

    Args:
        graph: on the CPU.

    Returns:
        The nodes with the columns node_index, node_id, node_type, node_name and node_source; and
        one row for each fact with the columns relation, x_index and y_index, which are numbers of
        nodes (node_index). A fact is undirected; x is the node that comes first in the nodes.
    """
    index = graph.nodes["node_index"]
    parts = []
    for r, kind in enumerate(graph.edge_types):
        src, dst = graph.sources_of(r), graph.targets_of(r)
        once = src < dst
        ends = {"x_index": index[src[once]], "y_index": index[dst[once]]}
        facts = pl.DataFrame(ends).with_columns(pl.lit(kind.relation).alias("relation"))
        parts.append(facts.select("relation", *ends))
    return graph.nodes, pl.concat(parts)


def to_polars(parameter: str, frame: Any) -> pl.DataFrame:
    """Return a polars or pandas DataFrame, or a dict of columns, as a polars DataFrame.

    pandas is not imported, and its index is left out. Missing values of pandas become null.

    Args:
        parameter: name of the parameter, for messages.
        frame: the table.

    Raises:
        InputError: it is another object, or a column does not have one kind of values.
    """
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    to_dict = getattr(frame, "to_dict", None)
    columns = to_dict("list") if to_dict and hasattr(frame, "columns") else frame
    if not isinstance(columns, Mapping):
        raise InputError(
            f"{parameter} (got {shown(frame)}) must be a polars or pandas DataFrame, or a dict of "
            "columns"
        )
    try:
        return pl.DataFrame({str(name): _series(name, col) for name, col in columns.items()})
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        first_line = str(error).split("\n")[0]
        raise InputError(f"{parameter} cannot be read as a table: {first_line}") from error


def _series(name: Any, column: Any) -> pl.Series:
    """Return a column; values of several types, such as numbers and texts, become text."""
    values = [None if type(value).__name__ in _MISSING else value for value in column]
    if any(isinstance(value, str) for value in values):
        # A missing text is NaN in pandas.
        values = [None if value is None or value != value else str(value) for value in values]
    return pl.Series(str(name), values)
