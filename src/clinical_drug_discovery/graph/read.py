"""From a file in PrimeKG's columns to a `KnowledgeGraph`, streamed.

Two passes over integers, one over text: the text is read once in batches, each batch is reduced to
three small integers a row, and only the distinct nodes keep their strings. What a broken file gets
told is in `diagnose`; embeddings are written and read in `outputs`.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from clinical_drug_discovery.graph.dedup import Hashes, Keys, Numbering, fold, node_bits, pack
from clinical_drug_discovery.graph.knowledge_graph import (
    IntArray,
    KnowledgeGraph,
    ReadReport,
    build_graph,
)
from clinical_drug_discovery.graph.read_errors import explain_unreadable
from clinical_drug_discovery.system.errors import InputError, check_at_least

SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
IDENTITY = ("source", "type", "id")
FIELDS = ("source", "type", "id", "name")
REQUIRED = ("relation", *(f"{side}_{field}" for side in "xy" for field in FIELDS))
INDEX = ("x_index", "y_index")
MAX_RELATIONS = 10_000
BATCH_ROWS = 50_000  # about 6 MB of text
MAX_PARTS = 16  # of the table of nodes
ROW, RECORD = "#row", "#record"  # our own columns while reading; a file may have any other name
HEADER_ROWS = 1  # rows of a CSV are counted as a text editor does: the header is row 1


def read_graph(
    path: str | Path,
    *,
    include_node_types: Sequence[str] | None = None,
    limit_nodes: int | None = None,
) -> KnowledgeGraph:
    """Read a knowledge graph from a file in PrimeKG's columns.

    A node is (source, type, id); where the file numbers its nodes (x_index, y_index) the numbering
    must agree with that. Facts may stand in both directions (as in PrimeKG) or once; the graph
    holds both directions either way. Duplicate rows and self-loops are dropped and counted in the
    report.

    Args:
        path: a .csv, .csv.gz, .csv.zst or .parquet file.
        include_node_types: keep only nodes of these types, and the facts among them.
        limit_nodes: keep at most so many nodes: of every node type the same share, its best
            connected ones, ties by node_index.

    Returns:
        The graph; the same for any order of the file's rows.

    Raises:
        InputError: the file cannot be read as a graph, or a filter does not fit it.
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
    src, relation, dst, counts = fold(keys, node_bits(nodes.height))
    del keys
    if not len(src):
        raise InputError(f"{path} holds no facts between two different nodes: it is no graph")
    keep = _selected(path, nodes, src, dst, include_node_types, limit_nodes)
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
    number = np.cumsum(keep) - 1
    return build_graph(
        nodes.filter(pl.Series(keep)),
        number[src[inside]],
        relation[inside],
        number[dst[inside]],
        relation_names,
        report,
    )


def check_edges_file(path: Path) -> None:
    """Refuse a path that cannot be a graph by its name, or is no file."""
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"edges file (got {path}) must end in one of {', '.join(SUFFIXES)}")
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"edges file (got {path}) cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"edges file (got {path}) is not a file")


def check_filters(include_node_types: Sequence[str] | None, limit_nodes: int | None) -> None:
    """Refuse filters that fit no graph."""
    if limit_nodes is not None:
        check_at_least("limit_nodes", limit_nodes, 1)
    if include_node_types is None:
        return
    names = [] if isinstance(include_node_types, str) else list(include_node_types)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"include_node_types (got {include_node_types!r}) must be a list of node types"
        )


