"""Read and write embeddings (CSV, Parquet or .npy), and write other tables (CSV or Parquet).

Columns of embeddings: node_id, node_name, node_type, embedding, node_index, node_source; rows are
sorted by node_index.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from polars.io.plugins import register_io_source
from torch import Tensor

from ..system.errors import InputError, check_shape
from ..system.files import atomic_path, check_writable
from ..system.machine import empty_cache

SUFFIXES = (".csv", ".parquet", ".npy")
COLUMNS = ("node_id", "node_name", "node_type", "embedding", "node_index", "node_source")
_CHUNK_FLOATS = 2**19  # numbers per chunk (2 MiB): 1024 rows of 512 dimensions
_TABLE_ROWS = 65_536  # rows per Parquet row group in a table without embeddings
_READ_ROWS = 4096  # CSV rows read at a time


def check_output(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check that an output file can be written.

    Raises:
        InputError: the suffix is not one of `suffixes`, or the path is a directory, a circular
            link, or in a directory that is not writable.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"output (got {path}) must end in one of {', '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"output (got {path}) is a directory")
    try:
        directory = path.resolve().parent  # for a link, the target is written
    except (OSError, RuntimeError):
        raise InputError(f"output (got {path}) is a circular link") from None
    check_writable("output", directory)


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

    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".parquet":
            _write_parquet(temporary, counted(), _TABLE_ROWS, "zstd")
        else:
            with temporary.open("wb") as file:
                for i, table in enumerate(counted()):
                    table.write_csv(file, include_header=i == 0)
    return num_rows


def output_files(path: Path) -> list[Path]:
    """Return all files that `write_embeddings` writes for `path`."""
    return [path, index_path(path)] if path.suffix.lower() == ".npy" else [path]


def index_path(path: Path) -> Path:
    """Return the path of a .npy file's index, a CSV file with the nodes' ids and names."""
    return path.with_name(f"{path.stem}_index.csv")


def write_embeddings(path: Path, nodes: pl.DataFrame, embeddings: Tensor) -> int:
    """Write one row per node, sorted by node_index.

    Only a few chunks of sorted rows are in memory at a time. The file appears once complete.

    Args:
        path: .csv (the embedding as a JSON list that parses back to the same float32), .parquet
            (a fixed-size list of float32) or .npy (an (N, D) array, with `index_path` beside it).
        nodes: N rows: node_index, node_id, node_type, node_name, node_source.
        embeddings: shape (N, D), float32, on the CPU.

    Returns:
        The number of rows written.
    """
    check_shape("embeddings", embeddings, nodes.height, None)
    order = nodes["node_index"].arg_sort()
    nodes, rows, values = nodes[order], order.to_numpy(), embeddings.numpy()
    size = chunk_rows(values.shape[1])
    chunks = (values[rows[start : start + size]] for start in range(0, len(rows), size))
    if path.suffix.lower() == ".npy":
        with atomic_path(index_path(path)) as temporary:
            nodes.select(name for name in COLUMNS if name != "embedding").write_csv(temporary)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            _write_numpy_header(file, values)
            for chunk in chunks:
                file.write(chunk.data)
    else:
        tables = (
            nodes.slice(i * size, size).with_columns(embedding=_column(chunk)).select(COLUMNS)
            for i, chunk in enumerate(chunks)
        )
        write = _write_parquet if path.suffix.lower() == ".parquet" else _write_csv
        with atomic_path(path) as temporary:
            write(temporary, tables, size)
    empty_cache(torch.device("cpu"))
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
    path: Path,
    tables: Iterator[pl.DataFrame],
    num_rows: int,
    compression: Literal["lz4", "zstd"] = "lz4",  # the fastest, because floats hardly shrink
) -> None:
    """Write one row group per table. Polars' streaming engine takes the tables one by one."""
    first = next(tables)

    def source(*_: Any) -> Iterator[pl.DataFrame]:  # ignores arguments: a sink needs all columns
        yield first
        yield from tables

    register_io_source(source, schema=first.schema).sink_parquet(
        path, compression=compression, row_group_size=num_rows, maintain_order=True
    )


def _write_csv(path: Path, tables: Iterator[pl.DataFrame], num_rows: int) -> None:
    """Write one table after the other. The text of a table takes about 24 bytes per number."""
    with path.open("wb") as file:
        for i, table in enumerate(tables):
            table.with_columns(_as_json("embedding")).write_csv(file, include_header=i == 0)


def _column(values: npt.NDArray[np.float32]) -> pl.Series:
    return pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))


def _as_json(column: str) -> pl.Expr:
    """Format lists of floats as JSON, with the shortest digits that parse back exactly."""
    digits = pl.col(column).arr.to_list().list.eval(pl.element().cast(pl.String))
    return pl.format("[{}]", digits.list.join(",")).alias(column)


def read_embeddings(path: str | Path) -> tuple[pl.DataFrame, npt.NDArray[np.float32]]:
    """Read a file that `write_embeddings` wrote.

    Args:
        path: a .csv, .parquet or .npy file; .npy needs its index beside it.

    Returns:
        The nodes, N rows, and their embeddings, shape (N, D).

    Raises:
        InputError: the file is missing or damaged, or does not hold embeddings.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"embeddings (got {path}) must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"embeddings (got {path}) is not a file")
    try:
        if path.suffix.lower() == ".npy":
            nodes = pl.read_csv(index_path(path), infer_schema=False, glob=False)
            nodes = nodes.with_columns(pl.col("node_index").cast(pl.Int64))
            values = np.load(path)
        elif path.suffix.lower() == ".parquet":
            table = pl.read_parquet(path, glob=False)
            nodes, values = table.drop("embedding"), table["embedding"].to_numpy()
        else:
            nodes, values = _read_csv(path)
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, EOFError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"embeddings (got {path}) cannot be read as embeddings: {reason}"
        ) from error
    missing = set(COLUMNS) - {"embedding", *nodes.columns}
    if missing or values.ndim != 2 or len(values) != nodes.height or values.dtype != np.float32:
        raise InputError(
            f"embeddings (got {path}) must have the columns {', '.join(COLUMNS)}, with lists of "
            f"float32 of one length; it has {', '.join(nodes.columns)} and {values.dtype} "
            f"of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"embeddings (got {path}) must be finite numbers; it has NaN, infinity or gaps"
        )
    return nodes, values


def _read_csv(path: Path) -> tuple[pl.DataFrame, npt.NDArray[np.float32]]:
    frame = pl.scan_csv(path, infer_schema=False, glob=False)
    tables, parts = [], []
    for batch in frame.collect_batches(chunk_size=_READ_ROWS, maintain_order=True):
        floats = (
            batch["embedding"]
            .str.strip_chars("[]")
            .str.split(",")
            .list.eval(pl.element().cast(pl.Float32))
        )
        width = floats.list.len()
        parts.append(floats.list.to_array(int(width[0])).to_numpy())
        tables.append(batch.drop("embedding"))
    nodes = pl.concat(tables).with_columns(pl.col("node_index").cast(pl.Int64))
    return nodes, np.concatenate(parts)
