"""Read the rows of tables as integers, and their distinct nodes as text.

Each table is streamed once, in batches. A row becomes three small integers. Text is kept only for
distinct nodes, so the checks of text (`records`, `spellings`) cost nothing for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...system.errors import InputError
from ..building.keys import SortedKeys, node_bits, pack_rows
from ..building.numbering import Hashes, Numbering
from ..formats.table import COLUMNS, FIELDS, INDEX, KEY, SKIP, Table
from ..knowledge_graph import IntArray
from .chunks import NO_RELATION, Chunk, Chunks
from .relations import Relations
from .room import ReadingPlan

Mask = npt.NDArray[np.bool_]
ROW, TABLE = "#row", "#table"  # columns of the nodes: where each record was read first
_RECORD = "#record"
_BATCH_ROWS = 50_000  # rows per batch, about 6 MB of text
_MAX_NODE_TABLES = 16  # when there are this many tables of nodes, they are joined into one
_LARGE = 4  # rows of a large table of nodes / rows of the tables after it
_SHORT = 12  # bytes of a text that polars stores without a buffer
_MANY_NODES = 2**21  # a table of so many nodes is not copied to join it to others
_MAX_PLACES = 10  # rows that a message lists
_MAX_EQUAL = 1000  # most rows of a rare relation


class Place(NamedTuple):
    """A row, for a message."""

    table: int  #: number of the table
    row: int  #: number of the row in the file
    x: int  #: record of the x node
    y: int  #: record of the y node
    relation: str | None


@dataclass
class Rows:
    """The rows of tables.

    A record is a distinct combination of all fields of a node. Different records may be one node,
    see `records.merge_records`.

    Attributes:
        tables: the tables that were read.
        nodes: the fields of each record, and the table and row where it was read first.
        num_rows: number of rows that were read and not removed.
        num_skipped_rows: number of rows that are not facts.
    """

    tables: list[Table]
    nodes: pl.DataFrame
    num_rows: int
    num_skipped_rows: int
    _chunks: Chunks
    _relations: Relations
    _directory: Path | None = None  #: of files for the rows; None: they are in memory
    _is_whole: bool = True  #: no rows were removed

    def relation_codes(self) -> dict[str, int]:
        """Return the relations and their codes, sorted by name."""
        return self._relations.codes()

    def lacks_relations(self) -> bool:
        """Return True if the relation of a row is missing."""
        return self._relations.num_missing > 0

    def count_relations(self, names: Sequence[str]) -> list[int]:
        """Return the number of rows of some relations."""
        return [self._relations.num_rows(name) for name in names]

    def count_distinct(self, table: int) -> tuple[int, int]:
        """Return the numbers of different relations and of different y records of a table."""
        used, relations = np.zeros(len(self.nodes), bool), set[int]()
        for number, of_table in enumerate(self._chunks.tables()):
            if of_table == table:
                chunk = self._chunks[number]
                used[chunk.y] = True
                relations.update(np.unique(chunk.relation).tolist())
        return len(relations), int(used.sum())

    def lone_rows(self) -> list[Place]:
        """Return one row of each relation whose rows are equal and share no node with other rows.

        Each row must have a relation. Only relations of few rows are looked at; a graph with one
        relation does not have such a row.
        """
        codes = self.relation_codes()
        is_rare = self._relations.rare(_MAX_EQUAL)
        if len(codes) < 2 or not is_rare[[*codes.values()]].any():
            return []
        parts = []
        for number, chunk in enumerate(self._chunks):
            at = np.flatnonzero(is_rare[chunk.relation])
            if len(at):
                columns = {"code": chunk.relation[at], "x": chunk.x[at], "y": chunk.y[at]}
                parts.append(pl.DataFrame(columns).with_columns(at=at, number=pl.lit(number)))
        groups = pl.concat(parts).group_by("code", maintain_order=True)
        equal = groups.agg(
            pl.col("x", "y").n_unique().name.prefix("num_"), pl.first("x", "y", "at", "number"),
            count=pl.len(),
        ).filter((pl.col("num_x") == 1) & (pl.col("num_y") == 1))  # fmt: skip
        names = {code: name for name, code in codes.items()}
        places = []
        for one in equal.head(_MAX_PLACES).iter_rows(named=True):
            ends, chunk = np.array([one["x"], one["y"]]), self._chunks[one["number"]]
            uses = sum(
                int(np.isin(c.x, ends).sum() + np.isin(c.y, ends).sum()) for c in self._chunks
            )
            if uses == 2 * one["count"]:
                row = int(chunk.rows(np.array([one["at"]]))[0])
                places.append(Place(chunk.table, row, one["x"], one["y"], names[one["code"]]))
        return places

    def take_out(
        self, x: Mask, y: Mask, relations: Sequence[str | None], *, every: bool
    ) -> tuple[int, list[Place]]:
        """Remove rows by their nodes and relation.

        Args:
            x: records, as a mask.
            y: records, as a mask.
            relations: names of relations; None stands for a missing relation.
            every: remove rows whose x, y and relation are all among these; False: at least one.

        Returns:
            The number of removed rows, and the first ten.
        """
        codes = self.relation_codes()
        wanted = np.array(
            [NO_RELATION if r is None else codes[r] for r in relations if r in {None, *codes}]
        )
        places: list[Place] = []
        count = 0
        for number, chunk in enumerate(self._chunks):
            of_relation = np.isin(chunk.relation, wanted)
            hits = (x[chunk.x], y[chunk.y], of_relation)
            out = np.logical_and.reduce(hits) if every else np.logical_or.reduce(hits)
            if not out.any():
                continue
            at = np.flatnonzero(out)
            count += len(at)
            for i in at[: _MAX_PLACES - len(places)].tolist():
                row = int(chunk.rows(np.array([i]))[0])
                ends = int(chunk.x[i]), int(chunk.y[i])
                relation = self._relations.names.get(int(chunk.relation[i]))
                places.append(Place(chunk.table, row, *ends, relation))
            self._relations.count(chunk.relation[at], -1)
            kept = np.flatnonzero(~out)
            left = (chunk.x[kept], chunk.y[kept], chunk.relation[kept])
            self._chunks.replace(number, Chunk(chunk.table, chunk.rows(kept), *left))
        self.num_rows -= count
        if count:
            self._is_whole = False
        return count, places

    def used(self) -> Mask:
        """Return a mask of the records that rows still use."""
        if self._is_whole:
            return np.ones(len(self.nodes), bool)
        used = np.zeros(len(self.nodes), bool)
        for chunk in self._chunks:
            used[chunk.x] = True
            used[chunk.y] = True
        return used

    def only_used(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a table with one row for each record, without unused records."""
        return records if self._is_whole else records.filter(pl.Series(self.used()))

    def first_use(self, record: int) -> Place:
        """Return the first row, of those that were not removed, that uses a record."""
        for chunk in self._chunks:
            at = np.flatnonzero((chunk.x == record) | (chunk.y == record))[:1]
            if len(at):
                x, y, code = (int(column[at][0]) for column in chunk[2:])
                row = int(chunk.rows(at)[0])
                return Place(chunk.table, row, x, y, self._relations.names.get(code))
        raise IndexError(record)

    def last_row(self, table: int) -> int:
        """Return the number of the last row of a table that was read and not removed, or 0."""
        for number in reversed(range(len(self._chunks))):
            if self._chunks.tables()[number] == table and len(self._chunks[number].x):
                chunk = self._chunks[number]
                return int(chunk.rows(np.array([len(chunk.x) - 1]))[0])
        return 0

    def sorted_keys(
        self, node_of: IntArray, relations: Sequence[str], num_nodes: int
    ) -> tuple[SortedKeys, int]:
        """Pack all rows except self-loops into keys, and use up the rows.

        Args:
            node_of: the node of each record.
            relations: the names of all relations, sorted.
            num_nodes: number of nodes.

        Returns:
            The keys, and how many there are.

        Raises:
            InputError: a key does not have the bits for so many nodes and relations.
        """
        bits = node_bits(num_nodes)
        most = 2**63 >> 2 * bits + 1
        if len(relations) > most:
            paths = ", ".join(str(table.path) for table in self.tables)
            raise InputError(
                f"{paths}: the graph has {len(relations):,} relations; with {num_nodes:,} nodes, "
                f"at most {most:,} are allowed"
            )
        codes = self.relation_codes()
        rank = np.zeros(max(codes.values()) + 1, np.int16)
        rank[[codes[name] for name in relations]] = np.arange(len(relations))
        keys, count = SortedKeys(self.num_rows, self._directory), 0
        for chunk in self._chunks.used_up():  # any order, since the keys are sorted
            x, y, r = node_of[chunk.x], node_of[chunk.y], rank[chunk.relation]
            loops = x == y
            if loops.any():
                x, r, y = x[~loops], r[~loops], y[~loops]
            keys.add(pack_rows(x, r, y, bits))
            count += len(x)
        return keys, count


