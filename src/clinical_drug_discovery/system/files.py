"""Atomic writes, and safetensors files with a version and a checksum.

An atomic write leaves either the complete file or the earlier file, also after a power failure. A
checksummed file holds a JSON record and arrays, without pickles. Loading the file verifies the
checksum. Arrays may also be tensors of torch on the CPU; torch is imported only to return them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from . import disk
from .errors import InputError
from .interrupts import note_written
from .untrusted.inputs import parse_json

if TYPE_CHECKING:
    from torch import Tensor

# Linux and macOS allow 255 bytes in a name, and 1,024 (macOS) in a path. Unfinished files and
# indices have longer names than the outputs (".part-1a2b3c4d-NAME_index.csv" for NAME.npy).
_NAME_BYTES, _PATH_BYTES = 231, 900 if sys.platform == "darwin" else 3900
_COPIED_BYTES = 64 << 20  # of an array that is not contiguous, copied at a time
_SHOWN = 200  # characters of a path in a message
_BLOCK = 2**20  # bytes that are read at a time
_DTYPES = {  # in the order in which safetensors stores them
    "int64": "I64", "float64": "F64", "float32": "F32", "int32": "I32", "float16": "F16",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
Array = npt.NDArray[Any]


class WriteError(InputError, OSError):
    """A file cannot be written: the disk is full, or the directory is read-only or deleted."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` if the `with` block succeeds.

    The content is on the disk before the name is: after a power failure, `path` is complete or as
    it was. If the block fails, `path` stays as it was. Missing directories are created. If `path`
    is a symbolic link, the target of the link is replaced.

    Raises:
        WriteError: the file cannot be written.
    """
    with writing(path):
        path = path.resolve() if path.is_symlink() else path
        disk.make_directory(path.parent)
        temporary = disk.temporary_path(path.parent, path.suffix)
        try:
            disk.create_temporary(temporary)
            yield temporary
            disk.flush(temporary)
            disk.rename(temporary, path)
            note_written(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the system within the `with` block into errors that name the file.

    Raises:
        WriteError: an error of the system, also one that another library reports.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # polars reports a full disk as a ComputeError
        number = _error_number(error)
        if number is None:
            raise
        why = f"{os.strerror(number)}{_room(path, number)}"
        failure = WriteError(f"{path} cannot be written: {why}")
        failure.strerror = why
        raise failure from error


def _error_number(error: Exception) -> int | None:
    """Return the number of the system's error behind an exception of any library, or None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
    return int(found[1] or found[2]) if found else None


def _room(path: Path, number: int) -> str:
    """Return the free space of a full disk, for an error message."""
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    try:
        return f" ({disk.free_bytes(path.absolute().parent):,} bytes are free)"
    except OSError:
        return ""


def check_name(parameter: str, path: Path) -> None:
    """Check that a path can be the name of an output, also with the additions of unfinished files.

    Args:
        parameter: the parameter that holds the path, for the error message.
        path: may be missing.

    Raises:
        InputError: a name is not UTF-8 or is too long.
    """
    shown = ascii(str(path)) if len(str(path)) < _SHOWN else f"{ascii(str(path))[:_SHOWN]}..."
    try:
        longest = max(len(part.encode()) for part in (*path.parts, ""))
    except UnicodeEncodeError:
        raise InputError(f"{parameter} (got {shown}) must be a name in UTF-8") from None
    if longest > _NAME_BYTES or len(os.path.abspath(path).encode()) > _PATH_BYTES:
        raise InputError(
            f"{parameter} (got {shown}) is too long: a name may have {_NAME_BYTES} bytes and a "
            f"path {_PATH_BYTES}, because unfinished files have longer names"
        )


def check_writable(name: str, directory: Path, given: Path | None = None) -> None:
    """Check that a directory is writable or can be created, without creating it.

    Args:
        name: the parameter, for the error message.
        directory: may be missing, and its parents may be missing.
        given: the file in this directory that the parameter names; None: the directory itself.

    Raises:
        InputError: the directory is not writable.
    """
    check_name(name, directory)
    got = f"{name} (got {directory if given is None else given})"
    try:
        paths = (directory, *directory.absolute().parents)
        existing = next(path for path in paths if path.exists())
    except OSError as error:
        raise InputError(f"{got} cannot be written to: {error.strerror}") from None
    if not existing.is_dir():
        must = "be a directory" if given is None else "lie in a directory"
        raise InputError(f"{got} must {must}, but {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{got} cannot be written to: no permission in {existing}")


def check_new(paths: Iterable[Path], overwrite: bool) -> None:
    """Check that a run does not replace a file of an earlier run, unless `overwrite` is true.

    Raises:
        InputError: a path exists; the message names the path and the flag.
    """
    for path in paths:
        if not overwrite and path.exists():
            raise InputError(
                f"{path} exists already: choose another output, or replace the earlier files with "
                "overwrite (--overwrite)"
            )


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    with atomic_path(path) as temporary, disk.create(temporary) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


class DamagedFileError(ValueError):
    """The file has changed since it was written."""


class OtherVersionError(ValueError):
    """The file was written by another version of this package."""


class Pieces(Protocol):
    """An array of one dimension that does not exist as a whole; each loop makes its pieces anew."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of the array."""

    def __iter__(self) -> Iterator[Array]:
        """Yield the array piece by piece."""


def save_checksummed(
    path: Path, version: int, record: Any, arrays: Mapping[str, Array | Tensor | Pieces]
) -> None:
    """Write a record and arrays to one safetensors file with a checksum.

    Args:
        path: overwritten; see `atomic_path`.
        version: version of the content's format.
        record: any JSON value.
        arrays: on the CPU.
    """
    text = json.dumps(record)
    metadata = {"version": str(version), "record": text, "sha256": checksum(text, arrays)}
    save_arrays(path, arrays, metadata)


