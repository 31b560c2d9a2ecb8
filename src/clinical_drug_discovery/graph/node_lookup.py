"""Look up nodes by id or name, with suggestions for a name that is not found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches

import polars as pl

from ..system.errors import InputError

_MAX_CHOICES = 8


def find_node(
    nodes: pl.DataFrame, query: str, *, type: str | None = None, parameter: str = "node"
) -> int:
    """Find the node that a query names.

    Args:
        nodes: N rows.
        query: source:id, an id, or a name. If nothing matches exactly, the name's case is ignored.
        type: search only nodes of this type.
        parameter: name of the parameter that holds the query, for the error message.

    Returns:
        The row number in `nodes`.

    Raises:
        InputError: no node matches (with suggestions), or several do (with the choices).
    """
    text = query.strip()
    table = nodes.with_row_index("row")
    if type is not None:
        table = table.filter(pl.col("node_type") == type)
    name = pl.col("node_name")
    rules = (
        pl.format("{}:{}", "node_source", "node_id") == text,
        (pl.col("node_id") == text) | (name == text),
        name.str.to_lowercase() == text.lower(),
    )
    asked = f"{parameter} (got {query!r})"
    for rule in rules:
        found = table.filter(rule)
        if len(found) == 1:
            return int(found["row"][0])
        if len(found) > 1:
            raise InputError(f"{asked} is ambiguous; choose one of {_choices(found)}")
    node = "node" if type is None else f"node of type {type}"
    hint = _suggest(table, text)
    raise InputError(f"{asked} must be the name or id of a {node} in the graph{hint}")


def find_nodes(nodes: pl.DataFrame, queries: Sequence[tuple[str, str]], *, type: str) -> list[int]:
    """Find one node per query with the rules of `find_node`, but index all names only once.

    Args:
        nodes: N rows, all of one type.
        queries: pairs (name of the parameter, for the error message; query).
        type: the type of the nodes.
    """
    rules: list[dict[str, set[int]]] = [defaultdict(set), defaultdict(set)]
    columns = nodes.select("node_source", "node_id", "node_name")
    for row, (source, id_, name) in enumerate(columns.iter_rows()):
        rules[0][f"{source}:{id_}"].add(row)
        rules[1][id_].add(row)
        rules[1][name].add(row)
    found: list[int] = []
    for parameter, query in queries:
        rows = next((rule[query.strip()] for rule in rules if query.strip() in rule), set())
        if len(rows) != 1:  # rare: only the case differs, or several nodes match, or none
            rows = {find_node(nodes, query, type=type, parameter=parameter)}
        found += rows
    return found


def did_you_mean(wanted: str, known: list[str]) -> str:
    """Return the end of an error message that suggests the known word most similar to `wanted`."""
    near = get_close_matches(wanted, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _choices(found: pl.DataFrame) -> str:
    shown = [
        f"{row['node_source']}:{row['node_id']} ({row['node_type']} {row['node_name']!r})"
        for row in found.head(_MAX_CHOICES).iter_rows(named=True)
    ]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _suggest(table: pl.DataFrame, text: str) -> str:
    """Return a hint with the names that contain the text, or else names with similar spelling."""
    lowered = table["node_name"].str.to_lowercase()
    within = lowered.str.contains(text.lower(), literal=True)
    contain = table.filter(within) if text else table.clear()
    if len(contain):
        by_length = contain.sort(pl.col("node_name").str.len_chars(), "node_name")
        return f"; names that contain it: {_choices(by_length)}"
    near = get_close_matches(text.lower(), lowered.unique().sort().to_list(), n=5, cutoff=0.6)
    close = pl.concat([table.clear(), *(table.filter(lowered == name) for name in near)])
    return f"; did you mean {_choices(close)}?" if near else ""