class RowReader:
    """Reads tables batch by batch; `num_rows` counts the rows so far, also after an error."""

    def __init__(self, plan: ReadingPlan | None = None) -> None:
        """Start to read; without a plan, the rows lie in memory."""
        self.num_rows = self.num_skipped_rows = 0
        self._plan = plan or ReadingPlan()
        self._relations = Relations()
        self.last_line = dict[Path, int]()  #: number of the last line that was read, by file
        self._tables: list[Table] = []
        self._numbered = False
        # A record's hash has 64 bits. For a million records, the probability that two of them have
        # the same hash is 3e-8.
        self._records = Numbering()
        self._chunks = Chunks(self._plan.directory)
        self._with_rows: set[int] = set()  #: numbers of the tables that have rows
        self._nodes: list[pl.DataFrame] = []
        self._long_text = 0  #: bytes of texts of the nodes with more than `_SHORT` bytes

    def read(self, table: Table, is_refused: Event) -> None:
        """Read one table. If it cannot be parsed, polars raises PolarsError or OSError.

        The reading ends early once `is_refused` is set; the caller then raises an error.
        """
        numbered = table.has_numbers
        if self._tables and numbered != self._numbered:
            rule = f"has {' and '.join(INDEX)}, as all edges files must if one has them"
            earlier = self._tables[0].path
            yes, no = (table.path, earlier) if numbered else (earlier, table.path)
            raise InputError(f"{no} lacks node numbers, but {yes} {rule}")
        self._numbered = numbered
        self._tables.append(table)
        frame = _with_hashes(table, len(self._tables))
        frame = frame.with_row_index(ROW, offset=table.first_row)
        for batch in frame.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
            if is_refused.is_set():
                return
            if not len(batch):
                continue
            row: int | IntArray = int(batch[ROW][0])
            self.last_line[table.path] = int(batch[ROW][-1])
            if batch[SKIP].any():
                self.num_skipped_rows += int(batch[SKIP].sum())
                batch = batch.filter(~batch[SKIP])
                if not len(batch):
                    continue  # a file of blank lines takes no memory
                row = batch[ROW].to_numpy()
            x, y = self._number(batch, "x_"), self._number(batch, "y_")
            number, codes = len(self._tables) - 1, self._relations.add(batch["relation"])
            self._chunks.append(Chunk(number, row, x, y, codes))
            self._with_rows.add(number)
            self.num_rows += len(batch)

    def _number(self, batch: pl.DataFrame, side: str) -> IntArray:
        """Return the record of the x node ("x_") or y node ("y_") of each row; add new records."""
        records = batch[side + _RECORD].to_numpy()
        number = self._records.find(records)
        unknown = number < 0
        if unknown.any():
            self._add_nodes(batch, side, np.flatnonzero(unknown), records[unknown])
            number[unknown] = self._records.find(records[unknown])
        return number

    def _add_nodes(self, batch: pl.DataFrame, side: str, rows: IntArray, records: Hashes) -> None:
        """Number new records, and keep the fields of each from its first row."""
        new, first = np.unique(records, return_index=True)
        self._records.add(new)
        # Select from each column by itself: batch.select, and also Series.gather, would wait for
        # polars' thread pool, which is busy with parsing the file.
        nodes, at = self._tables[-1].nodes, pl.Series(rows[first])
        if nodes is None:
            names = [name for name in (*FIELDS, "index") if side + name in batch]
            kept = {name: batch[side + name][at] for name in names}
        else:
            kept = _look_up(nodes, batch[f"{side}{KEY}"][at])
        if self._plan.directory is not None:
            self._long_text += sum(_long_bytes(kept[name]) for name in FIELDS if name in kept)
            self._plan.check_nodes(self._tables[-1].path, len(self._records), self._long_text)
        kept[ROW] = batch[ROW][at]
        kept[TABLE] = pl.Series(np.full(len(new), len(self._tables) - 1, np.int32))
        self._nodes.append(pl.DataFrame(kept))
        if len(self._nodes) == _MAX_NODE_TABLES:
            self._join_nodes()

    def _join_nodes(self) -> None:
        """Join the tables of nodes; the joined copy lets polars free the batches.

        A large first table stays alone until the others have a quarter of its rows. So the number
        of copies of a node grows with the logarithm of the number of nodes.
        """
        first, *others = self._nodes
        is_large = len(first) > _LARGE * sum(map(len, others))
        kept, joined = ([first], others) if is_large else ([], self._nodes)
        self._nodes = [*kept, pl.concat(joined, rechunk=True)]

    def finish(self) -> Rows:
        """Return all rows that were read.

        Raises:
            InputError: a file does not have rows.
        """
        for number, table in enumerate(self._tables):
            if number not in self._with_rows:
                raise InputError(f"{table.path} has a header but no rows")
        # One table would take twice the memory for a moment.
        nodes = pl.concat(self._nodes, rechunk=len(self._nodes[0]) < _MANY_NODES)
        return Rows(
            self._tables, nodes, self.num_rows, self.num_skipped_rows, self._chunks,
            self._relations, self._plan.directory,
        )  # fmt: skip


