"""The files of a graph, and the settings with which they are read."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..system.errors import InputError
from ..system.limits.parameters import check_fields
from .folder import find_files
from .formats.plain_file import STDIN
from .knowledge_graph import KnowledgeGraph

#: One edges file, or several that are read as parts of one graph.
EdgesPath = str | Path | Sequence[str | Path]
ERROR, FIRST, DROP = "error", "first", "drop"


@dataclass(frozen=True)
class Source:
    """The files of one graph.

    Attributes:
        edges: the edges files, all parts of one graph; `-` is the standard input.
        nodes: the node table of formats that keep the nodes in a file of their own.
        graph: the graph itself, if it is in memory; `edges` is then empty.
    """

    edges: tuple[Path, ...]
    nodes: Path | None = None
    graph: KnowledgeGraph | None = field(default=None, compare=False)

    @staticmethod
    def of(edges_csv: EdgesPath | KnowledgeGraph, nodes: str | Path | None = None) -> Source:
        """Return the source that a user has named, with folders replaced by their files.

        Raises:
            InputError: a file is missing, cannot be read, or is named twice; or a graph in memory
                has a node table.
        """
        if isinstance(edges_csv, KnowledgeGraph):
            if nodes is not None:
                raise InputError(f"nodes (got {nodes}) must be left out: the graph has its nodes")
            return Source((), graph=edges_csv)
        named = [edges_csv] if isinstance(edges_csv, str | Path) else list(edges_csv)
        if not named or not all(isinstance(one, str | Path) for one in named):
            raise InputError(f"edges file (got {edges_csv!r}) must be a path or a list of paths")
        edges: list[Path] = []
        table = None if nodes is None else Path(nodes)
        for path in map(Path, named):
            found: tuple[Path, ...] = (path,)
            if path.is_dir():
                found, inside = find_files(path)
                if table is not None and inside is not None:
                    rule = f"must be left out: the folder {path} has the node table {inside.name}"
                    raise InputError(f"nodes (got {nodes}) {rule}")
                table = inside if table is None else table
            edges += found
        source = Source(tuple(edges), table)
        source._check()
        return source

    @property
    def files(self) -> tuple[Path, ...]:
        """All files: the edges files, then the node table."""
        return self.edges if self.nodes is None else (*self.edges, self.nodes)

    @property
    def has_stdin(self) -> bool:
        """True if a part is read from the standard input, which cannot be read twice."""
        return STDIN in self.files

    @property
    def num_bytes(self) -> int:
        """Size of all files together, as they lie on the disk; the standard input counts as 0."""
        return sum(path.stat().st_size for path in self.files if path != STDIN)

    def __str__(self) -> str:
        return " and ".join(map(str, self.edges[:3])) + (
            f" and {len(self.edges) - 3} more" if len(self.edges) > 3 else ""
        )

    def _check(self) -> None:
        seen: dict[Path, Path] = {}
        for path in self.files:
            name = "nodes" if path is self.nodes else "edges file"
            if path != STDIN:
                _check_file(name, path)
            place = path.resolve()
            if place in seen:
                raise InputError(f"{name} (got {path}) is given twice")
            seen[place] = path


def _check_file(name: str, path: Path) -> None:
    """Check that a path is a file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{name} (got {path}) cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{name} (got {path}) is not a file")


@dataclass(frozen=True)
class ReadSettings:
    """Settings of reading.

    Attributes:
        include_node_types: keep only nodes of these types, and the facts among them.
        limit_nodes: keep at most this many nodes: the same fraction of every node type, namely the
            nodes with the highest degree. If degrees are equal, the lower node_index is kept.
        exclude_relations: leave out the facts of these relations; their nodes stay.
        on_conflict: error or first: what to do if a node has two names, types or numbers. first:
            keep those of the node's first row.
        on_missing: error or drop: what to do with rows whose relation or node lacks a field. drop:
            leave the rows out, and count them.
        max_unpacked_gib: largest size of a compressed file after decompression, in GiB (default:
            200 times its size, but at least 0.25 and at most 64).
    """

    include_node_types: Sequence[str] | None = None
    limit_nodes: int | None = None
    exclude_relations: Sequence[str] | None = None
    on_conflict: str = "error"
    on_missing: str = "error"
    max_unpacked_gib: float | None = None

    def check(self) -> None:
        """Check the settings as far as this is possible without the graph.

        Raises:
            InputError: a setting is invalid.
        """
        check_fields(self)

    def record(self) -> dict[str, Any]:
        """Return the settings for JSON; settings that give the same graph have equal records."""
        names = {
            name: None if value is None else sorted({str(one) for one in value})
            for name, value in (
                ("include_node_types", self.include_node_types),
                ("exclude_relations", self.exclude_relations),
            )
        }
        record = {**asdict(self), **names}
        del record["max_unpacked_gib"]  # a larger limit does not change the graph
        return record
