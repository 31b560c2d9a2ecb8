"""A `KnowledgeGraph` as one file of tensors and tables, see `sealed_file`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from clinical_drug_discovery.graph import EdgeType, KnowledgeGraph, ReadReport
from clinical_drug_discovery.system.files import OtherVersionError, load_sealed, save_sealed

#: To be raised whenever the same edges file gives another graph than before, were it only the order
#: of its edges: graphs of other versions are read anew.
FORMAT_VERSION = 2
_TABLE = ".arrow"  # ends the name of a tensor that holds the bytes of a table

#: How a field that is neither tensor nor table comes back from JSON.
_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "node_type_names": tuple,
    "edge_types": lambda rows: tuple(EdgeType(*row) for row in rows),
    "report": lambda counts: ReadReport(**counts),
}


def save_graph(path: Path, graph: KnowledgeGraph, about: Mapping[str, Any]) -> None:
    """Write a graph; `load_graph` gives it back, equal in every field.

    Args:
        path: overwritten; see `checkpoint.atomic_path`.
        graph: on the CPU.
        about: kept beside the graph, as JSON.

    Raises:
        OSError: the file could not be written.
    """
    tensors, record = {}, {}
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value.contiguous()
        elif isinstance(value, pl.DataFrame):
            tensors[field.name + _TABLE] = _to_bytes(value)
        else:
            known = is_dataclass(value) and not isinstance(value, type)
            record[field.name] = asdict(value) if known else value
    save_sealed(path, FORMAT_VERSION, {"graph": record, "about": about}, tensors)


def load_graph(path: Path) -> tuple[KnowledgeGraph, dict[str, Any]]:
    """Read what `save_graph` wrote.

    The tensors are mapped, not copied: 8 million edges take a tenth of a second.

    Returns:
        The graph, and what was said about it.

    Raises:
        DamagedFileError: the file is not as it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: it cannot be read at all.
    """
    record, tensors = load_sealed(path, FORMAT_VERSION)
    values = {**record["graph"]}
    for name, tensor in tensors.items():
        values[name.removesuffix(_TABLE)] = _to_table(tensor) if name.endswith(_TABLE) else tensor
    if values.keys() != {field.name for field in fields(KnowledgeGraph)}:
        raise OtherVersionError("a version with other fields")
    values |= {name: decode(values[name]) for name, decode in _FROM_JSON.items()}
    return KnowledgeGraph(**values), record["about"]


def _to_bytes(table: pl.DataFrame) -> Tensor:
    buffer = io.BytesIO()
    table.write_ipc(buffer)
    return torch.from_numpy(np.frombuffer(buffer.getbuffer(), np.uint8))


def _to_table(data: Tensor) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(data.numpy().data))