class _Rows:
    """The file while it is read: integer rows, and the distinct nodes seen so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        # A node's record is a 64-bit hash of all that a row says of it. Two of a million nodes
        # share a hash with a probability of 3e-8.
        self.records = Numbering()
        # Of each row x and y, as numbers of `records`, and the relation: 12 bytes.
        self.chunks: list[tuple[IntArray, IntArray, pl.Series]] = []
        self.nodes: list[pl.DataFrame] = []

    def read(self) -> None:
        """Stream the file; raises polars' own errors or OSError where it cannot be parsed."""
        parquet = self.path.name.lower().endswith(".parquet")
        if parquet:
            frame = pl.scan_parquet(self.path, glob=False)
        else:
            # Everything is text: an id that looks like an integer is still a name.
            frame = pl.scan_csv(self.path, infer_schema=False, glob=False)
        columns = _check_header(self.path, frame.collect_schema().names())
        if not parquet:
            _check_no_column_twice(self.path, columns)
        # Hashed inside polars' own stream, which is twice as fast as batch by batch.
        # Columns that are not needed are parsed all the same: only then does the parser count the
        # fields of a row, and a name with a comma and no quotes is an error instead of a shift.
        frame = frame.with_columns(pl.col(columns).cast(pl.String)).with_columns(
            pl.col("relation").cast(pl.Categorical),
            *(
                pl.struct(name for name in columns if name.startswith(f"{side}_"))
                .hash(0)
                .alias(f"{side}_{RECORD}")
                for side in "xy"
            ),
        )
        frame = frame.with_row_index(ROW, offset=1 if parquet else HEADER_ROWS + 1)
        for batch in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            rows = _without_blank(self.path, batch, columns)
            self._add(rows)
            self.num_rows += len(rows)
        if not self.num_rows:
            raise InputError(f"{self.path} holds a header and no rows")
        self.nodes = [pl.concat(self.nodes, rechunk=True)]
        _check_nodes(self.path, self.nodes[0])

    def _add(self, batch: pl.DataFrame) -> None:
        relation = batch["relation"]
        if (relation == "").any():
            row = batch.filter(relation == "").item(0, ROW)
            raise InputError(f"{self.path}, row {row}: relation must not be empty")
        ends = []
        for side in "xy":
            records = batch[f"{side}_{RECORD}"].to_numpy()
            number = self.records.find(records)
            unknown = number < 0
            if unknown.any():
                self._add_nodes(batch, side, np.flatnonzero(unknown), records[unknown])
                number[unknown] = self.records.find(records[unknown])
            ends.append(number)
        self.chunks.append((ends[0], ends[1], relation))

    def _add_nodes(self, batch: pl.DataFrame, side: str, rows: IntArray, records: Hashes) -> None:
        """Number the new records and keep what the first row of each says."""
        new, first = np.unique(records, return_index=True)
        self.records.add(new)
        fields = {name: f"{side}_{name}" for name in (*FIELDS, "index")}
        columns = {ROW: ROW, **{n: column for n, column in fields.items() if column in batch}}
        # Not batch.select: it would queue behind the reader's own work in polars' thread pool.
        kept = pl.DataFrame({n: batch[column].gather(rows[first]) for n, column in columns.items()})
        self.nodes.append(kept)
        if len(self.nodes) == MAX_PARTS:  # copied, or each would keep the text of its whole batch
            self.nodes = [pl.concat(self.nodes, rechunk=True)]

    def sorted_nodes(self) -> tuple[pl.DataFrame, npt.NDArray[np.int32]]:
        """The nodes in graph order, and for each node as first seen its number in that order."""
        table = self.nodes[0].with_row_index("seen")
        if "index" in table.columns:
            table = table.with_columns(pl.col("index").cast(pl.Int64)).sort("type", "index")
        else:
            table = table.sort("type", "source", "id")
            table = table.with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64))
        order = np.empty(len(table), np.int32)
        order[table["seen"].to_numpy()] = np.arange(len(table), dtype=np.int32)
        return (
            table.select(
                node_index="index",
                node_id="id",
                node_type="type",
                node_name="name",
                node_source="source",
            ),
            order,
        )

    def keys(self, order: IntArray) -> tuple[Keys, int, tuple[str, ...]]:
        """All rows that are no self-loop as `facts.pack` packs them, with nodes in graph order.

        Returns:
            The keys, the number of self-loops, and the relations' names, sorted.
        """
        # polars numbers categories by first appearance in the process; ours are numbered by name.
        names = pl.concat([r for *_, r in self.chunks], rechunk=False).unique()
        names = names.cast(pl.String).sort()
        if len(names) > MAX_RELATIONS:
            raise InputError(
                f"{self.path} has {len(names):,} different relations, at most {MAX_RELATIONS:,} "
                "are allowed: is its relation column something else?"
            )
        physical = names.cast(pl.Categorical).to_physical().to_numpy()
        rank = np.zeros(physical.max() + 1, np.int16)
        rank[physical] = np.arange(len(names))
        bits = node_bits(len(order))
        keys, end = np.empty(self.num_rows, np.int64), 0
        while self.chunks:  # each chunk is freed once it is packed; sorting forgets their order
            x_seen, y_seen, relation = self.chunks.pop()
            x, r, y = order[x_seen], rank[relation.to_physical().to_numpy()], order[y_seen]
            loops = x == y
            if loops.any():
                x, r, y = x[~loops], r[~loops], y[~loops]
            keys[end : end + len(x)] = pack(x, r, y, bits)
            end += len(x)
        return keys[:end], self.num_rows - end, tuple(names)


