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

from clinical_drug_discovery.diagnose import explain_unreadable
from clinical_drug_discovery.errors import InputError
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph, ReadReport, build_graph
from clinical_drug_discovery.runtime import check_at_least

SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
IDENTITY = ("source", "type", "id")
FIELDS = ("source", "type", "id", "name")
REQUIRED = ("relation", *(f"{side}_{field}" for side in "xy" for field in FIELDS))
INDEX = ("x_index", "y_index")
MAX_RELATIONS = 10_000
BATCH_ROWS = 200_000  # about 25 MB of text
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
    if limit_nodes is not None:
        check_at_least("limit_nodes", limit_nodes, 1)
    if isinstance(include_node_types, str) or include_node_types == []:
        raise InputError(
            f"include_node_types (got {include_node_types!r}) must be a list of node types"
        )
    rows = _Rows(path)
    try:
        rows.read()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(explain_unreadable(path, rows.num_rows, error)) from error
    nodes, order = rows.sorted_nodes()
    src, relation, dst, relation_names = rows.edges(order)
    src, relation, dst, counts = _fold(src, relation, dst, nodes.height)
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


class _Rows:
    """The file while it is read: integer rows, and the distinct nodes seen so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        # A node's record is a 64-bit hash of all that a row says of it, so that 8 bytes stand for
        # its strings: 20 bytes a row. Two of a million nodes share a hash with a probability of
        # 3e-8.
        self.chunks: list[pl.DataFrame] = []
        self.nodes = pl.DataFrame()

    def read(self) -> None:
        """Stream the file; raises polars' own errors or OSError where it cannot be parsed."""
        parquet = self.path.name.lower().endswith(".parquet")
        if parquet:
            frame = pl.scan_parquet(self.path, glob=False)
        else:
            # Everything is text: an id that looks like an integer is still a name.
            frame = pl.scan_csv(self.path, infer_schema=False, glob=False)
        columns = _check_header(self.path, frame.collect_schema().names())
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
        _check_nodes(self.path, self.nodes)

    def _add(self, batch: pl.DataFrame) -> None:
        for side in "xy":
            new = batch
            if len(self.nodes):
                known = batch[f"{side}_{RECORD}"].is_in(self.nodes[RECORD].implode())
                if known.all():
                    continue
                new = batch.filter(~known)
            fields = {name: f"{side}_{name}" for name in (*FIELDS, "index", RECORD)}
            present = {name: column for name, column in fields.items() if column in batch.columns}
            new = new.select(ROW, **present).unique(RECORD, keep="first", maintain_order=True)
            self.nodes = pl.concat([self.nodes, new], how="diagonal", rechunk=True)
        # Not batch.select: it would queue behind the reader's own work in polars' thread pool.
        kept = (f"x_{RECORD}", f"y_{RECORD}", "relation")
        self.chunks.append(pl.DataFrame([batch[name] for name in kept]))

    def sorted_nodes(self) -> tuple[pl.DataFrame, npt.NDArray[np.int32]]:
        """The nodes in graph order, and for each node as first seen its number in that order."""
        table = self.nodes.with_row_index("seen")
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

    def edges(self, order: IntArray) -> tuple[IntArray, IntArray, IntArray, tuple[str, ...]]:
        """All rows as (x, relation, y), nodes in graph order, and the relations' names, sorted."""
        relation = pl.concat(chunk["relation"] for chunk in self.chunks)
        if "" in relation.unique():
            row = int((relation == "").arg_max() or 0) + HEADER_ROWS + 1
            raise InputError(f"{self.path}, row {row}: relation must not be empty")
        numbers = self.nodes.select(RECORD, node=pl.Series(order))
        ends: dict[str, list[IntArray]] = {"x": [], "y": []}
        while self.chunks:  # each chunk is freed once it is translated
            chunk = self.chunks.pop(0)
            for side, parts in ends.items():
                records = chunk.select(pl.col(f"{side}_{RECORD}").alias(RECORD))
                found = records.join(numbers, on=RECORD, how="left", maintain_order="left")
                parts.append(found["node"].to_numpy())
        x, y = (np.concatenate(parts) for parts in ends.values())
        # polars numbers categories by first appearance in the process; ours are numbered by name.
        names = relation.unique().cast(pl.String).sort()
        if len(names) > MAX_RELATIONS:
            raise InputError(
                f"{self.path} has {len(names):,} different relations, at most {MAX_RELATIONS:,} "
                "are allowed: is its relation column something else?"
            )
        physical = names.cast(pl.Categorical).to_physical().to_numpy()
        rank = np.zeros(physical.max() + 1, np.int16)
        rank[physical] = np.arange(len(names))
        return x, rank[relation.to_physical().to_numpy()], y, tuple(names)


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


def _fold(
    src: IntArray, relation: IntArray, dst: IntArray, num_nodes: int
) -> tuple[IntArray, IntArray, IntArray, dict[str, int]]:
    """Distinct undirected facts of directed rows, and what was dropped on the way.

    A row becomes one integer (relation, lower end, higher end, direction); sorted, its duplicates
    and its mirror are neighbours. 8 bytes a row, in place.
    """
    bits = max(num_nodes - 1, 1).bit_length()
    loops = src == dst
    key = relation.astype(np.int64)
    key <<= bits
    key |= np.minimum(src, dst)
    key <<= bits
    key |= np.maximum(src, dst)
    key <<= 1
    key |= src > dst
    if loops.any():
        key = key[~loops]
    key.sort()
    distinct = key[_first_of_run(key)] >> 1
    facts = distinct[_first_of_run(distinct)]
    counts = {
        "num_self_loops": int(loops.sum()),
        "num_duplicate_rows": len(key) - len(distinct),
        "num_facts": len(facts),
        "num_mirrored_facts": len(distinct) - len(facts),
    }
    node = (1 << bits) - 1
    return facts >> bits & node, facts >> 2 * bits, facts & node, counts


def _first_of_run(values: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


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
