"""Write a graph to one file, and load it again with all checks.

The columns of text of the node table are stored as UTF-8, with NUL between two values. Parsers of
table formats in native code are not made for files from strangers: a damaged length in an Arrow
file ended the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ...system.files import Array, DamagedFileError, Pieces, load_arrays, save_checksummed
from ..knowledge_graph import EdgeType, GraphArrays, KnowledgeGraph, ReadReport
from ..vocabulary import Vocabulary
from .check_graph import (
    ARRAYS,
    NODE_TEXT,
    check_arrays,
    check_graph,
    check_record,
    check_types,
    require,
)

#: Increase this number whenever a code change gives a new graph or edge order for the same file.
FORMAT_VERSION = 6
_NODES = "nodes."  # begins the name of an array that holds a column of the node table
_INDEX = "node_index"
_PIECE_ROWS = 2**20  # texts that are joined at a time
_PIECE_BYTES = 2**26  # bytes of a column that are split into texts at a time
_BETWEEN = "\0"  # between two texts; the reader refuses files with this character


def save_graph(path: Path, graph: KnowledgeGraph, about: Mapping[str, Any]) -> None:
    """Write a graph to a checksummed safetensors file.

    Args:
        path: overwritten; see `files.atomic_path`.
        graph: on the CPU.
        about: a record to store with the graph, as JSON.
    """
    arrays: dict[str, Array | Pieces] = {
        name: np.ascontiguousarray(array) for name, array in graph.arrays._asdict().items()
    }
    arrays[_NODES + _INDEX] = graph.nodes[_INDEX].cast(pl.Int64).to_numpy()
    for name in NODE_TEXT:
        arrays[_NODES + name] = _JoinedTexts(graph.nodes[name])
    record: dict[str, Any] = {}
    for field in fields(graph):
        value = getattr(graph, field.name)
        if field.name not in ("arrays", "nodes"):
            is_record = isinstance(value, ReadReport | Vocabulary)
            record[field.name] = asdict(value) if is_record else value
    save_checksummed(path, FORMAT_VERSION, {"graph": record, "about": about}, arrays)


class _JoinedTexts:
    """The texts of a column as UTF-8, with NUL between two of them, made piece by piece.

    The whole column would take its size in memory, and joining it twice that.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, column: pl.Series) -> None:
        self._column = column
        lengths = column.str.len_bytes().to_numpy()  # the sum of polars would have 32 bits
        num_bytes = int(lengths.sum()) + max(len(column) - 1, 0)
        self.shape = (num_bytes,)

    def __iter__(self) -> Iterator[Array]:
        for start in range(0, len(self._column), _PIECE_ROWS):
            text = self._column[start : start + _PIECE_ROWS].str.join(_BETWEEN).item()
            yield np.frombuffer((_BETWEEN * (start > 0) + text).encode(), np.uint8)


def with_mapped_arrays(path: Path, graph: KnowledgeGraph) -> KnowledgeGraph:
    """Return a graph whose arrays are mapped from a file that `save_graph` wrote of it.

    The arrays of the given graph take memory. Those of the file do not, if memory is scarce.

    Raises:
        DamagedFileError, OtherVersionError, OSError: see `load_checksummed`.
    """
    _, arrays = load_arrays(path, FORMAT_VERSION)
    return replace(graph, arrays=GraphArrays(**{name: arrays[name] for name in ARRAYS}))


def load_graph(path: Path) -> tuple[KnowledgeGraph, dict[str, Any]]:
    """Load a graph that `save_graph` wrote, and check it; this takes 0.1 s for 8 million edges.

    Returns:
        The graph, equal in every field to the saved graph, and the record `about`.

    Raises:
        DamagedFileError, OtherVersionError, OSError: see `load_checksummed`. A file whose content
            is not a graph is damaged, even if its checksum is right.
    """
    record, arrays = load_arrays(path, FORMAT_VERSION)
    columns = (_INDEX, *NODE_TEXT)
    require(arrays.keys() == {*ARRAYS, *(_NODES + name for name in columns)}, "other arrays")
    require(isinstance(record, dict) and record.keys() == {"graph", "about"}, "another record")
    values, about = record["graph"], record["about"]
    require(isinstance(about, dict), "about must be a record")
    check_record(values)
    found: dict[str, Any] = values | {  # JSON turns tuples into lists
        "node_type_names": tuple(values["node_type_names"]),
        "edge_types": tuple(EdgeType(*row) for row in values["edge_types"]),
        "report": ReadReport(**_with_tuples(values["report"])),
        "vocabulary": Vocabulary(**_with_tuples(values["vocabulary"])),
    }
    types, type_ptr = values["node_type_names"], arrays["type_ptr"]
    nodes = _nodes({name: arrays[_NODES + name] for name in columns}, types, type_ptr)
    of_graph = GraphArrays(**{name: arrays[name] for name in ARRAYS})
    check_arrays(of_graph)
    graph = KnowledgeGraph(of_graph, **found, nodes=nodes)
    check_graph(graph)
    return graph, about


def _nodes(columns: Mapping[str, Array], types: Sequence[str], type_ptr: Array) -> pl.DataFrame:
    """Return the table of the nodes.

    Args:
        columns: the stored columns.
        types: names of the node types.
        type_ptr: see `KnowledgeGraph`.

    Raises:
        DamagedFileError: the columns do not have one length, or are not text.
    """
    index = columns[_INDEX]
    require(index.dtype == np.int64 and index.ndim == 1, "node_index must be whole numbers")
    table = {_INDEX: pl.Series(_INDEX, index)}
    for name in NODE_TEXT:
        data = columns[name]
        require(data.dtype == np.uint8 and data.ndim == 1, f"{name} must be text")
        # Counted first: a file of NUL alone would otherwise give billions of empty texts.
        require(np.count_nonzero(data == 0) + 1 == len(index), f"{name} has another length")
        if name == "node_type":
            check_types(data.tobytes(), len(index), types, type_ptr)
            of_node = np.repeat(np.arange(len(types)), np.diff(type_ptr))
            table[name] = pl.Series(name, types, pl.String)[of_node]
            continue
        try:
            parts = [
                pl.Series(name, [piece.decode()]).str.split(_BETWEEN).explode()
                for piece in _pieces(data)
            ]
        except UnicodeDecodeError:
            raise DamagedFileError(f"{name} is not valid UTF-8") from None
        table[name] = pl.concat(parts)
    return pl.DataFrame(table)


def _pieces(data: Array) -> Iterator[bytes]:
    """Yield the texts of a column in pieces, without the NUL between two pieces."""
    start = 0
    while start <= len(data):
        stop = start + _PIECE_BYTES
        while stop < len(data) and data[stop]:
            found = np.flatnonzero(data[stop : stop + _PIECE_BYTES] == 0)
            stop += int(found[0]) if len(found) else _PIECE_BYTES
        yield data[start:stop].tobytes()
        start = stop + 1


def _with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON record with tuples instead of lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