def _check_header(path: Path, present: list[str]) -> list[str]:
    """The columns to read, or an error that says which one the header lacks."""
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        found = ", ".join(repr(name[:40]) for name in present[:15])
        raise InputError(f"{path}: the header lacks {', '.join(missing)}; it has {found}")
    numbered = [name for name in INDEX if name in present]
    if len(numbered) == 1:
        raise InputError(
            f"{path}: the header has {numbered[0]}; it must have both or none of {INDEX}"
        )
    return [*REQUIRED, *numbered]


def _check_no_column_twice(path: Path, columns: list[str]) -> None:
    """Refuse a header that names a column we read twice; polars renames the second."""
    header = pl.scan_csv(path, has_header=False, infer_schema=False, glob=False, n_rows=1).collect()
    names = header.row(0)
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: the header has {', '.join(twice)} more than once")


def _without_blank(path: Path, batch: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Drop blank lines; refuse a row in which a field is missing."""
    if not any(batch[name].null_count() for name in columns):
        return batch
    missing = pl.any_horizontal(pl.col(columns).is_null())
    partial = batch.filter(missing & pl.any_horizontal(pl.col(columns).is_not_null()))
    if len(partial):
        record = partial.row(0, named=True)
        lacking = ", ".join(name for name in columns if record[name] is None)
        raise InputError(
            f"{path}, row {record[ROW]}: no {lacking}; every row must fill {', '.join(columns)} "
            "(is the file cut short?)"
        )
    return batch.filter(~missing)


def _check_nodes(path: Path, nodes: pl.DataFrame) -> None:
    """No empty field, one name and number per (source, type, id), one node per number.

    Within one source an id has one type, unless the file's own numbering tells the two apart.
    """
    for field in FIELDS:
        empty = nodes.filter(pl.col(field) == "")
        if len(empty):
            row = empty[ROW].to_list()[0]
            raise InputError(f"{path}, row {row}: a node's {field} must not be empty")
    if "index" in nodes.columns:
        wrong = nodes.filter(~pl.col("index").str.contains(r"^(0|[1-9][0-9]{0,17})$"))
        if len(wrong):
            row, index = wrong.select(ROW, "index").row(0)
            raise InputError(
                f"{path}, row {row}: x_index or y_index (got {index!r}) must be an integer of at "
                "least 0, without leading zeros"
            )
        _check_unique(path, nodes, IDENTITY, ("name", "index"))
        _check_unique(path, nodes, ("index",), ("type", "id", "source", "name"))
    else:
        _check_unique(path, nodes, IDENTITY, ("name",))
        _check_unique(path, nodes, ("source", "id"), ("type",))


def _check_unique(
    path: Path, nodes: pl.DataFrame, keys: tuple[str, ...], told: tuple[str, ...]
) -> None:
    repeated = nodes.filter(nodes.select(keys).is_duplicated())
    if repeated.is_empty():
        return
    groups = repeated.sort(ROW).group_by(keys, maintain_order=True)
    first, other = groups.head(2).head(2).rows(named=True)
    field = next(field for field in told if first[field] != other[field])
    raise InputError(
        f"{path}, row {other[ROW]}: the node with "
        f"{', '.join(f'{key} {first[key]!r}' for key in keys)} has {field} {other[field]!r}, "
        f"but row {first[ROW]} gave it {field} {first[field]!r}"
    )


def _selected(
    path: Path,
    nodes: pl.DataFrame,
    src: IntArray,
    dst: IntArray,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
) -> npt.NDArray[np.bool_]:
    """Which nodes the two filters keep."""
    keep = np.ones(nodes.height, bool)
    if include_node_types is not None:
        present = nodes["node_type"].unique().sort().to_list()
        for name in include_node_types:
            if name not in present:
                near = get_close_matches(name, present, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"include_node_types (got {name!r}) must be among the types of {path}: "
                    f"{', '.join(present)}{hint}"
                )
        keep &= nodes["node_type"].is_in(list(include_node_types)).to_numpy()
    if limit_nodes is not None and limit_nodes < keep.sum():
        inside = keep[src] & keep[dst]
        ends = np.concatenate([src[inside], dst[inside]])
        table = nodes.select("node_type", node=pl.int_range(pl.len())).with_columns(
            degree=pl.Series(np.bincount(ends, minlength=nodes.height))
        )
        share = pl.int_range(pl.len()) / pl.len()  # 0 for a type's best connected node, towards 1
        best = (
            table.filter(pl.Series(keep))
            .sort("degree", descending=True, maintain_order=True)
            .with_columns(share=share.over("node_type"))
            .sort("share", "node", maintain_order=True)
            .head(limit_nodes)
        )
        keep = np.zeros(nodes.height, bool)
        keep[best["node"].to_numpy()] = True
    return keep
