"""The cache of a graph: a file that is valid as long as the graph's files have the same content.

Like git's index, the cache stores the size, the time stamps and the SHA-256 of each file. If sizes
and time stamps are equal, the cache is valid. If the time stamps differ, the SHA-256 decides.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
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
from .read import read_graph
from .source import EdgesPath, ReadSettings, Source
from .vocabulary import Vocabulary

#: Increase this number whenever a code change gives a new graph or edge order for the same file.
FORMAT_VERSION = 5
SUFFIX = ".graph"
_TABLE = ".arrow"  # end of the name of a tensor that holds the bytes of a table
# A file that changes twice within 2 s may keep its time stamps, because some file systems (FAT)
# round them to 2 s. Stamps younger than this are therefore not stored (git: "racily clean").
_RACY_NS = 2 * 10**9
_BLOCK = 2**20  # bytes hashed at a time

Stamp = list[list[int]]  #: for each file: size, mtime_ns, ctime_ns


@dataclass(frozen=True)
class CacheOutcome:
    """Result of looking for a cached graph, for messages to the user."""

    path: Path  #: file of the cached graph
    hit: bool  #: True if the graph was loaded from this file
    message: str  #: one line for the user
    warnings: tuple[str, ...] = ()
    sha256: str | None = None  #: of the graph's files, one after the other; None if unreadable


def cache_path(source: Source, settings: ReadSettings, cache_dir: str | Path | None) -> Path:
    """Return the path of the cached graph: beside the first edges file, or in `cache_dir`.

    The name is the name of the first edges file and a key, which stands for the settings and the
    other files.
    """
    settings.check()
    first, *others = source.files
    options: list[Any] = [settings.record()]
    if cache_dir is not None:  # edges files of the same name may share this directory
        options.append(str(first.absolute().parent))
    if others:
        nodes = source.nodes is not None
        options.append([nodes, *(str(path.absolute()) for path in others)])
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]
    directory = first.parent if cache_dir is None else Path(cache_dir)
    return directory / f"{first.name}.{key}{SUFFIX}"


def read_cached(
    source: EdgesPath | Source,
    settings: ReadSettings | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[KnowledgeGraph, CacheOutcome]:
    """Load a graph from its cache, or read the edges files and cache the graph.

    The cached graph is replaced if it is damaged or of another version, or if a file has changed.
    If the cache cannot be written, the outcome has a warning. See `cache_path` for `cache_dir`, and
    `read_graph` for the other parameters and the errors. The standard input cannot be cached.

    Returns:
        The graph, equal in every field to the result of `read_graph`, and the outcome.
    """
    source = source if isinstance(source, Source) else Source.of(source)
    settings = ReadSettings() if settings is None else settings
    cached = cache_path(source, settings, cache_dir)
    stamp, warnings, why = _stamp(source), [], ""
    try:
        graph, about = load_graph(cached)
        if about["stamp"] == stamp:
            message = f"Graph from cache {cached}"
            return graph, CacheOutcome(cached, True, message, sha256=about["sha256"])
        if about["size"] == _size(stamp) and about["sha256"] == _content_hash(source, Event()):
            # If the new stamp cannot be saved, the next run compares the content again.
            failure = _save(cached, graph, stamp, about["sha256"])
            message = f"Graph from cache {cached} (the edges file has the same content)"
            return graph, CacheOutcome(cached, True, message, failure, about["sha256"])
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
    with hashing(source) as content:
        graph = read_graph(source, settings)
        failure = _save_read(cached, graph, source, stamp, content)
        sha256 = None if content.exception() else content.result()
    message = f"Graph read, not cached{why}" if failure else f"Graph cached as {cached}{why}"
    return graph, CacheOutcome(cached, False, message, (*warnings, *failure), sha256)


def _stamp(source: Source) -> Stamp:
    """Return the sizes and time stamps of the files. A program can set mtime, but not ctime."""
    found = [path.stat() for path in source.files]
    return [[one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in found]


def _size(stamp: Stamp) -> list[int]:
    return [size for size, _, _ in stamp]


def _save(cached: Path, graph: KnowledgeGraph, stamp: Stamp, sha256: str) -> tuple[str, ...]:
    """Cache the graph of an edges file with this stamp and hash; return a warning on failure."""
    racy = time.time_ns() - max(t for _, *times in stamp for t in times) < _RACY_NS
    about = {"stamp": None if racy else stamp, "size": _size(stamp), "sha256": sha256}
    try:
        with atomic_path(cached) as temporary:
            save_graph(temporary, graph, about)
    except OSError as error:
        return (f"the graph could not be cached as {cached}: {error.strerror or error}",)
    return ()


def _save_read(
    cached: Path, graph: KnowledgeGraph, source: Source, stamp: Stamp, content: Future[str]
) -> tuple[str, ...]:
    """Cache a graph that was just read, unless a file of `source` changed during reading.

    `stamp` was taken before reading. `content` gives the hash of the files. Returns warnings.
    """
    try:
        sha256, after = content.result(), _stamp(source)
    except OSError as error:
        return (
            f"the graph is not cached: {source} cannot be read again: {error.strerror or error}",
        )
    if after != stamp:
        return (f"the graph is not cached: {source} changed while it was read",)
    return _save(cached, graph, stamp, sha256)


@contextmanager
def hashing(source: Source) -> Iterator[Future[str]]:
    """Hash the files in a second thread, which stops at the end of the `with` block."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(_content_hash, source, stop)
        finally:
            stop.set()


def _content_hash(source: Source, stop: Event) -> str:
    """Compute the SHA-256 of the files, one after the other; return early once `stop` is set."""
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK)
    for path in source.files:
        with path.open("rb", buffering=0) as file:
            while (size := file.readinto(buffer)) and not stop.is_set():
                digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def content_sha256(graph: KnowledgeGraph) -> str:
    """Return the SHA-256 of a graph's nodes, edges and names, whatever file it was read from.

    Takes about 0.2 s for 8 million edges.
    """
    digest = hashlib.sha256()
    for one in fields(graph):
        value = getattr(graph, one.name)
        digest.update(f"\0{one.name}\0".encode())
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().numpy().data)
        elif isinstance(value, pl.DataFrame):
            for column in value:
                digest.update(f"\0{column.name}\0".encode())
                digest.update("\0".join(map(str, column.to_list())).encode())
        elif not isinstance(value, ReadReport | Vocabulary):
            digest.update(json.dumps(value).encode())
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
        "report": ReadReport(**_with_tuples(values["report"])),
        "vocabulary": Vocabulary(**_with_tuples(values["vocabulary"])),
    }
    return KnowledgeGraph(**values), record["about"]


def _with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON record with tuples instead of lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
