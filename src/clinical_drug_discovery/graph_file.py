"""A `KnowledgeGraph` as one file: tensors, tables and a checksum of both, in safetensors.

No pickle, and nothing that is read is believed before the checksum has been compared.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clinical_drug_discovery.graph import EdgeType, KnowledgeGraph, ReadReport

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


class DamagedGraphError(ValueError):
    """The file is not as it was written."""


class OtherVersionError(ValueError):
    """The file was written by another version of this package."""


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
    text = json.dumps({"graph": record, "about": about})
    metadata = {
        "version": str(FORMAT_VERSION),
        "record": text,
        "sha256": checksum(text, tensors),
    }
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_graph(path: Path) -> tuple[KnowledgeGraph, dict[str, Any]]:
    """Read what `save_graph` wrote.

    The tensors are mapped, not copied: 8 million edges take a tenth of a second, and pages that
    are not in use cost no memory. Whoever writes the file anew must therefore replace it.

    Returns:
        The graph, and what was said about it.

    Raises:
        DamagedGraphError: the file is not as it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: it cannot be read at all.
    """
    with path.open("rb"):  # a missing or forbidden file is no damaged one
        pass
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata["version"] != str(FORMAT_VERSION):
                raise OtherVersionError(f"version {metadata['version']}, not {FORMAT_VERSION}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file of safetensors is no dict
        if checksum(metadata["record"], tensors) != metadata["sha256"]:
            raise DamagedGraphError("its checksum is wrong")
    except KeyError as error:
        raise DamagedGraphError(f"it has no {error}") from error
    except (SafetensorError, TypeError, UnicodeError) as error:
        raise DamagedGraphError(str(error).split("\n")[0]) from error
    record = json.loads(metadata["record"])
    values = {**record["graph"]}
    for name, tensor in tensors.items():
        values[name.removesuffix(_TABLE)] = _to_table(tensor) if name.endswith(_TABLE) else tensor
    if values.keys() != {field.name for field in fields(KnowledgeGraph)}:
        raise OtherVersionError("a version with other fields")
    values |= {name: decode(values[name]) for name, decode in _FROM_JSON.items()}
    return KnowledgeGraph(**values), record["about"]


def graph_checksum(path: Path) -> str:
    """The checksum that stands in the file of a graph, which `load_graph` has compared."""
    with safe_open(path, "pt") as file:
        return str(file.metadata()["sha256"])


def _to_bytes(table: pl.DataFrame) -> Tensor:
    buffer = io.BytesIO()
    table.write_ipc(buffer)
    return torch.from_numpy(np.frombuffer(buffer.getbuffer(), np.uint8))


def _to_table(data: Tensor) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(data.numpy().data))


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds, whatever the order; a second for 1.8 GB."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
