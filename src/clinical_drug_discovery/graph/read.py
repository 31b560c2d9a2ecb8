"""Read a graph from a CSV or Parquet file with PrimeKG's columns.

The file is read once, in batches. Each row is reduced to three small integers. Strings are kept
only for distinct nodes.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ..system.errors import InputError, check_at_least
from .build import Hashes, Keys, Numbering, build_graph, distinct_facts, node_bits, pack_rows
from .knowledge_graph import IntArray, KnowledgeGraph, ReadReport
from .node_lookup import did_you_mean
from .read_errors import explain_unreadable

SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
_IDENTITY = ("source", "type", "id")
_FIELDS = ("source", "type", "id", "name")
_REQUIRED = ("relation", *(f"{side}_{field}" for side in "xy" for field in _FIELDS))
_INDEX = ("x_index", "y_index")
_MAX_RELATIONS = 10_000
_BATCH_ROWS = 50_000  # rows per batch, about 6 MB of text
_MAX_NODE_TABLES = 16  # when there are this many tables of nodes, they are joined into one
_ROW, _RECORD = "#row", "#record"  # columns that the reader adds: row number, hash of a node
_HEADER_ROWS = 1  # the header of a CSV is row 1, as in a text editor


def read_graph(
    path: str | Path,
    *,
    include_node_types: Sequence[str] | None = None,
    limit_nodes: int | None = None,
) -> KnowledgeGraph:
    """Read a knowledge graph from a file with PrimeKG's columns.

    A node is identified by (source, type, id). If the file has node numbers (x_index, y_index),
    each node must have one number, and each number one node. The file may have each fact once or in
    both directions (like PrimeKG); the graph always has edges in both directions. Duplicate rows
    and self-loops are dropped and counted in the report. The order of rows does not matter.

    Args:
        path: a .csv, .csv.gz, .csv.zst or .parquet file.
        include_node_types: keep only nodes of these types, and the facts among them.
        limit_nodes: keep at most this many nodes: the same fraction of every node type, namely the
            nodes with the highest degree. If degrees are equal, the lower node_index is kept.

    Raises:
        InputError: the file cannot be read as a graph, or a filter is invalid for this graph.
    """
    path = Path(path)
    check_edges_file(path)
    check_filters(include_node_types, limit_nodes)
    rows = _Rows(path)
    try:
        rows.read()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(explain_unreadable(path, rows.num_rows, error)) from error
    nodes, order = rows.sorted_nodes()
    keys, num_self_loops, relation_names = rows.keys(order)
    src, relation, dst, counts = distinct_facts(keys, node_bits(nodes.height))
    del keys
    if not len(src):
        raise InputError(f"{path} is not a graph: every row joins a node to itself")
    keep = np.ones(nodes.height, bool)
    if include_node_types is not None:
        keep = _of_types(path, nodes, include_node_types)
    if limit_nodes is not None and limit_nodes < keep.sum():
        keep = _of_high_degree(nodes, src, dst, keep, limit_nodes)
    inside = keep[src] & keep[dst]
    if not inside.any():
        raise InputError(
            f"include_node_types (got {include_node_types}) and limit_nodes (got {limit_nodes}) "
            f"leave no facts of {path}"
        )
    report = ReadReport(
        num_rows=rows.num_rows,
        num_self_loops=num_self_loops,
        num_excluded_facts=int((~inside).sum()),
        num_excluded_nodes=int((~keep).sum()),
        **counts,
    )
    number, nodes = np.cumsum(keep) - 1, nodes.filter(pl.Series(keep))
    src, relation, dst = number[src[inside]], relation[inside], number[dst[inside]]
    return build_graph(nodes, src, relation, dst, relation_names, report)


def check_edges_file(path: Path) -> None:
    """Check that a path has the suffix of an edges file and is a readable file."""
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"edges file (got {path}) must end in one of {', '.join(SUFFIXES)}")
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"edges file (got {path}) cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"edges file (got {path}) is not a file")


def check_filters(include_node_types: Sequence[str] | None, limit_nodes: int | None) -> None:
    """Check the filters as far as this is possible without the graph."""
    if limit_nodes is not None:
        check_at_least("limit_nodes", limit_nodes, 1)
    if include_node_types is None:
        return
    names = [] if isinstance(include_node_types, str) else list(include_node_types)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"include_node_types (got {include_node_types!r}) must be a list of node type names"
        )


class _Rows:
    """The rows of a file as integers, and its distinct nodes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        # A record is a 64-bit hash of all fields of a node. For a million nodes, the probability
        # that two of them have the same hash is 3e-8.
        self.records = Numbering()
        # One entry per batch: x and y (numbers from `records`) and relation, 12 bytes per row.
        self.chunks: list[tuple[IntArray, IntArray, pl.Series]] = []
        self.nodes: list[pl.DataFrame] = []

    def read(self) -> None:
        """Read the whole file. If it cannot be parsed, polars raises PolarsError or OSError."""
        parquet = self.path.name.lower().endswith(".parquet")
        if parquet:
            frame = pl.scan_parquet(self.path, glob=False)
        else:
            # Every column is read as text: an id is a name even if it looks like an integer.
            frame = pl.scan_csv(self.path, infer_schema=False, glob=False)
        columns = _check_header(self.path, frame.collect_schema().names())
        if not parquet:
            _check_no_column_twice(self.path, columns)
        # Hashing inside polars' stream is twice as fast as hashing each batch.
        # All columns are parsed, even unneeded ones. polars then checks the number of fields in
        # each row, so an unquoted comma is an error and does not shift the fields.
        sides = {s: [name for name in columns if name.startswith(s)] for s in ("x_", "y_")}
        records = [pl.struct(names).hash(0).alias(s + _RECORD) for s, names in sides.items()]
        frame = frame.with_columns(pl.col(columns).cast(pl.String))
        frame = frame.with_columns(pl.col("relation").cast(pl.Categorical), *records)
        frame = frame.with_row_index(_ROW, offset=1 if parquet else _HEADER_ROWS + 1)
        for batch in frame.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
            rows = _without_blank(self.path, batch, columns)
            self._add(rows)
            self.num_rows += len(rows)
        if not self.num_rows:
            raise InputError(f"{self.path} has a header but no rows")
        self.nodes = [pl.concat(self.nodes, rechunk=True)]
        _check_nodes(self.path, self.nodes[0])

    def _add(self, batch: pl.DataFrame) -> None:
        relation = batch["relation"]
        if (relation == "").any():
            row = batch.filter(relation == "").item(0, _ROW)
            raise InputError(f"{self.path}, row {row}: relation must not be empty")
        self.chunks.append((self._number(batch, "x_"), self._number(batch, "y_"), relation))

    def _number(self, batch: pl.DataFrame, side: str) -> IntArray:
        """Return the number of the x node ("x_") or y node ("y_") of each row; add new nodes."""
        records = batch[side + _RECORD].to_numpy()
        number = self.records.find(records)
        unknown = number < 0
        if unknown.any():
            self._add_nodes(batch, side, np.flatnonzero(unknown), records[unknown])
            number[unknown] = self.records.find(records[unknown])
        return number

    def _add_nodes(self, batch: pl.DataFrame, side: str, rows: IntArray, records: Hashes) -> None:
        """Number new records, and keep the fields of each new node from its first row."""
        new, first = np.unique(records, return_index=True)
        self.records.add(new)
        columns = {name: side + name for name in (*_FIELDS, "index") if side + name in batch}
        columns[_ROW] = _ROW
        # batch.select would wait for polars' thread pool, which is busy with parsing the file.
        kept = pl.DataFrame({n: batch[column].gather(rows[first]) for n, column in columns.items()})
        self.nodes.append(kept)
        if len(self.nodes) == _MAX_NODE_TABLES:  # the joined copy lets polars free the batches
            self.nodes = [pl.concat(self.nodes, rechunk=True)]

    def sorted_nodes(self) -> tuple[pl.DataFrame, npt.NDArray[np.int32]]:
        """Return the nodes in graph order, and the graph's node number of each number as read."""
        table = self.nodes[0].with_row_index("seen")
        if "index" in table.columns:
            table = table.with_columns(pl.col("index").cast(pl.Int64)).sort("type", "index")
        else:
            table = table.sort("type", "source", "id")
            table = table.with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64))
        order = np.empty(len(table), np.int32)
        order[table["seen"].to_numpy()] = np.arange(len(table), dtype=np.int32)
        fields = ("index", "id", "type", "name", "source")
        return table.select(pl.col(field).alias(f"node_{field}") for field in fields), order

    def keys(self, order: IntArray) -> tuple[Keys, int, tuple[str, ...]]:
        """Pack all rows except self-loops into keys, and empty `chunks`.

        Returns:
            The keys, the number of self-loops, and the sorted names of the relations.
        """
        # polars numbers relations in the order of first use; the graph numbers them by name.
        names = pl.concat([r for *_, r in self.chunks], rechunk=False).unique()
        names = names.cast(pl.String).sort()
        if len(names) > _MAX_RELATIONS:
            raise InputError(
                f"{self.path} has {len(names):,} different relations; at most {_MAX_RELATIONS:,} "
                "are allowed (does the column relation hold something else?)"
            )
        physical = names.cast(pl.Categorical).to_physical().to_numpy()
        rank = np.zeros(physical.max() + 1, np.int16)
        rank[physical] = np.arange(len(names))
        bits = node_bits(len(order))
        keys, end = np.empty(self.num_rows, np.int64), 0
        while self.chunks:  # pop frees each chunk; the order is free, since keys are sorted later
            x_seen, y_seen, relation = self.chunks.pop()
            x, r, y = order[x_seen], rank[relation.to_physical().to_numpy()], order[y_seen]
            loops = x == y
            if loops.any():
                x, r, y = x[~loops], r[~loops], y[~loops]
            keys[end : end + len(x)] = pack_rows(x, r, y, bits)
            end += len(x)
        return keys[:end], self.num_rows - end, tuple(names)


