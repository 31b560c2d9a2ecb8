"""A graph that was read once is kept beside its file, and taken from there as long as both agree.

The cached graph remembers its source as git's index does: by size and time stamps, which are quick
to compare, and by the SHA-256 of its content, which decides where the stamps differ.

A `KnowledgeGraph` as one file of tensors and tables, see `sealed_file`.
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
    load_sealed,
    save_sealed,
)

SUFFIX = ".graph"
# A file that is changed twice within the resolution of its time stamps keeps them. Stamps this
# young prove nothing (git calls such entries racily clean); 2 s is the coarsest resolution (FAT).
_RACY_NS = 2 * 10**9
_BLOCK = 2**20

Stamp = list[int]  #: size, mtime_ns, ctime_ns


@dataclass(frozen=True)
class CacheOutcome:
    """Where the graph came from."""

    path: Path  #: of the cached graph
    hit: bool  #: the graph was taken from there
    message: str  #: what to tell the user, in one line
    warnings: tuple[str, ...]  #: what the user must not miss


def cache_path(
    path: Path,
    include_node_types: Sequence[str] | None,
    limit_nodes: int | None,
    cache_dir: str | Path | None,
) -> Path:
    """Where the graph of an edges file and of these filters is cached.

    Args:
        path: the edges file.
        include_node_types: see `tables.read_graph`; their order changes nothing.
        limit_nodes: see `tables.read_graph`.
        cache_dir: a directory; that of the edges file if None.
    """
    types = None if include_node_types is None else sorted(set(include_node_types))
    options: list[Any] = [types, limit_nodes]
    if cache_dir is not None:  # where files of one name from several directories meet
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
    """Read a graph from its cache, or from the edges file and cache it.

    A cache that is damaged, of another version or of other content is replaced. One that cannot be
    written is a warning, no error.

    Args:
        path: see `tables.read_graph`.
        include_node_types: see `tables.read_graph`.
        limit_nodes: see `tables.read_graph`.
        cache_dir: where to keep the graph; beside the edges file if None.

    Returns:
        The graph, equal in every field to what `tables.read_graph` gives, and where it came from.

    Raises:
        InputError: as `tables.read_graph`.
    """
    path = Path(path)
    check_edges_file(path)
    check_filters(include_node_types, limit_nodes)
    place = cache_path(path, include_node_types, limit_nodes, cache_dir)
    stamp, warnings, why = _stamp(path), [], ""
    try:
        graph, source = load_graph(place)
        if source["stamp"] == stamp:
            return graph, CacheOutcome(place, True, f"Graph from cache {place}", ())
        if source["size"] == stamp[0] and source["sha256"] == _content_hash(path, Event()):
            # Not to stamp it anew costs a comparison the next time, and no more than that.
            failure = _save(place, graph, _source(stamp, source["sha256"]))
            message = f"Graph from cache {place} (the file's content is the same)"
            return graph, CacheOutcome(place, True, message, _only(failure))
        del graph  # its memory is needed to read the file
        why = ", since the file has changed"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OtherVersionError as error:
        why = f", since the cached graph is of {error}"
    except DamagedFileError as error:
        warnings.append(f"the cached graph {place} is damaged, the file is read anew: {error}")
    except OSError as error:
        warnings.append(f"the cached graph {place} cannot be read: {error.strerror or error}")
    with _hashing(path) as content:
        graph = read_graph(path, include_node_types=include_node_types, limit_nodes=limit_nodes)
        failure = _save_read(place, graph, path, stamp, content)
    message = f"Graph not cached{why}" if failure else f"Graph cached as {place}{why}"
    return graph, CacheOutcome(place, False, message, (*warnings, *_only(failure)))


def _stamp(path: Path) -> Stamp:
    """What changes when a file is written to; ctime cannot be set back as mtime can."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _source(stamp: Stamp, sha256: str) -> dict[str, Any]:
    racy = time.time_ns() - max(stamp[1:]) < _RACY_NS
    return {"stamp": None if racy else stamp, "size": stamp[0], "sha256": sha256}


def _save(place: Path, graph: KnowledgeGraph, source: dict[str, Any]) -> str | None:
    """Cache the graph; returns what went wrong."""
    try:
        with atomic_path(place) as temporary:
            save_graph(temporary, graph, source)
    except OSError as error:
        return f"the graph could not be cached as {place}: {error.strerror or error}"
    return None


def _save_read(
    place: Path, graph: KnowledgeGraph, path: Path, stamp: Stamp, content: Future[str]
) -> str | None:
    """Cache a graph that was just read, if the file is still what it was; returns what went wrong.

    Args:
        place: where to.
        graph: what was read.
        path: where from.
        stamp: that of the file before it was read.
        content: will be the file's hash.
    """
    try:
        sha256, after = content.result(), _stamp(path)
    except OSError as error:
        return f"the graph is not cached, {path} cannot be read again: {error.strerror or error}"
    if after != stamp:
        return f"the graph is not cached, {path} was changed while it was read"
    return _save(place, graph, _source(stamp, sha256))


def _only(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


@contextmanager
def _hashing(path: Path) -> Iterator[Future[str]]:
    """Hash a file in a thread of its own, which ends with the block."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(_content_hash, path, stop)
        finally:
            stop.set()


def _content_hash(path: Path, stop: Event) -> str:
    """SHA-256 of a file; of a part of it, for nobody, once it is told to stop."""
    digest, buffer = hashlib.sha256(), bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while (size := file.readinto(buffer)) and not stop.is_set():
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


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
