"""The cache of a graph: a file that is valid as long as the graph's files have the same content.

The file lies in the user's cache directory, which has a limit on its size. Like git's
index, the cache stores the size, the time stamps and the SHA-256 of each file. If sizes and time
stamps are equal, the cache is valid. If the time stamps differ, the SHA-256 decides.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import polars as pl

from ..system.errors import counted
from ..system.files import DamagedFileError, OtherVersionError, atomic_path
from ..system.limits.cache import (
    SUFFIX,
    cache_directory,
    cache_limit,
    is_trusted,
    make_room,
    mark_used,
)
from .knowledge_graph import KnowledgeGraph, ReadReport
from .read import read_graph
from .reading.room import ReadingMemory
from .source import EdgesPath, ReadSettings, Source
from .stored.graph_file import load_graph, save_graph, with_mapped_arrays
from .vocabulary import Vocabulary

# A file that changes twice within 2 s may keep its time stamps, because some file systems (FAT)
# round them to 2 s. Stamps younger than this are therefore not stored (git: "racily clean").
_RACY_NS = 2 * 10**9
_NAME = 50  # characters of the edges file's name; a file system allows 255 bytes in all
_BLOCK = 2**20  # bytes hashed at a time
# From so many edges on, the arrays of a new graph are mapped from its file. For few edges, the time
# for the checksum counts more than the memory.
_MAPPED_EDGES = 2**24

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
    """Return the path of the cached graph: in the user's cache directory, or in `cache_dir`.

    The name is the start of the name of the first edges file and a key, which stands for the
    settings, the directory and the other files.
    """
    settings.check()
    first, *others = source.files
    options: list[Any] = [settings.record(), str(first.absolute().parent), first.name]
    if others:
        nodes = source.nodes is not None
        options.append([nodes, *(str(path.absolute()) for path in others)])
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]
    directory = cache_directory() if cache_dir is None else Path(cache_dir)
    return directory / f"{first.name[:_NAME]}.{key}{SUFFIX}"


def read_cached(
    source: EdgesPath | Source,
    settings: ReadSettings | None = None,
    cache_dir: str | Path | None = None,
    memory: ReadingMemory | None = None,
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
    cache_limit()  # an invalid limit is an error before the file is read
    stamp, warnings, why = _stamp(source), [], ""
    try:
        if not is_trusted(cached):
            raise PermissionError(0, "it is a link, or belongs to another user")
        graph, about = load_graph(cached)
        if not isinstance(about.get("sha256"), str):
            raise DamagedFileError("it does not say which files it stands for")
        if about.get("stamp") == stamp:
            mark_used(cached)
            message = f"Graph from cache {cached}"
            return graph, CacheOutcome(cached, True, message, sha256=about["sha256"])
        if about.get("size") == _size(stamp) and about["sha256"] == _content_hash(source, Event()):
            # If the new stamp cannot be saved, the next run compares the content again.
            failure, _ = _save(cached, graph, stamp, about["sha256"])
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
        graph = read_graph(source, settings, memory)
        graph, failure, removed = _save_read(cached, graph, source, stamp, content)
        sha256 = None if content.exception() else content.result()
    message = f"Graph read, not cached{why}" if failure else f"Graph cached as {cached}{why}"
    if removed:
        graphs = counted(removed, "cached graph that was", "cached graphs that were")
        message += f"; removed {graphs} not used for the longest time"
    return graph, CacheOutcome(cached, False, message, (*warnings, *failure), sha256)


def _stamp(source: Source) -> Stamp:
    """Return the sizes and time stamps of the files. A program can set mtime, but not ctime."""
    found = [path.stat() for path in source.files]
    return [[one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in found]


def _size(stamp: Stamp) -> list[int]:
    return [size for size, _, _ in stamp]


def _save(
    cached: Path, graph: KnowledgeGraph, stamp: Stamp, sha256: str
) -> tuple[tuple[str, ...], int]:
    """Cache the graph of an edges file with this stamp and hash.

    Returns:
        A warning if this fails, and the number of older graphs that were removed.
    """
    racy = time.time_ns() - max(t for _, *times in stamp for t in times) < _RACY_NS
    about = {"stamp": None if racy else stamp, "size": _size(stamp), "sha256": sha256}
    try:
        if cached.parent == cache_directory():
            cached.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cached.is_symlink():  # the file behind a link may be any file of this user
            cached.unlink()
        with atomic_path(cached) as temporary:
            save_graph(temporary, graph, about)
        size, limit = cached.stat().st_size, cache_limit()
        if size > limit:
            cached.unlink()
            why = f"its {size:,} bytes are more than CDD_CACHE_SIZE ({limit:,} bytes)"
            return (f"the graph is not cached: {why}",), 0
    except OSError as error:
        return (f"the graph could not be cached as {cached}: {error.strerror or error}",), 0
    return (), make_room(cached.parent, cached)


def _save_read(
    cached: Path, graph: KnowledgeGraph, source: Source, stamp: Stamp, content: Future[str]
) -> tuple[KnowledgeGraph, tuple[str, ...], int]:
    """Cache a graph that was just read, unless a file of `source` changed during reading.

    `stamp` was taken before reading. `content` gives the hash of the files. Returns the graph,
    whose arrays are mapped from the cache if it has many edges, and what `_save` returns.
    """
    try:
        sha256, after = content.result(), _stamp(source)
    except OSError as error:
        why = f"{source} cannot be read again: {error.strerror or error}"
        return graph, (f"the graph is not cached: {why}",), 0
    if after != stamp:
        return graph, (f"the graph is not cached: {source} changed while it was read",), 0
    failure, removed = _save(cached, graph, stamp, sha256)
    if not failure and graph.num_edges >= _MAPPED_EDGES:
        graph = with_mapped_arrays(cached, graph)
    return graph, failure, removed


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
    for name, array in graph.arrays._asdict().items():
        digest.update(f"\0{name}\0torch.{array.dtype.name} {list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array).data)
    for one in fields(graph):
        value = getattr(graph, one.name)
        if one.name == "arrays":
            continue
        digest.update(f"\0{one.name}\0".encode())
        if isinstance(value, pl.DataFrame):
            for column in value:
                digest.update(f"\0{column.name}\0".encode())
                digest.update("\0".join(map(str, column.to_list())).encode())
        elif not isinstance(value, ReadReport | Vocabulary):
            digest.update(json.dumps(value).encode())
    return digest.hexdigest()
