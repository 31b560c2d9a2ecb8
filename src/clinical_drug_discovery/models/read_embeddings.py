"""Read embeddings (CSV, Parquet or .npy) that this program or another one has written.

A file may come from a stranger. Sizes are checked before memory is taken, types before values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..graph.knowledge_graph import IntArray
from ..graph.reading.parquet_sizes import check_all_read, check_parquet
from ..graph.reading.unpacking import Limit, check_rows
from ..system.errors import InputError, counted
from ..system.untrusted.inputs import check_regular
from ..system.untrusted.panics import without_panics
from .embeddings_file import COLUMNS, SUFFIXES, index_path

_READ_ROWS = 4096  # CSV rows read at a time
_NODE_COLUMNS = tuple(name for name in COLUMNS if name != "embedding")
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"PK\x03\x04")
_BYTES_PER_ROW = 64  # of a table of nodes in memory, at least
Values = npt.NDArray[np.float32]
_Types = Collection[str] | None  # None: all


def read_embeddings(path: str | Path) -> tuple[pl.DataFrame, Values]:
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
    nodes, _, values = read_embeddings_of(path, None)
    return nodes, values


def read_embeddings_of(
    path: str | Path, types: Collection[str] | None
) -> tuple[pl.DataFrame, IntArray, Values]:
    """Read all nodes, and the embeddings of some types alone.

    From .npy, and from .parquet as this package writes it, no other embeddings are read or checked.

    Args:
        path: see `read_embeddings`.
        types: node types; None: all.

    Returns:
        The nodes, N rows; the numbers of the n rows of the types, ascending; and the embeddings of
        these rows, shape (n, D).

    Raises:
        InputError: see `read_embeddings`.
    """
    path = check_embeddings(path)
    suffix = path.suffix.lower()
    first_row = 1 if suffix == ".parquet" else 2
    read: dict[str, Callable[[Path, int, _Types], tuple[pl.DataFrame, Values]]] = {
        ".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy
    }  # fmt: skip
    try:
        with without_panics():
            nodes, values = read[suffix](path, first_row, types)
        _check_types(path, nodes)
    except InputError:
        raise
    except (
        pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, TypeError, ValueError,
        EOFError,
    ) as error:  # fmt: skip
        first_line = (str(error) or type(error).__name__).split("\n")[0]
        text = f"embeddings (got {path}) cannot be read as embeddings: {first_line}"
        raise InputError(text) from error
    rows = _rows_of(nodes, types)
    if not (finite := np.isfinite(values).all(axis=1)).all():
        row = first_row + int(rows[~finite][0])
        raise InputError(f"embeddings (got {path}), row {row}: NaN, infinity or a gap")
    return plain_nodes(path, nodes, first_row), rows, values


def check_embeddings(path: str | Path) -> Path:
    """Return the path of embeddings as a path.

    Raises:
        InputError: it does not end as one of `SUFFIXES`, or is not a file.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"embeddings (got {path}) must end in one of {', '.join(SUFFIXES)}")
    check_regular("embeddings", path)
    return path


def _rows_of(nodes: pl.DataFrame, types: _Types) -> IntArray:
    """Return the numbers of the rows of some types, or of all rows."""
    if types is None:
        return np.arange(nodes.height)
    found = nodes["node_type"].cast(pl.String).is_in(list(types))
    return np.flatnonzero(found.fill_null(False).to_numpy())


def _read_npy(path: Path, _: int, types: _Types) -> tuple[pl.DataFrame, Values]:
    index = index_path(path)
    check_regular(f"embeddings (got {path}): the index", index)
    before = _stamp(index)
    found = _map_array(path)
    nodes = pl.concat(list(_csv_batches(index, _NODE_COLUMNS)))
    if len(found) != nodes.height:
        raise InputError(
            f"embeddings (got {path}) has {counted(len(found), 'embedding')}, but "
            f"{counted(nodes.height, 'node')}"
        )
    with np.errstate(over="ignore"):  # infinity is refused by the caller
        values = np.array(found if types is None else found[_rows_of(nodes, types)], np.float32)
    if _stamp(index) != before:
        raise InputError(f"embeddings (got {path}) were replaced while they were read")
    return nodes, values


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return numbers that change when another file gets the name `path`."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _map_array(path: Path) -> npt.NDArray[Any]:
    """Map a matrix of numbers; the size in its header must be that of the file."""
    with path.open("rb") as file:
        if file.read(4).startswith(b"PK"):
            raise InputError(
                f"embeddings (got {path}) is an archive of arrays (.npz); save one array with "
                "numpy.save"
            )
    try:  # maps the file, so a size in the header takes no memory; objects (pickles) are refused
        found = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's parser of the header raises errors of any kind
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise InputError(
            f"embeddings (got {path}) is not a file of embeddings: {reason}"
        ) from error
    fits = found.ndim == 2 and found.dtype.kind in "fiu" and found.shape[1] > 0
    if not fits or found.offset + found.nbytes != path.stat().st_size:
        raise InputError(
            f"embeddings (got {path}) must be a matrix of numbers that fills the file; its header "
            f"says shape {found.shape} and type {found.dtype}"
        )
    return found


