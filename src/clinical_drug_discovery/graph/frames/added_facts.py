"""Add facts and new nodes to a graph, without a change of its old nodes and edge types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...system.errors import InputError, counted
from ...system.untrusted.inputs import check_regular
from ..identifiers import normalize_name, shown_identifier
from ..knowledge_graph import IntArray, KnowledgeGraph, edges_of
from ..node_lookup import NodeIndex, did_you_mean
from ..read import read_graph
from ..reading.records import listed
from .fact_rows import row_of_fact, rows_of_nodes
from .merged_edges import Ends, Keys, merge_edges
from .tables import graph_of_frames

NAME = "facts"  #: the name of facts in messages
_NUMBERS = ("x_index", "y_index")


@dataclass(frozen=True)
class ExtendedGraph:
    """A graph with added facts. Its old nodes keep their order; new nodes end their node type."""

    graph: KnowledgeGraph
    number: IntArray  #: shape (old nodes,): the number of each old node in the new graph
    new_nodes: pl.DataFrame  #: the new rows of the node table
    num_new_facts: int  #: facts that the old graph lacks


def read_facts(facts: pl.DataFrame | Path, parameter: str = NAME) -> KnowledgeGraph | None:
    """Read facts in the columns of kg.csv, as a graph of their own.

    Args:
        facts: the rows, or a file. Numbers of nodes (x_index, y_index) are ignored in rows.
        parameter: name of the parameter that holds the path, for messages.

    Returns:
        The graph; None for a table without rows.

    Raises:
        InputError: the facts cannot be read as a graph.
    """
    if isinstance(facts, Path):
        check_regular(parameter, facts)
    elif facts.is_empty():
        return None
    try:
        if isinstance(facts, Path):
            return read_graph(facts)
        return graph_of_frames(facts.drop(_NUMBERS, strict=False), name=NAME)
    except InputError as error:
        raise type(error)(error.without_option) from error.__cause__


def add_facts(
    graph: KnowledgeGraph,
    facts: KnowledgeGraph,
    name: str = NAME,
    rows: pl.DataFrame | Path | None = None,
) -> ExtendedGraph:
    """Add the facts of one graph to another graph.

    A node of the facts is an old node if its type, its id and (if the facts have sources) its
    source are equal. The order of the facts does not matter.

    Args:
        graph: on the CPU.
        facts: see `read_facts`.
        name: name of the facts in messages.
        rows: what the facts were read from, so that a message can name the row.

    Raises:
        InputError: a node has a type, a name or an id that contradicts the graph, or the graph does
            not have the relation of a fact between nodes of these types.
    """
    rows = pl.DataFrame() if rows is None else rows
    _check_edge_types(graph, facts, name, rows)
    old = _old_nodes(graph, facts.nodes, name, rows)
    new = facts.nodes.filter(pl.Series(old < 0))
    _check_new(graph, new, name, rows)
    first = int(graph.nodes["node_index"].max() or 0) + 1  # type: ignore[arg-type]  # a number
    new = new.sort("node_type", "node_source", "node_id")
    numbers = pl.int_range(first, first + new.height, dtype=pl.Int64, eager=True)
    new = new.with_columns(node_index=numbers.cast(graph.nodes["node_index"].dtype))
    nodes = pl.concat([graph.nodes, new.select(graph.nodes.columns)])
    nodes = nodes.with_row_index("#row").sort("node_type", "node_index")
    place = np.empty(nodes.height, np.int64)  # of each old and then each new node
    place[nodes["#row"].to_numpy()] = np.arange(nodes.height)
    nodes = nodes.drop("#row")
    number = place[: graph.num_nodes]
    of_facts = np.where(old < 0, 0, place[old])
    of_facts[old < 0] = _rows_of(nodes, facts.nodes.filter(pl.Series(old < 0)))
    arrays = merge_edges(graph, _type_ptr(graph, new), number, _edges(graph, facts, of_facts))
    num_facts = len(arrays.src) // 2
    report = graph.report
    num_new_facts = num_facts - report.num_facts
    report = replace(
        report,
        num_rows=report.num_rows + facts.report.num_rows,
        num_facts=num_facts,
        num_duplicate_rows=report.num_duplicate_rows + facts.report.num_rows - num_new_facts,
    )
    larger = replace(graph, arrays=arrays, nodes=nodes, report=report)
    return ExtendedGraph(larger, number, new, num_facts - graph.num_edges // 2)


def _type_ptr(graph: KnowledgeGraph, new: pl.DataFrame) -> Keys:
    """Return where each node type begins, if new nodes end their types."""
    counts = dict(new["node_type"].value_counts().iter_rows())
    more = [counts.get(name, 0) for name in graph.node_type_names]
    return graph.arrays.type_ptr + np.cumsum([0, *more], dtype=np.int64)


def _edges(graph: KnowledgeGraph, facts: KnowledgeGraph, number: IntArray) -> dict[int, Ends]:
    """Return the edges of facts by their edge type in the graph.

    Args:
        graph: has all edge types of the facts.
        facts: see `read_facts`.
        number: shape (nodes of the facts,), the number of each node among all nodes.
    """
    found = {}
    for r, kind in enumerate(facts.edge_types):
        src, dst = edges_of(facts, [r])
        found[graph.edge_types.index(kind)] = number[src], number[dst]
    return found


def _old_nodes(
    graph: KnowledgeGraph, nodes: pl.DataFrame, name: str, rows: pl.DataFrame | Path
) -> IntArray:
    """Return the number in the graph of each node of the facts, or -1 for a new node.

    Raises:
        InputError: an id is ambiguous, or an old node has another name.
    """
    keys = ["node_type", "node_id"]
    if (nodes["node_source"] != "").any():
        keys.append("node_source")
    asked = nodes.select(*keys, "node_name").with_row_index("row")
    known = graph.nodes.select(*keys, old_name="node_name").with_row_index("old")
    found = asked.join(known, on=keys, how="inner", maintain_order="left_right")
    if (twice := found["row"].is_duplicated()).any():
        row = found.filter(twice).row(0, named=True)
        where = rows_of_nodes(rows).get((row["node_type"], row["node_id"]), "")
        raise InputError(
            f"{name}{where}: the id {row['node_id']!r} of type {row['node_type']!r} is ambiguous "
            "in the graph; add the columns x_source and y_source"
        )
    others = [
        row
        for row in found.filter(pl.col("node_name") != pl.col("old_name")).iter_rows(named=True)
        if row["node_name"] != row["node_id"]  # the id stands for a name that is not given
        and normalize_name(row["node_name"]) != normalize_name(row["old_name"])
    ]
    if others:
        places = rows_of_nodes(rows)
        texts = [
            f"{row['node_type']} {row['node_id']!r} is {row['node_name']!r}"
            f"{places.get((row['node_type'], row['node_id']), '')}, but in the graph it is "
            f"{row['old_name']!r}"
            for row in others
        ]
        raise InputError(f"{name}: an old node must have its name: {listed(texts)}")
    old = np.full(nodes.height, -1, np.int64)
    old[found["row"].to_numpy()] = found["old"].to_numpy()
    return old


def _check_new(
    graph: KnowledgeGraph, new: pl.DataFrame, name: str, facts: pl.DataFrame | Path
) -> None:
    """Check that new nodes are not old nodes in another spelling.

    Raises:
        InputError: the identifier of a new node fits an old node.
    """
    for kind in new["node_type"].unique().sort():
        index = NodeIndex(graph.nodes, type=kind)
        for row in new.filter(pl.col("node_type") == kind).iter_rows(named=True):
            text = (
                row["node_id"]
                if not row["node_source"]
                else f"{row['node_source']}:{row['node_id']}"
            )
            rows = index.rows_of_identifier(text)
            if rows:
                where = rows_of_nodes(facts).get((kind, row["node_id"]), "")
                raise InputError(
                    f"{name}{where}: the id {text!r} of type {kind!r} is another spelling of "
                    f"{index.choices(rows)}; write id and source as in the graph"
                )


def _rows_of(nodes: pl.DataFrame, some: pl.DataFrame) -> IntArray:
    """Return the row in `nodes` of each of some new nodes."""
    keys = ["node_type", "node_source", "node_id"]
    rows = some.select(keys).join(
        nodes.select(keys).with_row_index("#row"), on=keys, how="left", maintain_order="left"
    )
    found: IntArray = rows["#row"].to_numpy()
    return found


def _check_edge_types(
    graph: KnowledgeGraph, facts: KnowledgeGraph, name: str, rows: pl.DataFrame | Path
) -> None:
    """Check that the graph has the types and relations of the facts.

    Raises:
        InputError: the graph lacks one of them.
    """
    types, relations = list(graph.node_type_names), list(graph.relations)
    for names, known, what in (
        (facts.node_type_names, types, "x_type or y_type"),
        (facts.relations, relations, "relation"),
    ):
        for one in names:
            if one not in known:
                asked = {"relation": one} if known is relations else {"types": [one]}
                raise InputError(
                    f"{name}{row_of_fact(rows, **asked)}: {what} (got {one!r}) must be one of "
                    f"{', '.join(known)}"
                    f"{did_you_mean(one, known)}"
                )
    if not (graph.edge_type_counts.all() and np.diff(graph.type_offsets).all()):
        raise InputError(f"{name}: the graph of the model has types without nodes or edges")
    for kind in facts.edge_types:
        if kind not in graph.edge_types:
            ends = {kind.src_type, kind.dst_type}
            fit = {k.relation for k in graph.edge_types if {k.src_type, k.dst_type} == ends}
            rule = f"must be one of {', '.join(sorted(fit))}" if fit else "must be left out"
            where = row_of_fact(rows, relation=kind.relation, types=sorted(ends))
            raise InputError(
                f"{name}{where}: relation (got {kind.relation!r}) {rule} between "
                f"{kind.src_type} and {kind.dst_type}, as in the graph of the model"
            )


def known_nodes(graph: KnowledgeGraph, other: KnowledgeGraph) -> tuple[IntArray, IntArray]:
    """Return the nodes that two graphs share, by type, source and id: their numbers in each."""
    keys = ["node_type", "node_source", "node_id"]
    one, two = (
        table.select(keys).with_row_index(name)
        for table, name in ((graph.nodes, "one"), (other.nodes, "two"))
    )
    both = one.join(two, on=keys, how="inner", maintain_order="left_right")
    return both["one"].to_numpy().astype(np.int64), both["two"].to_numpy().astype(np.int64)


def described(extended: ExtendedGraph) -> str:
    """Return one line about what was new."""
    new = [
        f"{row['node_type']} {row['node_name']} "
        f"({shown_identifier(row['node_id'], row['node_source'], row['node_type'])})"
        for row in extended.new_nodes.iter_rows(named=True)
    ]
    return (
        f"Added {counted(extended.num_new_facts, 'new fact')}; new nodes: {listed(new) or 'none'}"
    )
