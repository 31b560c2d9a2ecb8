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

from ..system import disk
from ..system.errors import InputError, check_shape
from ..system.files import atomic_path, check_writable
from ..system.machine import empty_cache
from ..system.untrusted.text import FORMULA

SUFFIXES = (".csv", ".parquet", ".npy")
COLUMNS = ("node_id", "node_name", "node_type", "embedding", "node_index", "node_source")
RUN = "run"  #: key of the id of a run, in the metadata of files
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


def read_embeddings(path: str | Path) -> tuple[pl.DataFrame, npt.NDArray[np.float32]]:
    """Read a file that `write_embeddings` wrote, or that another program has read and saved again.

    Further columns are ignored, other number types are converted, and the numbers of an embedding
    may be separated by commas, blanks or line breaks.

    Args:
        path: a .csv, .parquet or .npy file; .npy needs its index beside it.

    Returns:
        The nodes, N rows, and their embeddings, shape (N, D).

    Raises:
        InputError: the file is missing or damaged, or does not hold embeddings; the message names
            the first such row (row 1 of a CSV file is its header).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"embeddings (got {path}) must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"embeddings (got {path}) is not a file")
    first_row = 1 if suffix == ".parquet" else 2
    try:
        if suffix == ".npy":
            before = _stamp(index_path(path))
            nodes = pl.read_csv(index_path(path), infer_schema=False, glob=False)
            values = np.asarray(np.load(path), np.float32)
            if _stamp(index_path(path)) != before:
                raise InputError(f"embeddings (got {path}) were replaced while they were read")
        elif suffix == ".parquet":
            table = pl.read_parquet(path, glob=False)
            values = _numbers(path, table["embedding"], first_row)
            nodes = table.drop("embedding")
        else:
            nodes, values = _read_csv(path, first_row)
    except (pl.exceptions.PolarsError, OSError, TypeError, EOFError) as error:
        raise _unreadable(path, str(error)) from error
    except InputError:
        raise
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    missing = set(COLUMNS) - {"embedding", *nodes.columns}
    if missing or values.ndim != 2 or len(values) != nodes.height:
        raise InputError(
            f"embeddings (got {path}) must have the columns {', '.join(COLUMNS)}, with lists of "
            f"numbers of one length; it has {', '.join(nodes.columns)} and numbers of shape "
            f"{values.shape}"
        )
    if not (finite := np.isfinite(values).all(axis=1)).all():
        row = first_row + int(np.flatnonzero(~finite)[0])
        raise InputError(f"embeddings (got {path}), row {row}: NaN, infinity or a gap")
    return plain_nodes(path, nodes, first_row), values


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return numbers that change when another file gets the name `path`."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _unreadable(path: Path, reason: str) -> InputError:
    first_line = reason.split("\n")[0]
    return InputError(f"embeddings (got {path}) cannot be read as embeddings: {first_line}")


def _read_csv(path: Path, first_row: int) -> tuple[pl.DataFrame, npt.NDArray[np.float32]]:
    frame = pl.scan_csv(path, infer_schema=False, glob=False)
    tables: list[pl.DataFrame] = []
    parts: list[npt.NDArray[np.float32]] = []
    row = first_row
    for batch in frame.collect_batches(chunk_size=_READ_ROWS, maintain_order=True):
        width = parts[0].shape[1] if parts else None
        parts.append(_numbers(path, batch["embedding"], row, width))
        tables.append(batch.drop("embedding"))
        row += batch.height
    return pl.concat(tables), np.concatenate(parts)


def _numbers(
    path: Path, column: pl.Series, first_row: int, width: int | None = None
) -> npt.NDArray[np.float32]:
    """Return a column of embeddings, which has lists of numbers or text, as an array (N, D).

    Raises:
        InputError: a row does not hold numbers, or not as many as the first row (or `width`).
    """
    if not len(column):
        raise InputError(f"embeddings (got {path}) has no rows")
    if column.dtype == pl.String:
        column = _parsed(column)
    if isinstance(column.dtype, pl.Array):
        if column.dtype.inner == pl.Float32:  # as written; gaps become NaN
            return column.to_numpy()
        column = column.arr.to_list()
    lists = column.cast(pl.List(pl.Float32), strict=False)
    lengths = lists.list.len().fill_null(0)
    width = int(lengths[0]) if width is None else width
    wrong = (lengths != width) | (lengths == 0)
    wrong |= lists.list.eval(pl.element().is_null()).list.any().fill_null(True)
    if wrong.any():
        at = int(wrong.arg_true()[0])
        raise InputError(
            f"embeddings (got {path}), row {first_row + at}: embedding must be a list of {width} "
            f"numbers, as in the first row"
        )
    values: npt.NDArray[np.float32] = lists.list.to_array(width).to_numpy()
    return values


def _parsed(text: pl.Series) -> pl.Series:
    """Return lists of numbers from text; a word that is not a number becomes null."""
    number = pl.element().cast(pl.Float32)
    try:  # the form that `write_embeddings` writes; 3 times as fast as the other forms
        return text.str.strip_chars("[]").str.split(",").list.eval(number)
    except pl.exceptions.PolarsError:
        words = (
            text.str.replace_all(r"(np\.float\d+\(|[\[\](),;\s])+", " ")
            .str.strip_chars()
            .str.split(" ")
        )
        return words.list.eval(pl.element().cast(pl.Float32, strict=False))


def plain_nodes(path: Path, table: pl.DataFrame, first_row: int) -> pl.DataFrame:
    """Return the columns of the nodes as this package writes them.

    Raises:
        InputError: a value is missing, a number is not whole, or a node_index occurs twice.
    """
    columns = [name for name in COLUMNS if name != "embedding"]
    nodes = table.select(_as_text(table[name]) for name in columns)
    if nodes["node_source"].is_null().all():  # pandas saves an empty text as a gap
        nodes = nodes.with_columns(node_source=pl.lit(""))
    number = table["node_index"].cast(pl.Float64, strict=False)  # exact up to 2^53
    whole = pl.when(number == number.floor()).then(number).cast(pl.Int64, strict=False)
    index = pl.select(node_index=whole).to_series()
    wrong = {name: nodes[name].is_null() for name in columns}
    wrong["node_index"] = index.is_null() | ~index.is_first_distinct()
    for name, rows in wrong.items():
        if rows.any():
            at = int(rows.arg_true()[0])
            rule = "a whole number that no other row has" if name == "node_index" else "text"
            raise InputError(
                f"embeddings (got {path}), row {first_row + at}: {name} (got "
                f"{table[name][at]!r}) must be {rule}. pandas reads names such as NA as missing; "
                "read the file with dtype=str and keep_default_na=False"
            )
    return nodes.with_columns(node_index=index)


def _as_text(column: pl.Series) -> pl.Series:
    """Return a column as text, with whole numbers that became floats ("5000.0") as "5000".

    A column is changed only if all of its values are such numbers, as after pandas has read it.
    """
    if column.dtype.is_float():
        whole = (column == column.floor()).all() and column.is_finite().all()
        column = column.cast(pl.Int64) if whole else column
    text = column.cast(pl.String)
    if len(text) and text.str.contains(r"^\d+\.0$").fill_null(False).all():
        text = text.str.strip_suffix(".0")
    return text
