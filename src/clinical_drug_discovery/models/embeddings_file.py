"""Write embeddings (CSV, Parquet or .npy) and other tables (CSV or Parquet); see `read_embeddings`.

Columns of embeddings: node_id, node_name, node_type, embedding, node_index, node_source; rows are
sorted by node_index.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from ..system import disk
from ..system.errors import InputError, check_shape
from ..system.files import atomic_path, check_name, check_writable
from ..system.machine import trim_heap
from ..system.untrusted.text import FORMULA

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".csv", ".parquet", ".npy")
COLUMNS = ("node_id", "node_name", "node_type", "embedding", "node_index", "node_source")
RUN = "run"  #: key of the id of a run, in the metadata of files
_CHUNK_FLOATS = 2**19  # numbers per chunk (2 MiB): 1024 rows of 512 dimensions
_TABLE_ROWS = 65_536  # rows per Parquet row group in a table without embeddings


def check_output(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check that an output file can be written.

    Raises:
        InputError: the suffix is not one of `suffixes`, or the path is a directory, a circular
            link, or in a directory that is not writable.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"output (got {path}) must end in one of {', '.join(suffixes)}")
    check_name("output", path)
    if path.is_dir():
        raise InputError(f"output (got {path}) is a directory")
    try:
        directory = path.resolve().parent  # for a link, the target is written
    except (OSError, RuntimeError):
        raise InputError(f"output (got {path}) is a circular link") from None
    check_writable("output", directory, path)


def check_table_output(path: Path) -> None:
    """Check an output file like `check_output`, for a table without embeddings."""
    check_output(path, (".csv", ".parquet"))


def write_tables(path: Path, tables: Iterator[pl.DataFrame]) -> int:
    """Append tables to a temporary file, and give it the name `path` when it is complete.

    Args:
        path: .csv or .parquet.
        tables: at least one, with the same columns; only one is in memory at a time.

    Returns:
        The number of rows.
    """
    num_rows = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal num_rows
        for table in tables:
            num_rows += table.height
            yield table

    with atomic_path(path) as temporary, disk.create(temporary) as file:
        if path.suffix.lower() == ".parquet":
            _write_parquet(file, counted(), _TABLE_ROWS, "zstd")
        else:
            for i, table in enumerate(counted()):
                without_formulas(table).write_csv(file, include_header=i == 0)
    return num_rows


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table for CSV whose texts a spreadsheet does not compute.

    A text that starts with =, +, -, @, a tab or a carriage return gets an apostrophe before it, by
    which spreadsheets recognize text. Numbers stay.
    """
    text = pl.col(pl.String)
    safe = pl.when(text.str.contains(FORMULA)).then(pl.lit("'") + text).otherwise(text)
    return table.with_columns(safe.name.keep())


def output_files(path: Path) -> list[Path]:
    """Return all files that `write_embeddings` writes for `path`."""
    return [path, index_path(path)] if path.suffix.lower() == ".npy" else [path]


def index_path(path: Path) -> Path:
    """Return the path of a .npy file's index, a CSV file with the nodes' ids and names."""
    return path.with_name(f"{path.stem}_index.csv")


def write_embeddings(
    path: Path, nodes: pl.DataFrame, embeddings: Tensor, run: str | None = None
) -> int:
    """Write one row per node, sorted by node_index.

    Only a few chunks of sorted rows are in memory at a time. The file appears once complete.

    Args:
        path: .csv (the embedding as a JSON list that parses back to the same float32), .parquet
            (a fixed-size list of float32) or .npy (an (N, D) array, with `index_path` beside it).
        nodes: N rows: node_index, node_id, node_type, node_name, node_source.
        embeddings: shape (N, D), float32, on the CPU.
        run: id of the run, for the metadata of a .parquet file.

    Returns:
        The number of rows written.
    """
    check_shape("embeddings", embeddings, nodes.height, None)
    order = nodes["node_index"].arg_sort()
    nodes, rows, values = nodes[order], order.to_numpy(), embeddings.numpy()
    size = chunk_rows(values.shape[1])
    chunks = (values[rows[start : start + size]] for start in range(0, len(rows), size))
    if path.suffix.lower() == ".npy":
        with atomic_path(index_path(path)) as temporary, disk.create(temporary) as file:
            nodes.select(name for name in COLUMNS if name != "embedding").write_csv(file)
        with atomic_path(path) as temporary, disk.create(temporary) as file:
            _write_numpy_header(file, values)
            for chunk in chunks:
                file.write(chunk.data)
    else:
        tables = (
            nodes.slice(i * size, size).with_columns(embedding=_column(chunk)).select(COLUMNS)
            for i, chunk in enumerate(chunks)
        )
        with atomic_path(path) as temporary, disk.create(temporary) as file:
            if path.suffix.lower() == ".parquet":
                _write_parquet(file, tables, size, metadata=None if run is None else {RUN: run})
            else:
                _write_csv(file, tables)
    trim_heap()
    return nodes.height


def chunk_rows(dim: int) -> int:
    """Return the number of rows in a chunk of embeddings with `dim` dimensions."""
    return max(1, _CHUNK_FLOATS // max(dim, 1))


def _write_numpy_header(file: BinaryIO, values: npt.NDArray[np.float32]) -> None:
    """Write the header that np.save writes before the bytes of an array."""
    header = {
        "descr": np.lib.format.dtype_to_descr(values.dtype),
        "fortran_order": False,
        "shape": values.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)


def _write_parquet(
    file: BinaryIO,
    tables: Iterator[pl.DataFrame],
    num_rows: int,
    compression: Literal["lz4", "zstd"] = "lz4",  # the fastest, because floats hardly shrink
    metadata: dict[str, str] | None = None,
) -> None:
    """Write one row group per table. Polars' streaming engine takes the tables one by one."""
    first = next(tables)

    def source(*_: Any) -> Iterator[pl.DataFrame]:  # ignores arguments: a sink needs all columns
        yield first
        yield from tables

    register_io_source(source, schema=first.schema).sink_parquet(
        file,
        compression=compression,
        row_group_size=num_rows,
        maintain_order=True,
        metadata=metadata,
    )


def _write_csv(file: BinaryIO, tables: Iterator[pl.DataFrame]) -> None:
    """Write one table after the other. The text of a table takes about 24 bytes per number."""
    for i, table in enumerate(tables):
        table.with_columns(_as_json("embedding")).write_csv(file, include_header=i == 0)


def run_of_embeddings(path: Path) -> str | None:
    """Return the id of the run that wrote a .parquet file; None if the file does not carry one."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        return pl.read_parquet_metadata(path).get(RUN)
    except (pl.exceptions.PolarsError, OSError):
        return None


def _column(values: npt.NDArray[np.float32]) -> pl.Series:
    return pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))


def _as_json(column: str) -> pl.Expr:
    """Format lists of floats as JSON, with the shortest digits that parse back exactly."""
    digits = pl.col(column).arr.to_list().list.eval(pl.element().cast(pl.String))
    return pl.format("[{}]", digits.list.join(",")).alias(column)
