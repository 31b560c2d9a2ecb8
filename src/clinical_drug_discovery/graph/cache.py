"""The cache of a graph: a file beside the edges file, valid as long as the edges file is the same.

As git's index does, the cache remembers the size and time stamps of the edges file, which are quick
to compare, and the SHA-256 of its content, which decides when the time stamps differ.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph, ReadReport
from clinical_drug_discovery.graph.read import check_edges_file, check_filters, read_graph
from clinical_drug_discovery.system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    load_checksummed,
    save_checksummed,
)

#: Raise this whenever the same edges file gives another graph than before, if only in the order of
#: its edges; a cached graph of another version is not used.
FORMAT_VERSION = 2
SUFFIX = ".graph"
_TABLE = ".arrow"  # end of the name of a tensor that holds the bytes of a table
# A file that changes twice within the resolution of its time stamps has the same stamps twice, so
# stamps this young prove nothing (git: "racily clean"). The coarsest resolution is 2 s (FAT).
_RACY_NS = 2 * 10**9
_BLOCK = 2**20

Stamp = list[int]  #: size, mtime_ns, ctime_ns

#: Decoders of the fields that JSON does not give back as they were.
_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "node_type_names": tuple,
    "edge_types": lambda rows: tuple(EdgeType(*row) for row in rows),
    "report": lambda counts: ReadReport(**counts),
}


@dataclass(frozen=True)
class CacheOutcome:
    """Where the graph came from."""

    path: Path  #: file of the cached graph
    hit: bool  #: the graph was loaded from this file
    message: str  #: one line for the user
    warnings: tuple[str, ...]  #: for the user


def cache_path(
    path: Path,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
    cache_dir: str | Path | None,
) -> Path:
    """Return the file that caches the graph of an edges file and of some filters.

    Args:
        path: the edges file.
        include_node_types: see `read_graph`; in any order.
        limit_nodes: see `read_graph`.
        cache_dir: directory of the cache; None for that of the edges file.

    Raises:
        InputError: a filter breaks its rule.
    """
    check_filters(include_node_types, limit_nodes)
    types = None if include_node_types is None else sorted(set(include_node_types))
    options: list[Any] = [types, limit_nodes]
    if cache_dir is not None:  # it may serve files of the same name
        options.append(str(path.absolute().parent))
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]
    directory = path.parent if cache_dir is None else Path(cache_dir)
    return directory / f"{path.name}.{key}{SUFFIX}"


def read_cached(
    path: str | Path,
    *,
    include_node_types: Sequence[str] | None = None,
    limit_nodes: int | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[KnowledgeGraph, CacheOutcome]:
    """Load a graph from its cache, or read the edges file and cache the graph.

    A cached graph that is damaged, of another version or of other content is replaced. If the cache
    cannot be written, the outcome has a warning.

    Args:
        path: see `read_graph`.
        include_node_types: see `read_graph`.
        limit_nodes: see `read_graph`.
        cache_dir: see `cache_path`.

    Returns:
        The graph, equal in every field to that of `read_graph`, and its origin.

    Raises:
        InputError: see `read_graph`.
    """
    path = Path(path)
    check_edges_file(path)
    cached = cache_path(path, include_node_types, limit_nodes, cache_dir)
    stamp, warnings, why = _stamp(path), [], ""
    try:
        graph, source = load_graph(cached)
        if source["stamp"] == stamp:
            return graph, CacheOutcome(cached, True, f"Graph from cache {cached}", ())
        if source["size"] == stamp[0] and source["sha256"] == _content_hash(path, Event()):
            # If the new stamp cannot be saved, the next run only compares the content again.
            failure = _save(cached, graph, _source(stamp, source["sha256"]))
            message = f"Graph from cache {cached} (the content of the file is the same)"
            return graph, CacheOutcome(cached, True, message, _only(failure))
        del graph  # reading the file needs the memory
        why = ", because the file has changed"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OtherVersionError as error:
        why = f", because the cached graph is of {error}"
    except DamagedFileError as error:
        warnings.append(f"the cached graph {cached} is damaged, so the file is read again: {error}")
    except OSError as error:
        warnings.append(f"the cached graph {cached} cannot be read: {error.strerror or error}")
    with _hashing(path) as content:
        graph = read_graph(path, include_node_types=include_node_types, limit_nodes=limit_nodes)
        failure = _save_read(cached, graph, path, stamp, content)
    message = f"Graph not cached{why}" if failure else f"Graph cached as {cached}{why}"
    return graph, CacheOutcome(cached, False, message, (*warnings, *_only(failure)))


def _stamp(path: Path) -> Stamp:
    """Return size and times of a file; a user can set mtime back, but not ctime."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _source(stamp: Stamp, sha256: str) -> dict[str, Any]:
    racy = time.time_ns() - max(stamp[1:]) < _RACY_NS
    return {"stamp": None if racy else stamp, "size": stamp[0], "sha256": sha256}


def _save(cached: Path, graph: KnowledgeGraph, source: dict[str, Any]) -> str | None:
    """Cache the graph; return a warning if that fails."""
    try:
        with atomic_path(cached) as temporary:
            save_graph(temporary, graph, source)
    except OSError as error:
        return f"the graph could not be cached as {cached}: {error.strerror or error}"
    return None


def _save_read(
    cached: Path, graph: KnowledgeGraph, path: Path, stamp: Stamp, content: Future[str]
) -> str | None:
    """Cache a graph that was just read if its file is unchanged; return a warning if that fails.

    Args:
        cached: the file to write.
        graph: the graph.
        path: the edges file.
        stamp: of the edges file before it was read.
        content: the future hash of the edges file.
    """
    try:
        sha256, after = content.result(), _stamp(path)
    except OSError as error:
        return f"the graph is not cached: {path} cannot be read again: {error.strerror or error}"
    if after != stamp:
        return f"the graph is not cached: {path} changed while it was read"
    return _save(cached, graph, _source(stamp, sha256))


def _only(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


@contextmanager
def _hashing(path: Path) -> Iterator[Future[str]]:
    """Hash a file in a second thread, which stops at the end of the `with` block."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(_content_hash, path, stop)
        finally:
            stop.set()


def _content_hash(path: Path, stop: Event) -> str:
    """Compute the SHA-256 of a file; return early once `stop` is set."""
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while (size := file.readinto(buffer)) and not stop.is_set():
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def save_graph(path: Path, graph: KnowledgeGraph, about: Mapping[str, Any]) -> None:
    """Write a graph to a checksummed safetensors file.

    Args:
        path: overwritten; see `files.atomic_path`.
        graph: on the CPU.
        about: a record to store with the graph, as JSON.

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
    save_checksummed(path, FORMAT_VERSION, {"graph": record, "about": about}, tensors)


def load_graph(path: Path) -> tuple[KnowledgeGraph, dict[str, Any]]:
    """Load a graph that `save_graph` wrote; 8 million edges take a tenth of a second.

    Returns:
        The graph, equal in every field to the saved one, and the record that was stored with it.

    Raises:
        DamagedFileError: the file has changed since it was written.
        OtherVersionError: another version of this package wrote it.
        OSError: the file cannot be read.
    """
    record, tensors = load_checksummed(path, FORMAT_VERSION)
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