def _with_hashes(table: Table, number: int) -> pl.LazyFrame:
    """Return the rows of a table as text, with a hash of each node.

    Hashing inside polars' stream is twice as fast as hashing each batch. All columns are parsed,
    even unneeded ones: polars then checks the number of fields in each row, so an unquoted comma
    is an error and does not shift the fields.
    """
    sides = ("x_", "y_")
    if table.nodes is None:
        columns = [*COLUMNS, *(INDEX if table.has_numbers else ())]
        hashes = [pl.struct([n for n in columns if n.startswith(s)]).hash(0) for s in sides]
    else:  # a key may stand for other nodes in other tables, so its hash has a seed
        columns = ["relation"]
        hashes = [pl.col(f"{side}{KEY}").hash(number) for side in sides]
    kinds = table.frame.collect_schema()
    if nested := [name for name in columns if name in kinds and kinds[name].is_nested()]:
        rule = f"must hold text or numbers, not {kinds[nested[0]]}"
        raise InputError(f"{table.path}: the column {nested[0]} {rule}")
    frame = table.frame.with_columns(pl.col(columns).cast(pl.String))
    named = [one.alias(side + _RECORD) for one, side in zip(hashes, sides, strict=True)]
    return frame.with_columns(pl.col("relation").cast(pl.Categorical), *named)


def _long_bytes(texts: pl.Series) -> int:
    """Return the bytes of all texts of more than `_SHORT` bytes."""
    lengths = texts.drop_nulls().str.len_bytes().to_numpy()
    return int(lengths[lengths > _SHORT].sum())


def _look_up(nodes: pl.DataFrame, keys: pl.Series) -> dict[str, pl.Series]:
    """Return the fields of the nodes with some keys.

    The fields of an unknown key are null, but its id is the key. The join waits for polars' thread
    pool; few batches have new keys.
    """
    found = keys.alias(KEY).to_frame().join(nodes, on=KEY, how="left", maintain_order="left")
    found = found.with_columns(pl.coalesce("id", pl.col(KEY).cast(pl.String)).alias("id"))
    return {name: found[name] for name in (*FIELDS, "index") if name in found.columns}
