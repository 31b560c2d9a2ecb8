"""Read a graph from the files of any known format; see `formats` for the formats.

The files are read once, in batches. Each row is reduced to three small integers. Strings are kept
only for distinct nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from filecmp import cmp
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from ..system import log
from ..system.errors import InputError
from ..system.files import WriteError
from ..system.untrusted.panics import without_panics
from .building.edges import NodeTypes, build_graph, count_facts
from .building.facts import Facts, Mask, distinct_facts
from .building.keys import node_bits
from .formats.head import Head, read_head
from .formats.plain_file import LINE_ENDS, STDIN, lacks_final_newline, plain_file
from .formats.registry import open_tables
from .formats.table import FIELDS, NodeRules, Table
from .formats.triples import ENTITY, Triples
from .knowledge_graph import IntArray, KnowledgeGraph, ReadReport
from .node_lookup import did_you_mean
from .read_errors import explain_unreadable, is_parquet
from .reading.odd_values import check_values, odd_rows
from .reading.parquet_sizes import check_all_read, check_parquet
from .reading.quotes import QuoteCheck
from .reading.records import (
    Findings,
    check_numbers,
    merge_records,
    remove_incomplete_rows,
    remove_repeated_headers,
)
from .reading.room import ReadingMemory, ReadingPlan, plan_reading
from .reading.rows import ROW, TABLE, RowReader, Rows
from .reading.spellings import check_spellings
from .reading.unpacking import Limit, check_rows
from .source import EdgesPath, ReadSettings, Source

_SEPARATED = ", separated"  # begins `Head.separator_note`
_MAX_RELATIONS, _MAX_TYPES = 10_000, 1_000
_UNREADABLE = (
    pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError
)  # fmt: skip


def read_graph(
    source: EdgesPath | Source,
    settings: ReadSettings | None = None,
    memory: ReadingMemory | None = None,
) -> KnowledgeGraph:
    """Read a knowledge graph from the files of any known format.

    A node is identified by (source, type, id). If the files have node numbers (x_index, y_index),
    each node must have one number, and each number one node. The files may have each fact once or
    in both directions (like PrimeKG); the graph always has edges in both directions. Duplicate rows
    and self-loops are dropped and counted in the report. The order of rows does not matter.

    Suspicious spellings and dropped rows give warnings, which the report holds.

    Args:
        source: the edges file, a list of edges files, or a `Source`.
        settings: filters, and what to do about conflicts and missing fields.
        memory: the memory for reading, and a directory for rows that do not fit into it; None:
            what is free, without a directory. It does not change the graph.

    Raises:
        InputError: the files cannot be read as a graph, a setting is invalid for this graph, or the
            process cannot take the memory for reading.
        WriteError: the disk of the directory is full.
    """
    source = source if isinstance(source, Source) else Source.of(source)
    settings = ReadSettings() if settings is None else settings
    settings.check()
    plan = plan_reading(source.files, memory or ReadingMemory())
    if plan.text:
        log.milestone(plan.text)
    rows, findings = _read_rows(source, settings, plan)
    return graph_of_rows(source, settings, rows, findings, plan.directory)


def graph_of_rows(
    source: Source,
    settings: ReadSettings,
    rows: Rows,
    findings: Findings,
    directory: Path | None = None,
) -> KnowledgeGraph:
    """Check rows, and build their graph; see `read_graph`. The rows are used up.

    `directory` is that of files for the facts and the edges; None: they lie in memory.
    """
    num_rows = rows.num_rows
    _check_same_fields(rows)
    remove_repeated_headers(rows, findings)
    remove_incomplete_rows(rows, settings.on_missing, findings)
    check_numbers(rows)
    merged = merge_records(rows, settings.on_conflict, findings)
    odd = odd_rows(rows)
    nodes, node_of = _sorted_nodes(source, rows, merged)
    findings.warnings += [*check_spellings(rows, nodes), *check_values(rows, nodes), *odd]
    relations = tuple(rows.relation_codes())
    keys, num_keys = rows.sorted_keys(node_of, relations, nodes.height)
    del node_of, merged
    formats = tuple(dict.fromkeys(table.format for table in rows.tables))
    plain = tuple(dict.fromkeys(name.split(_SEPARATED)[0] for name in formats))
    if len(plain) > 1:
        findings.warnings.append(
            f"{source}: the files have different formats ({', '.join(plain)}); nodes of two files "
            "are one node only if their source, type and id are equal"
        )
    untyped = plain == (Triples.name,) and (nodes["type"] == ENTITY).all()
    if untyped and (nodes["source"] != "").any():
        findings.warnings.append(
            f"{source}: no id begins with a type, as Compound::DB00100 does, so all nodes have the "
            f"type {ENTITY!r}; if a table of nodes belongs to these edges, add it with --nodes"
        )
    num_skipped_rows, num_self_loops = rows.num_skipped_rows, rows.num_rows - num_keys
    num_listed = max(table.num_nodes or 0 for table in rows.tables)
    del rows
    if not num_keys:
        raise InputError(f"{source} is not a graph: every row joins a node to itself")
    pieces, bits = keys.pieces(), node_bits(nodes.height)
    facts, counts = distinct_facts(pieces, num_keys, bits, len(relations), directory)
    del keys, pieces
    num_used, num_facts = nodes.height, counts["num_facts"]
    kept, facts = _filtered(source, settings, nodes, relations, facts)
    nodes = (nodes if kept.all() else nodes.filter(pl.Series(kept))).select(
        pl.col(name).alias(f"node_{name}") for name in ("index", "id", "type", "name", "source")
    )
    types = NodeTypes.of(nodes)
    counted = count_facts(facts, types)
    if not counted.num_facts:
        raise InputError(
            f"include_node_types (got {settings.include_node_types}), limit_nodes (got "
            f"{settings.limit_nodes}) and exclude_relations (got {settings.exclude_relations}) "
            f"leave no facts of {source}"
        )
    report = ReadReport(
        num_rows=num_rows,
        num_self_loops=num_self_loops,
        num_duplicate_rows=num_keys - num_facts - counts["num_mirrored_facts"],
        num_skipped_rows=num_skipped_rows,
        num_excluded_facts=num_facts - counted.num_facts,
        num_excluded_nodes=int((~kept).sum()),
        num_nodes_without_facts=int((~counted.has_facts).sum()),
        num_unused_nodes=max(num_listed - num_used, 0),
        formats=formats,
        warnings=tuple(findings.warnings),
        **counts,
        **findings.counts,
    )
    return build_graph(nodes, types, facts, counted, relations, report, directory)


@without_panics()
def _read_rows(source: Source, settings: ReadSettings, plan: ReadingPlan) -> tuple[Rows, Findings]:
    """Read all rows of all files; plain copies of the files are removed at the end."""
    reader, findings = RowReader(plan), Findings()
    findings.warnings += _copies(source)
    with TemporaryDirectory(prefix="cdd-") as folder:
        plain: dict[Path, Path] = {}
        limits: dict[Path, Limit] = {}
        for number, path in enumerate(source.files):
            place = Path(folder) / str(number)
            place.mkdir()
            size = 0 if path == STDIN else path.stat().st_size
            limit = Limit(path, size, settings.max_unpacked_gib)
            plain[path] = plain_file(path, place, limit)
            limits[plain[path]] = limit
        current, heads, declared = source.edges[0], dict[Path, Head](), dict[Path, int]()
        try:
            for current in source.files:
                if is_parquet(plain[current]):
                    gib = settings.max_unpacked_gib
                    declared[current] = check_parquet(current, plain[current], gib)
                heads[current] = head = read_head(current, plain[current])
                if not (head.is_parquet or head.is_json or head.is_compressed):
                    check_rows(current, plain[current])
                _check_has_columns(head)
            with QuoteCheck(limits) as quotes:
                nodes = None if source.nodes is None else heads[source.nodes]
                rules = NodeRules(settings.on_conflict, settings.on_missing)
                for table in open_tables([heads[path] for path in source.edges], nodes, rules):
                    current = table.path
                    quotes.start(heads.values())
                    reader.read(table, quotes.is_refused)
                    findings.warnings += table.warnings
                findings.warnings += quotes.finish(reader.last_line)
                for path in source.edges:
                    if path in declared:
                        check_all_read(path, reader.last_line.get(path, 0), declared[path])
                last = quotes.last_bytes()
                cut = [
                    path for path in source.files
                    if not (heads[path].is_parquet or heads[path].is_json)
                    and _lacks_final_newline(plain[path], last.get(plain[path]))
                ]  # fmt: skip
        except WriteError:  # of the directory for rows
            raise
        except _UNREADABLE as error:
            faulty = heads.values() if current in heads else [Head(current, plain[current], False)]
            text = explain_unreadable(current, list(faulty), reader.num_rows, error)
            raise InputError(text) from error
        findings.warnings += [
            f"{path}: the last row does not end with a line break; if the file was cut short, its "
            "last value is incomplete"
            for path in cut
        ]
    return reader.finish(), findings


def _check_has_columns(head: Head) -> None:
    """Check that a file has a header, or rows whose columns are known."""
    if not head.columns:
        blank = any(head.lines)
        rule = ": the first line is blank; it must be the header" if blank else " is empty"
        raise InputError(f"{head.path}{rule}")


def _check_same_fields(rows: Rows) -> None:
    """Check that all parts in one format have names and sources, or none; see `Table.filled`."""
    firsts: dict[str, Table] = {}
    for table in rows.tables:
        first = firsts.setdefault(table.format.split(_SEPARATED)[0], table)
        if differing := sorted({*first.filled} ^ {*table.filled}):
            raise InputError(
                f"{table.path} and {first.path}: only one of them has {' and '.join(differing)} of "
                "nodes, so no node could be in both; all parts must have the same columns"
            )


def _copies(source: Source) -> list[str]:
    """Return warnings about parts of the graph that are copies of other parts."""
    by_size: dict[int, list[Path]] = {}
    warnings = []
    for path in source.edges:
        if path == STDIN:
            continue
        others = by_size.setdefault(path.stat().st_size, [])
        if same := next((one for one in others if cmp(one, path, shallow=False)), None):
            warnings.append(f"{path} has the same content as {same}; all its rows are duplicates")
        others.append(path)
    return warnings


def _lacks_final_newline(plain: Path, last: int | None) -> bool:
    """Return True if a file does not end with a line break; `last` is its last byte, if known."""
    return lacks_final_newline(plain) if last is None else bytes([last]) not in LINE_ENDS


def _sorted_nodes(source: Source, rows: Rows, merged: IntArray) -> tuple[pl.DataFrame, IntArray]:
    """Return the nodes in graph order, and the number of the node of each record.

    One type is sorted after the other, and one column after the other is copied and removed from
    `rows.nodes`, because whole copies of many nodes take memory.
    """
    stands = rows.used() & (merged == np.arange(len(merged)))
    record = np.flatnonzero(stands).astype(np.int32)
    is_numbered = "index" in rows.nodes.columns
    types = rows.nodes["type"][record]
    names = types.unique().sort()
    _check_number_of_names(source, len(rows.relation_codes()), len(names))
    code = types.cast(pl.Enum(names)).to_physical().to_numpy()
    by_type = record[np.argsort(code, kind="stable")]
    # Only records that were removed, such as repeated headers, may have another text as a number.
    index = pl.col("index").cast(pl.Int64, strict=False)
    keys = rows.nodes.select(index if is_numbered else ("source", "id"))
    ends = np.cumsum(np.bincount(code, minlength=len(names)))
    parts = np.split(by_type, ends[:-1])
    order = np.concatenate([part[_sorting(keys[part])] for part in parts])
    del keys
    number = np.full(len(merged), -1, np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    columns = {"index": pl.Series("index", np.arange(len(order)))}
    for name in (*(["index"] if is_numbered else []), *FIELDS, TABLE, ROW):
        columns[name] = rows.nodes.drop_in_place(name)[order]
    columns["index"] = columns["index"].cast(pl.Int64)
    return pl.DataFrame(columns), number[merged]


def _sorting(keys: pl.DataFrame) -> IntArray:
    """Return the rows of a table in the order of its columns, the first column first."""
    return keys.select(pl.arg_sort_by(keys.columns)).to_series().to_numpy()


def _check_number_of_names(source: Source, num_relations: int, num_types: int) -> None:
    """Check that the columns of relations and types do not hold something else, such as ids."""
    for what, column, count, most in (
        ("relations", "relation", num_relations, _MAX_RELATIONS),
        ("node types", "type", num_types, _MAX_TYPES),
    ):
        if count > most:
            raise InputError(
                f"{source} has {count:,} different {what}; at most {most:,} are allowed "
                f"(does the column {column} hold something else?)"
            )


def _filtered(
    source: Source,
    settings: ReadSettings,
    nodes: pl.DataFrame,
    relations: Sequence[str],
    facts: Facts,
) -> tuple[Mask, Facts]:
    """Return a mask of the nodes that stay, shape (N,), and the facts among these."""
    kept, excluded = np.ones(nodes.height, bool), list[int]()
    if settings.exclude_relations is not None:
        _check_known("exclude_relations", settings.exclude_relations, relations, source)
        excluded = [
            r for r, name in enumerate(relations) if name in set(settings.exclude_relations)
        ]
    if settings.include_node_types is not None:
        types = list(settings.include_node_types)
        _check_known("include_node_types", types, nodes["type"].unique().sort().to_list(), source)
        kept = nodes["type"].is_in(types).to_numpy()
    limit = settings.limit_nodes
    if limit is not None and limit < kept.sum():
        degree = facts.within(kept, excluded).degrees(int(kept.sum()))
        kept = _of_high_degree(nodes, degree, kept, limit)
    return kept, facts.within(kept, excluded)


def _check_known(
    parameter: str, wanted: Sequence[str], present: Sequence[str], source: Source
) -> None:
    """Check that the graph has each name; suggest a similar name otherwise."""
    what = "types" if parameter == "include_node_types" else "relations"
    for name in wanted:
        if name not in present:
            raise InputError(
                f"{parameter} (got {name!r}) must be among the {what} of {source}: "
                f"{', '.join(present)}{did_you_mean(name, list(present))}"
            )


def _of_high_degree(nodes: pl.DataFrame, degree: IntArray, keep: Mask, limit: int) -> Mask:
    """Return a mask of the `limit` best nodes of those in `keep`; see `ReadSettings`.

    `degree` has the number of facts of each node in `keep`.
    """
    # position within the type, from 0 (highest degree) to almost 1 (lowest degree)
    quantile = pl.int_range(pl.len()) / pl.len()
    best = (
        nodes.select("type", node=pl.int_range(pl.len()))
        .filter(pl.Series(keep))
        .with_columns(degree=pl.Series(degree))
        .sort("degree", descending=True, maintain_order=True)
        .with_columns(quantile=quantile.over("type"))
        .sort("quantile", "node", maintain_order=True)
        .head(limit)
    )
    return np.isin(np.arange(nodes.height), best["node"].to_numpy())
