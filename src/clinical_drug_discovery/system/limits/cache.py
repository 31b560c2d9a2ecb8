"""The user's cache directory: its place, its limit on disk space, and the files to trust in it.

Every file of the cache can be made again, so it may be removed at any time. A process that has
mapped a removed file keeps it until it ends.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import platformdirs

from .. import disk
from .memory import parse_bytes

DIRECTORY, SIZE = "CDD_CACHE_DIR", "CDD_CACHE_SIZE"  #: names of environment variables
_DEFAULT_SIZE = "5GB"  # ten graphs of PrimeKG's size
SUFFIX = ".graph"  #: ends the names of cached graphs
_OLD_PART = 24 * 3600  # seconds after which such a file was left over by a killed process


class CachedFile(NamedTuple):
    """A file of the cache."""

    last_used: float  #: time stamp
    num_bytes: int
    path: Path


def cache_directory() -> Path:
    """Return the directory of the cache; it may be missing. The user may set `CDD_CACHE_DIR`."""
    chosen = os.environ.get(DIRECTORY)
    if chosen:
        return Path(chosen)
    return platformdirs.user_cache_path("clinical-drug-discovery", appauthor=False)


def cache_limit() -> int:
    """Return the largest number of bytes of the cache, from `CDD_CACHE_SIZE` or 5 GB.

    Raises:
        InputError: the variable is not a positive size.
    """
    return parse_bytes(SIZE, os.environ.get(SIZE) or _DEFAULT_SIZE)


def is_trusted(path: Path) -> bool:
    """Return whether a file is a regular file of this user or of root, and not a symbolic link.

    A directory can belong to several users, and anybody could put a file or a link there.

    Raises:
        OSError: the file is missing or cannot be looked at.
    """
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.geteuid())


def mark_used(path: Path) -> None:
    """Set the time of the last use of a file to now, for `make_room`."""
    with suppress(OSError):  # a cache that can only be read is never made smaller either
        os.utime(path)


def cached_files(directory: Path) -> list[CachedFile]:
    """Return the cached graphs of this user in a directory, the least recently used first."""
    found = []
    with suppress(OSError):
        for path in directory.iterdir():
            with suppress(OSError):
                about = path.lstat()
                if path.suffix == SUFFIX and is_trusted(path) and about.st_uid == os.geteuid():
                    found.append(CachedFile(about.st_mtime, about.st_size, path))
    return sorted(found)


def make_room(directory: Path, newest: Path) -> int:
    """Remove the least recently used graphs until the others have at most `cache_limit` bytes.

    Files that a killed process has left over are removed too.

    Args:
        directory: its other files and its subfolders stay.
        newest: this file stays.

    Returns:
        The number of complete files that were removed.
    """
    files, limit, removed = cached_files(directory), cache_limit(), 0
    total = sum(one.num_bytes for one in files)
    now = max((one.last_used for one in files), default=0.0)
    for used, num_bytes, path in files:
        left_over = path.name.startswith(disk.PART)
        if path == newest or (left_over and now - used < _OLD_PART):
            continue
        if left_over or total > limit:
            with suppress(OSError):
                path.unlink()
                total -= num_bytes
                removed += not left_over
    return removed


def clear_files(directory: Path) -> list[CachedFile]:
    """Remove all cached graphs of this user from a directory, and return them."""
    removed = []
    for one in cached_files(directory):
        with suppress(OSError):
            one.path.unlink()
            removed.append(one)
    return removed