def _read_parquet(path: Path, first_row: int, types: _Types) -> tuple[pl.DataFrame, Values]:
    check_parquet(path, path)
    frame = pl.scan_parquet(path, glob=False)
    schema = frame.collect_schema()
    _check_columns(path, schema.names())
    # A few bytes of Parquet may stand for billions of equal rows.
    num_rows = int(frame.select(pl.len()).collect().item())
    dtype = schema["embedding"]
    width = dtype.size if isinstance(dtype, pl.Array) else 1
    size = path.stat().st_size
    Limit(path, size, None).check(num_rows * (_BYTES_PER_ROW + 4 * width))
    nodes = frame.select(_NODE_COLUMNS).collect()
    check_all_read(path, nodes.height, num_rows)
    rows = _rows_of(nodes, types)
    if types is None or not (isinstance(dtype, pl.Array) and dtype.inner == pl.Float32):
        column = frame.select("embedding").collect()["embedding"]
        check_all_read(path, len(column), num_rows)
        return nodes, _numbers(path, column, first_row)[rows]
    wanted = pl.col("node_type").cast(pl.String).is_in(list(types))
    column = frame.filter(wanted).select("embedding").collect()["embedding"]
    check_all_read(path, len(column), len(rows))
    return nodes, column.to_numpy()


def _read_csv(path: Path, first_row: int, types: _Types) -> tuple[pl.DataFrame, Values]:
    tables: list[pl.DataFrame] = []
    parts: list[Values] = []
    row = first_row
    for batch in _csv_batches(path, COLUMNS):
        width = parts[0].shape[1] if parts else None
        parts.append(_numbers(path, batch["embedding"], row, width))
        tables.append(batch.drop("embedding"))
        row += batch.height
    nodes = pl.concat(tables)
    return nodes, np.concatenate(parts)[_rows_of(nodes, types)]


def _csv_batches(path: Path, columns: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """Yield the rows of a CSV file as text, at least one batch."""
    with path.open("rb") as file:
        if file.read(8).startswith(_PACKED):
            raise InputError(f"embeddings (got {path}) is compressed; decompress it")
    check_rows(path, path)
    frame = pl.scan_csv(path, infer_schema=False, glob=False)
    _check_columns(path, frame.collect_schema().names(), columns)
    empty = True
    for batch in frame.collect_batches(chunk_size=_READ_ROWS, maintain_order=True):
        if batch.height:
            empty = False
            yield batch.select(columns)
    if empty:
        raise InputError(f"embeddings (got {path}) must have at least one row")


def _check_columns(path: Path, found: Sequence[str], columns: tuple[str, ...] = COLUMNS) -> None:
    if missing := [name for name in columns if name not in found]:
        raise InputError(
            f"embeddings (got {path}) must have the columns {', '.join(columns)}; it lacks "
            f"{', '.join(missing)} and has {', '.join(found)}"
        )


def _check_types(path: Path, nodes: pl.DataFrame) -> None:
    """Check that the columns of the nodes have texts and numbers."""
    for name, dtype in nodes.schema.items():
        is_text = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
        if not (is_text or dtype.is_integer() or dtype.is_float()):
            raise InputError(
                f"embeddings (got {path}): the column {name} must have texts or numbers, but it "
                f"has {dtype}"
            )


def _numbers(path: Path, column: pl.Series, first_row: int, width: int | None = None) -> Values:
    """Return a column of embeddings, which has lists of numbers or text, as an array (N, D).

    Raises:
        InputError: a row does not hold numbers, or not as many as the first row (or `width`).
    """
    if not len(column):
        raise InputError(f"embeddings (got {path}) must have at least one row")
    if column.dtype == pl.String:
        column = _parsed(column)
    inner = column.dtype.inner if isinstance(column.dtype, pl.List | pl.Array) else None
    if inner is None or not inner.is_numeric():
        raise InputError(
            f"embeddings (got {path}): the column embedding must have lists of numbers, but it has "
            f"{column.dtype}"
        )
    if isinstance(column.dtype, pl.Array) and column.dtype.size:
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
    index = table["node_index"]
    if not index.dtype.is_integer():
        index = index.cast(pl.String)
    index = index.cast(pl.Int64, strict=False)
    if index.null_count():  # numbers such as 7.0; exact up to 2^53
        number = table["node_index"].cast(pl.Float64, strict=False)
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
    if len(text) and _are_whole(text[:1]) and _are_whole(text):  # the first value mostly decides
        text = text.str.strip_suffix(".0")
    return text


def _are_whole(text: pl.Series) -> bool:
    """Return whether all texts are whole numbers that became floats."""
    return bool(text.str.contains(r"^\d+\.0$").fill_null(False).all())
