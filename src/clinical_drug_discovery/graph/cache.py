"""The cache of a graph: a file that is valid as long as the edges file has the same content.

Like git's index, the cache stores the size, the time stamps and the SHA-256 of the edges file. If
size and time stamps are equal, the cache is valid. If the time stamps differ, the SHA-256 decides.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import torch
from torch import Tensor

from ..system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    load_checksummed,
    save_checksummed,
)
from .knowledge_graph import EdgeType, KnowledgeGraph, ReadReport
from .read import check_edges_file, check_filters, read_graph
from .vocabulary import Vocabulary

#: Increase this number whenever a code change gives a new graph or edge order for the same file.
FORMAT_VERSION = 3
SUFFIX = ".graph"
_TABLE = ".arrow"  # end of the name of a tensor that holds the bytes of a table
# A file that changes twice within 2 s may keep its time stamps, because some file systems (FAT)
# round them to 2 s. Stamps younger than this are therefore not stored (git: "racily clean").
_RACY_NS = 2 * 10**9
_BLOCK = 2**20  # bytes hashed at a time

Stamp = list[int]  #: size, mtime_ns, ctime_ns


@dataclass(frozen=True)
class CacheOutcome:
    """Result of looking for a cached graph, for messages to the user."""

    path: Path  #: file of the cached graph
    hit: bool  #: True if the graph was loaded from this file
    message: str  #: one line for the user
    warnings: tuple[str, ...] = ()


def cache_path(
    path: Path,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
    cache_dir: str | Path | None,
) -> Path:
    """Return the path of the cached graph for an edges file and filters.

    Args:
        path: the edges file.
        include_node_types: see `read_graph`; the order of the types does not matter.
        limit_nodes: see `read_graph`.
        cache_dir: directory of the cache; None for the directory of the edges file.
    """
    check_filters(include_node_types, limit_nodes)
    types = None if include_node_types is None else sorted(set(include_node_types))
    options: list[Any] = [types, limit_nodes]
    if cache_dir is not None:  # edges files of the same name may share this directory
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

    The cached graph is replaced if it is damaged or of another version, or if the edges file has
    changed. If the cache cannot be written, the outcome has a warning. See `cache_path` for
    `cache_dir`, and `read_graph` for the other parameters and the errors.

    Returns:
        The graph, equal in every field to the result of `read_graph`, and the outcome.
    """
    path = Path(path)
    check_edges_file(path)
    cached = cache_path(path, include_node_types, limit_nodes, cache_dir)
    stamp, warnings, why = _stamp(path), [], ""
    try:
        graph, source = load_graph(cached)
        if source["stamp"] == stamp:
            return graph, CacheOutcome(cached, True, f"Graph from cache {cached}")
        if source["size"] == stamp[0] and source["sha256"] == _content_hash(path, Event()):
            # If the new stamp cannot be saved, the next run compares the content again.
            failure = _save(cached, graph, stamp, source["sha256"])
            message = f"Graph from cache {cached} (the edges file has the same content)"
            return graph, CacheOutcome(cached, True, message, failure)
        del graph  # reading the file needs the memory
        why = " (the edges file has changed)"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OtherVersionError as error:
        why = f" (the earlier cached graph is of {error})"
    except DamagedFileError as error:
        warnings.append(f"the cached graph {cached} is damaged, so the file is read again: {error}")
    except OSError as error:
        warnings.append(f"the cached graph {cached} cannot be read: {error.strerror or error}")
    with _hashing(path) as content:
        graph = read_graph(path, include_node_types=include_node_types, limit_nodes=limit_nodes)
        failure = _save_read(cached, graph, path, stamp, content)
    message = f"Graph read, not cached{why}" if failure else f"Graph cached as {cached}{why}"
    return graph, CacheOutcome(cached, False, message, (*warnings, *failure))


def _stamp(path: Path) -> Stamp:
    """Return the size and time stamps of a file. A program can set mtime, but not ctime."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _save(cached: Path, graph: KnowledgeGraph, stamp: Stamp, sha256: str) -> tuple[str, ...]:
    """Cache the graph of an edges file with this stamp and hash; return a warning on failure."""
    racy = time.time_ns() - max(stamp[1:]) < _RACY_NS
    source = {"stamp": None if racy else stamp, "size": stamp[0], "sha256": sha256}
    try:
        with atomic_path(cached) as temporary:
            save_graph(temporary, graph, source)
    except OSError as error:
        return (f"the graph could not be cached as {cached}: {error.strerror or error}",)
    return ()


def _save_read(
    cached: Path, graph: KnowledgeGraph, path: Path, stamp: Stamp, content: Future[str]
) -> tuple[str, ...]:
    """Cache a graph that was just read, unless the edges file `path` changed during reading.

    `stamp` was taken before reading. `content` gives the hash of the file. Returns warnings.
    """
    try:
        sha256, after = content.result(), _stamp(path)
    except OSError as error:
        return (f"the graph is not cached: {path} cannot be read again: {error.strerror or error}",)
    if after != stamp:
        return (f"the graph is not cached: {path} changed while it was read",)
    return _save(cached, graph, stamp, sha256)


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
    """
    tensors: dict[str, Tensor] = {}
    record: dict[str, Any] = {}
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value.contiguous()
        elif isinstance(value, pl.DataFrame):
            buffer = io.BytesIO()
            value.write_ipc(buffer)
            tensors[field.name + _TABLE] = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        else:
            is_record = isinstance(value, ReadReport | Vocabulary)
            record[field.name] = asdict(value) if is_record else value
    save_checksummed(path, FORMAT_VERSION, {"graph": record, "about": about}, tensors)


def load_graph(path: Path) -> tuple[KnowledgeGraph, dict[str, Any]]:
    """Load a graph that `save_graph` wrote; this takes 0.1 s for 8 million edges.

    Returns:
        The graph, equal in every field to the saved graph, and the record `about`.

    Raises:
        DamagedFileError, OtherVersionError, OSError: see `load_checksummed`.
    """
    record, tensors = load_checksummed(path, FORMAT_VERSION)
    values = record["graph"] | tensors
    for name in tensors:
        if name.endswith(_TABLE):
            table = io.BytesIO(values.pop(name).numpy().data)
            values[name.removesuffix(_TABLE)] = pl.read_ipc(table)
    if values.keys() != {field.name for field in fields(KnowledgeGraph)}:
        raise OtherVersionError("a version with other fields")
    values |= {  # JSON turns tuples into lists
        "node_type_names": tuple(values["node_type_names"]),
        "edge_types": tuple(EdgeType(*row) for row in values["edge_types"]),
        "report": ReadReport(**values["report"]),
        "vocabulary": _vocabulary(values["vocabulary"]),
    }
    return KnowledgeGraph(**values), record["about"]


def _vocabulary(record: Mapping[str, Any]) -> Vocabulary:
    """Return the words from a JSON record, which has lists instead of tuples."""
    words: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record.items()}
    return Vocabulary(**words)
