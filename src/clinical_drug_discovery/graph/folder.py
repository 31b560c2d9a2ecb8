"""A folder in place of a file: the shards of one table, or the two tables of one graph."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ..system.errors import InputError
from ..system.untrusted.text import printable

_ENDINGS = r"(\.(csv|tsv|tab|txt|sif|parquet))(\.(gz|zst|bz2|xz|zip))?"
_NODES = re.compile(rf"(.*[-_.])?nodes?{_ENDINGS}", re.IGNORECASE)
_EDGES = re.compile(rf"(.*[-_.])?(edges?|relationships?|rels?){_ENDINGS}", re.IGNORECASE)
_DATA = re.compile(
    r".*\.(parquet|parq|pq|csv|tsv|tab|sif)(\.(gz|zst|bz2|xz|zip|snappy))?", re.IGNORECASE
)
_PART = re.compile(r"(part|shard|chunk)?[-_]?[0-9]+([-_][-0-9a-z]+)?", re.IGNORECASE)  # no suffix
_NAMES_TABLE = re.compile(r"(?<![a-z])(nodes?|edges?|relationships?|rels?)(?![a-z])", re.IGNORECASE)
_SHOWN = 10
_LOG = logging.getLogger("clinical_drug_discovery")


def find_files(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    """Return the edges files in a folder, and its node table or None.

    A folder holds either two tables, whose names end in "nodes" and "edges" (or "relationships"),
    or the shards of one table, which are all its .parquet files. If several names end in "nodes" or
    "edges", the plain names count (nodes.parquet and edges.parquet, not subset_edges.parquet).
    Beside shards, other data and folders are refused, because they could be parts of the table;
    beside two tables, other data is left out, and the log lists it.

    Raises:
        InputError: the folder does not hold a graph, or the choice of files would be a guess.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    found = ", ".join(path.name for path in files[:_SHOWN]) or "no files"
    nodes, edges = (_named(files, pattern) for pattern in (_NODES, _EDGES))
    if len(nodes) == 1 and len(edges) == 1:
        _check_parts(folder, [path for path in files if path not in (*nodes, *edges)])
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
    others = [path for path in files if path not in shards]
    odd = [path.name for path in others if _DATA.fullmatch(path.name) or _PART.fullmatch(path.name)]
    odd += [f"the folder {path.name}" for path in folder.iterdir() if _may_hold_shards(path)]
    if odd:
        raise InputError(
            f"edges file (got {folder}) is a folder, which must hold nothing but .parquet files of "
            f"one table; it also has {', '.join(sorted(odd)[:_SHOWN])}; move this away, or name "
            "the files with --edges"
        )
    return shards, None


def _may_hold_shards(path: Path) -> bool:
    """Return True for a folder with Parquet files at any depth."""
    return path.is_dir() and path.name[0] != "." and any(path.rglob("*.parquet"))


def _check_parts(folder: Path, others: list[Path]) -> None:
    """Check that a folder of two tables lacks further parts of them; log what is left out."""
    data = [path.name for path in others if _DATA.fullmatch(path.name)]
    parts = [
        name for name in data
        if _NAMES_TABLE.search(name) and not (_NODES.fullmatch(name) or _EDGES.fullmatch(name))
    ]  # fmt: skip
    if parts:
        found = ", ".join(path.name for path in sorted(folder.iterdir())[:_SHOWN])
        raise InputError(
            f"edges file (got {folder}) is a folder, which must hold one table of nodes and one of "
            f"edges; {', '.join(parts[:_SHOWN])} could be a part of one; the folder has {found}; "
            "name all files with edges and nodes (--edges, --nodes)"
        )
    if data:
        _LOG.warning(printable(f"{folder}: {', '.join(data[:_SHOWN])} are not read"))


def _named(files: list[Path], pattern: re.Pattern[str]) -> list[Path]:
    """Return the files of a kind, or only the one whose name has nothing before the kind."""
    matches = [(path, match) for path in files if (match := pattern.fullmatch(path.name))]
    plain = [path for path, match in matches if not match[1]]
    return plain if len(plain) == 1 else [path for path, _ in matches]
