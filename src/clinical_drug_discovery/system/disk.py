"""The few calls with which this package changes a disk.

Everything that a run writes goes through these functions. Tests replace them one by one, to see
what is left when the disk is full, or when a flush or a rename fails.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

# Some file systems (CIFS, FUSE) cannot flush a directory; they order renames by themselves.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
_ZEROS = memoryview(bytes(2**20))
PART = ".part-"  #: start of the names of unfinished files


def create(path: Path) -> BinaryIO:
    """Open a file for writing; an existing file is emptied."""
    return path.open("wb")


def temporary_path(directory: Path, suffix: str = "") -> Path:
    """Return a new path for an unfinished file.

    It is known before the file exists, so a signal at any moment leaves no file without an owner.
    """
    return directory / f"{PART}{os.urandom(6).hex()}{suffix}"


def create_temporary(path: Path) -> None:
    """Create an empty file; a file with this path may not exist."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def reserve(directory: Path, num_bytes: int) -> int:
    """Reserve space in a new file without a name; return its handle.

    The system frees the space when the handle and the last mapping of the file are closed.
    """
    handle = _nameless(directory)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, num_bytes)
        else:  # macOS: written zeros reserve space, too
            with open(handle, "wb", closefd=False) as file:
                for start in range(0, num_bytes, len(_ZEROS)):
                    file.write(_ZEROS[: num_bytes - start])
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_nameless(directory: Path) -> int:
    """Open a new file without a name for reading and writing; return its handle."""
    return _nameless(directory)


def write_at(directory: Path, handle: int, data: memoryview, start: int) -> None:
    """Write bytes to an open file of a directory, from byte `start` on."""
    while len(data):
        count = os.pwrite(handle, data, start)
        data, start = data[count:], start + count


def _nameless(directory: Path) -> int:
    path = temporary_path(directory)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    finally:
        path.unlink(missing_ok=True)


def append(path: Path, data: bytes) -> None:
    """Append bytes to a file in one piece."""
    with path.open("ab", buffering=0) as file:
        file.write(data)


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a directory, are on the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in _CANNOT_FLUSH):
            raise
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Give a file or a directory another name at once, and wait until the name is on the disk.

    A file of that name is replaced.
    """
    os.replace(source, target)
    flush(target.parent)
    if source.parent != target.parent:
        flush(source.parent)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, if they are missing."""
    path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory with everything in it; it may be missing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_bytes(directory: Path) -> int:
    """Return the bytes that this user may still write to the file system of a directory."""
    return shutil.disk_usage(directory).free
