"""A folder in place of a file: the shards of one table, or the two tables of one graph."""

from __future__ import annotations

from pathlib import Path

from ...system.errors import InputError


def find_files(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    """Return the edges files in a folder, and its node table or None.

    Raises:
        InputError: the folder does not hold a graph, or the choice of files would be a guess.
    """
    shards = tuple(sorted(path for path in folder.glob("*.parquet") if path.is_file()))
    if not shards:
        raise InputError(f"edges file (got {folder}) is a folder without .parquet files")
    return shards, None