def _check_header(path: Path, present: list[str]) -> list[str]:
    """Return the columns to read, after checking that the header has them all."""
    if missing := [name for name in _REQUIRED if name not in present]:
        found = ", ".join(repr(name[:40]) for name in present[:15])
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; it has {found}")
    numbered = [name for name in _INDEX if name in present]
    if len(numbered) == 1:
        rule = f"it must have both or neither of {' and '.join(_INDEX)}"
        raise InputError(f"{path}: the header has {numbered[0]}; {rule}")
    return [*_REQUIRED, *numbered]


def _check_no_column_twice(path: Path, columns: list[str]) -> None:
    """Check that each needed column appears only once; polars would rename the second one."""
    header = pl.scan_csv(path, has_header=False, infer_schema=False, glob=False, n_rows=1).collect()
    if twice := [name for name in columns if header.row(0).count(name) > 1]:
        raise InputError(f"{path}: the header has {', '.join(twice)} more than once")


def _without_blank(path: Path, batch: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Drop blank lines, and check that the other rows have all fields."""
    if not any(batch[name].null_count() for name in columns):
        return batch
    missing = pl.any_horizontal(pl.col(columns).is_null())
    partial = batch.filter(missing & pl.any_horizontal(pl.col(columns).is_not_null()))
    if len(partial):
        record = partial.row(0, named=True)
        lacking = ", ".join(name for name in columns if record[name] is None)
        raise InputError(
            f"{path}, row {record[_ROW]}: {lacking} is missing; every row must have "
            f"{', '.join(columns)} (is the file cut short?)"
        )
    return batch.filter(~missing)


def _check_nodes(path: Path, nodes: pl.DataFrame) -> None:
    """Check that each node has all fields, one name and one number, and each number one node.

    If the file does not number its nodes, each pair (source, id) must have only one type.
    """
    for field in _FIELDS:
        empty = nodes.filter(pl.col(field) == "")
        if len(empty):
            raise InputError(f"{path}, row {empty[_ROW][0]}: a node's {field} must not be empty")
    if "index" in nodes.columns:
        wrong = nodes.filter(~pl.col("index").str.contains(r"^(0|[1-9][0-9]{0,17})$"))
        if len(wrong):
            row, index = wrong.select(_ROW, "index").row(0)
            raise InputError(
                f"{path}, row {row}: x_index or y_index (got {index!r}) must be a whole number of "
                "at least 0, without leading zeros"
            )
        _check_unique(path, nodes, _IDENTITY, ("name", "index"))
        _check_unique(path, nodes, ("index",), ("type", "id", "source", "name"))
    else:
        _check_unique(path, nodes, _IDENTITY, ("name",))
        _check_unique(path, nodes, ("source", "id"), ("type",))


def _check_unique(
    path: Path, nodes: pl.DataFrame, keys: tuple[str, ...], fields: tuple[str, ...]
) -> None:
    """Check that no two nodes are equal in all `keys`; two such nodes differ in one of `fields`."""
    repeated = nodes.filter(nodes.select(keys).is_duplicated())
    if repeated.is_empty():
        return
    groups = repeated.sort(_ROW).group_by(keys, maintain_order=True)
    first, other = groups.head(2).head(2).rows(named=True)
    field = next(field for field in fields if first[field] != other[field])
    node = ", ".join(f"{key} {first[key]!r}" for key in keys)
    raise InputError(
        f"{path}, row {other[_ROW]}: the node with {node} has {field} {other[field]!r}, "
        f"but in row {first[_ROW]} it has {field} {first[field]!r}"
    )


def _of_types(path: Path, nodes: pl.DataFrame, types: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return a mask of the nodes of some types, shape (N,)."""
    present = nodes["node_type"].unique().sort().to_list()
    for name in types:
        if name not in present:
            raise InputError(
                f"include_node_types (got {name!r}) must be among the types of {path}: "
                f"{', '.join(present)}{did_you_mean(name, present)}"
            )
    return nodes["node_type"].is_in(list(types)).to_numpy()


def _of_high_degree(
    nodes: pl.DataFrame, src: IntArray, dst: IntArray, keep: npt.NDArray[np.bool_], limit: int
) -> npt.NDArray[np.bool_]:
    """Return a mask of the `limit` best nodes of those in `keep`, shape (N,); see `read_graph`."""
    inside = keep[src] & keep[dst]
    degree = np.bincount(np.concatenate([src[inside], dst[inside]]), minlength=nodes.height)
    # position within the type, from 0 (highest degree) to almost 1 (lowest degree)
    quantile = pl.int_range(pl.len()) / pl.len()
    best = (
        nodes.select("node_type", node=pl.int_range(pl.len()), degree=pl.Series(degree))
        .filter(pl.Series(keep))
        .sort("degree", descending=True, maintain_order=True)
        .with_columns(quantile=quantile.over("node_type"))
        .sort("quantile", "node", maintain_order=True)
        .head(limit)
    )
    return np.isin(np.arange(nodes.height), best["node"].to_numpy())