def save_arrays(
    path: Path, arrays: Mapping[str, Array | Tensor | Pieces], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, with the bytes of `safetensors.torch.save_file`.

    The library writes to a path alone, or makes a second copy of all arrays in memory, and it
    stores metadata in random order. This function writes through `disk`, array by array.

    Args:
        path: overwritten; see `atomic_path`.
        arrays: on the CPU.
        metadata: any texts, to be stored in the header.
    """
    found = {name: _as_array(array) for name, array in arrays.items()}
    rank = list(_DTYPES)
    order = sorted(found, key=lambda name: (rank.index(found[name].dtype.name), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        array = found[name]
        begin, end = end, end + math.prod(array.shape) * array.dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with disk.create(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            for piece in _pieces_of(found[name]):
                file.write(piece)


def _as_array(given: Array | Tensor | Pieces) -> Array | Pieces:
    """Return a tensor as an array of the same memory."""
    if isinstance(given, np.ndarray) or not hasattr(given, "numpy"):
        return given
    array: Array = given.numpy()
    return array


def _pieces_of(array: Array | Pieces) -> Iterator[memoryview]:
    """Yield the bytes of an array, piece by piece."""
    for piece in _rows_of(array) if isinstance(array, np.ndarray) else array:
        if piece.nbytes:
            yield np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data


def _rows_of(array: Array) -> Iterator[Array]:
    """Yield a contiguous array whole, and some rows of another at a time, which are then copied."""
    size = len(array) if array.ndim and not array.flags.c_contiguous else 0
    if not size:
        yield array
        return
    step = max(_COPIED_BYTES * size // array.nbytes, 1)
    for start in range(0, size, step):
        yield array[start : start + step]


def load_checksummed(path: Path, version: int) -> tuple[Any, dict[str, Tensor]]:
    """Read the record and the tensors of a file that `save_checksummed` wrote.

    The tensors are memory-mapped, so unused pages take no memory. For this reason, the file must
    never be overwritten in place; a new file may replace it.

    Raises:
        DamagedFileError, OtherVersionError, OSError: the file cannot be used.
    """
    return _load(path, version, "pt")


def load_arrays(path: Path, version: int) -> tuple[Any, dict[str, Array]]:
    """Read a file like `load_checksummed`, but return arrays, and do not import torch.

    Several processes that map a file share its pages. An array may be changed: the process then has
    pages of its own, and the file stays as it is.
    """
    return _load(path, version, "np")


def _load(path: Path, version: int, framework: str) -> tuple[Any, dict[str, Any]]:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
        raise DamagedFileError("it is not a file")
    path.open("rb").close()  # raises OSError if the file is missing or may not be read
    try:
        with safe_open(path, framework) as file:
            metadata = file.metadata() or {}
            if metadata["version"] != str(version):
                raise OtherVersionError(f"version {metadata['version'][:20]}, not {version}")
            if framework == "np":  # the library would copy the arrays
                with path.open("rb", buffering=0) as content:  # another file may take the name
                    stored = _stored(content)
                    found, digest = _mapped(content, stored), checksum(metadata["record"], stored)
            else:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
                digest = checksum(metadata["record"], found)
        if digest != metadata["sha256"]:
            raise DamagedFileError("its checksum is wrong")
        return parse_json(metadata["record"]), found
    except KeyError as error:
        raise DamagedFileError(f"{error} is missing") from error
    except (DamagedFileError, OtherVersionError):
        raise
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFileError(str(error).split("\n")[0]) from error


@dataclass(frozen=True)
class _Stored:
    """An array in a file, which is read piece by piece.

    Reading leaves the pages to the system. Those of a mapped file would count as resident.
    """

    file: FileIO
    begin: int  #: position of the first byte
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __iter__(self) -> Iterator[Array]:
        left, buffer = math.prod(self.shape) * self.dtype.itemsize, np.empty(_BLOCK, np.uint8)
        self.file.seek(self.begin)
        while left and (count := self.file.readinto(buffer[:left].data)):
            yield buffer[:count]
            left -= count


def _stored(file: FileIO) -> dict[str, _Stored]:
    """Return the arrays of a safetensors file whose header the library has checked."""
    length = int.from_bytes(file.read(8), "little")
    header = parse_json(file.read(length).decode())
    names = {code: np.dtype(name) for name, code in _DTYPES.items()}
    return {
        name: _Stored(
            file, 8 + length + about["data_offsets"][0], names[about["dtype"]],
            tuple(about["shape"]),
        )
        for name, about in header.items()
        if name != "__metadata__"
    }  # fmt: skip


def _mapped(file: FileIO, stored: Mapping[str, _Stored]) -> dict[str, Array]:
    """Map a file into memory, and return its arrays."""
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {
        name: np.frombuffer(pages, one.dtype, math.prod(one.shape), one.begin).reshape(one.shape)
        for name, one in stored.items()
    }


def stored_checksum(path: Path) -> str:
    """Return the stored checksum of a file, without verifying it."""
    with safe_open(path, "np") as file:
        return str(file.metadata()["sha256"])


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(text: str, arrays: Mapping[str, Array | Tensor | Pieces]) -> str:
    """Compute the SHA-256 of a record and arrays; 1.8 GB take a second."""
    digest = hashlib.sha256(text.encode())
    for name, given in sorted(arrays.items()):
        array = _as_array(given)
        # "torch." begins the types in the files of earlier versions, too.
        digest.update(f"{name} torch.{array.dtype.name} {list(array.shape)}".encode())
        for piece in _pieces_of(array):
            digest.update(piece)
    return digest.hexdigest()
