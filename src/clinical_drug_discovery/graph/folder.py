"""A folder in place of a file: the shards of one table, or the two tables of one graph."""

from __future__ import annotations

import re
from pathlib import Path

from ..system.errors import InputError

_ENDINGS = r"(\.(csv|tsv|tab|txt|sif|parquet))(\.(gz|zst|bz2|xz|zip))?"
_NODES = re.compile(rf"(.*[-_.])?nodes?{_ENDINGS}", re.IGNORECASE)
_EDGES = re.compile(rf"(.*[-_.])?(edges?|relationships?|rels?){_ENDINGS}", re.IGNORECASE)
_SHOWN = 10


def find_files(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    """Return the edges files in a folder, and its node table or None.

    A folder holds either two tables, whose names end in "nodes" and "edges" (or "relationships"),
    or the shards of one table, which are all its .parquet files. If several names end in "nodes" or
    "edges", the plain names count (nodes.parquet and edges.parquet, not subset_edges.parquet).

    Raises:
        InputError: the folder does not hold a graph, or the choice of files would be a guess.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    found = ", ".join(path.name for path in files[:_SHOWN]) or "no files"
    nodes, edges = (_named(files, pattern) for pattern in (_NODES, _EDGES))
    if len(nodes) == 1 and len(edges) == 1:
        return tuple(edges), nodes[0]
    if nodes or edges:
        raise InputError(
            f"edges file (got {folder}) is a folder, which must hold one table of nodes and one of "
            f"edges; {len(nodes)} and {len(edges)} names end so: {found}; name the files with "
            "edges and nodes (--edges, --nodes)"
        )
    shards = tuple(path for path in files if path.name.lower().endswith(".parquet"))
    if not shards:
        raise InputError(
            f"edges file (got {folder}) is a folder, which must hold .parquet files of one table, "
            f"or a table of nodes and a table of edges; it has {found}"
        )
    return shards, None


def _named(files: list[Path], pattern: re.Pattern[str]) -> list[Path]:
    """Return the files of a kind, or only the one whose name has nothing before the kind."""
    matches = [(path, match) for path in files if (match := pattern.fullmatch(path.name))]
    plain = [path for path, match in matches if not match[1]]
    return plain if len(plain) == 1 else [path for path, _ in matches]
