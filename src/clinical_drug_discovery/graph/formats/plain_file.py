"""Make a plain file of a compressed or otherwise encoded one, so that every format reads UTF-8.

polars itself reads plain, gzip and zstd files. Other files are copied to a temporary directory,
decompressed and decoded; the copy takes the disk space of the plain text until reading has ended.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from ...system.errors import InputError
from ..reading.unpacking import Limit, zstd_bound
from .head import GZIP_MAGIC, PARQUET_MAGIC, ZSTD_MAGIC

STDIN = Path("-")  #: the path that stands for the standard input
LINE_ENDS = (b"\n", b"\r")
_BLOCK = 2**20
_HEAD = 2**16
_MAX_DEPTH = 4  # such as a .bz2 in a .zip
_XZ_MEMORY = 2**28  # bytes that the decompressor of xz may take; xz -9 needs 65 MiB
_LONE_CR = "lone CR"
#: The conversion that a file needs, by its first bytes; the longer mark of UTF-32 comes first.
_STEPS = (
    (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"), (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_REFUSED = (
    (b"7z\xbc\xaf'\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"SQLite format 3", "an SQLite database; export its table as CSV"),
    (b"\x89HDF", "an HDF5 file; export its table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save it as CSV (UTF-8)"),
    (b"ARROW1", "an Arrow (Feather) file; save it as Parquet"),
    (b"<?xml", "XML; export the graph as CSV"),
)  # fmt: skip
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, RuntimeError)


def plain_file(path: Path, directory: Path, limit: Limit) -> Path:
    """Return the path of a plain, gzip, zstd or Parquet file with the content of `path`.

    Args:
        path: a file, or `-` for the standard input. A .zip archive must have one member.
        directory: an existing directory for copies; each call needs its own.
        limit: the largest size after decompression. A gzip file that polars can read is not
            decompressed here, so it is not compared with the limit.

    Returns:
        `path` itself if polars can read it, else a file in `directory`.

    Raises:
        InputError: the file is damaged, too large after decompression, or it is an archive or a
            document of another kind.
    """
    shown, current = path, path
    try:
        if path == STDIN:
            if getattr(sys.stdin, "buffer", None) is None:
                raise InputError(f"{path} (the standard input) must be open, and it is closed")
            current = directory / "stdin"
            with current.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy, _BLOCK)
            limit.set_size(current.stat().st_size)
        for depth in range(_MAX_DEPTH):
            step = _next_step(limit, current)
            if step is None:
                return current
            current = _convert(step, current, directory / str(depth), limit)
    except _UNREADABLE as error:
        if isinstance(error, PermissionError):
            raise InputError(f"{shown} cannot be read: permission denied") from None
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        rule = "is truncated or damaged"
        raise InputError(f"{shown} {rule}: {reason}; download it again") from None
    raise InputError(f"{shown} must be compressed at most {_MAX_DEPTH - 1} times")


def _next_step(limit: Limit, current: Path) -> str | None:
    """Return the conversion that a file needs, or None; refuse files of other kinds."""
    with current.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith((PARQUET_MAGIC, ZSTD_MAGIC)):
        if head.startswith(ZSTD_MAGIC):
            limit.check(zstd_bound(current))
        return None
    is_gzip = head.startswith(GZIP_MAGIC)
    if is_gzip:
        with gzip.open(current) as inner:
            head = inner.read(_HEAD)
    _refuse(limit.path, head)
    step = next((name for magic, name in _STEPS if head.startswith(magic)), None)
    if step is None and b"\r" in head and b"\n" not in head:
        step = _LONE_CR
    packed = head.startswith((GZIP_MAGIC, ZSTD_MAGIC, PARQUET_MAGIC))
    if is_gzip and (step or packed or head.lstrip()[:1] == b"{"):
        return "gzip"  # polars decompresses only once, and only tables
    return step


def _refuse(shown: Path, head: bytes) -> None:
    """Refuse archives, documents and databases by their first bytes."""
    what = next((name for magic, name in _REFUSED if head.startswith(magic)), None)
    if head[257:262] == b"ustar":
        what = "a tar archive; unpack it, and name the file in it"
    encoded = head.startswith(tuple(magic for magic, _ in _STEPS))
    if what is None and not encoded and head.count(b"\0") > len(head) // 4:
        what = "not UTF-8: it has many NUL bytes (is it UTF-16 without a byte order mark?)"
    if what is not None:
        raise InputError(f"{shown} is {what}")


def _convert(step: str, current: Path, target: Path, limit: Limit) -> Path:
    """Write the next form of a file to `target`, and return `target`."""
    shown = limit.path
    if step.startswith("utf"):
        return _decoded(step, current, target, shown)
    if step == _LONE_CR:
        with current.open("rb") as source, target.open("wb") as plain:
            while block := source.read(_BLOCK):
                plain.write(block.replace(b"\r", b"\n"))
        return target
    if step == "zip":
        with zipfile.ZipFile(current) as archive:
            names = [
                one for one in archive.infolist()
                if not one.is_dir() and not one.filename.startswith("__MACOSX/")
            ]  # fmt: skip
            if len(names) != 1:
                found = ", ".join(one.filename for one in names[:5])
                raise InputError(
                    f"{shown} must have exactly one member; it has {len(names)}: {found or 'none'}"
                )
            if names[0].flag_bits & 1:
                raise InputError(f"{shown} must not be encrypted; unpack it")
            limit.check(names[0].file_size)  # as declared; the copy counts
            with archive.open(names[0]) as member:
                return limit.copy(member, target)
    if step == "gzip":
        with gzip.open(current) as source:
            return limit.copy(cast(IO[bytes], source), target)
    return _decompressed(bz2.BZ2Decompressor if step == "bz2" else _xz, current, target, limit)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _decompressed(
    stream: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
    current: Path,
    target: Path,
    limit: Limit,
) -> Path:
    """Decompress all streams of a file.

    The file classes of Python end without an error where a second stream is damaged, and lose it.
    """
    with current.open("rb") as source, target.open("wb") as plain:
        decompressor, rest, total = stream(), source.read(_BLOCK), 0
        while True:
            block = decompressor.decompress(rest, _BLOCK)
            total += len(block)
            limit.check(total)
            plain.write(block)
            if decompressor.eof:  # zeros may follow a stream
                rest = decompressor.unused_data.lstrip(b"\0")
                while not rest and (block := source.read(_BLOCK)):
                    rest = block.lstrip(b"\0")
                if not rest:
                    return target
                decompressor = stream()
            else:
                rest = source.read(_BLOCK) if decompressor.needs_input else b""
                if decompressor.needs_input and not rest:
                    raise EOFError("the compressed data ends too early")


def _decoded(encoding: str, current: Path, target: Path, shown: Path) -> Path:
    """Write a UTF-16 or UTF-32 file as UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read = 0
    try:
        with current.open("rb") as source, target.open("wb") as plain:
            while block := source.read(_BLOCK):
                plain.write(decoder.decode(block).encode())
                read += len(block)
            plain.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise InputError(
            f"{shown} is not valid {encoding.upper()} after byte {read:,}: {error.reason} "
            "(is the file cut short?)"
            if isinstance(error, UnicodeDecodeError)
            else f"{shown} is not valid {encoding.upper()}"
        ) from None
    return target


def lacks_final_newline(plain: Path) -> bool:
    """Return True if the last line of a text file lacks a line end.

    A gzip file is decompressed for this. A zstd file is not, so the answer for it is False.
    """
    with plain.open("rb") as file:
        magic = file.read(4)
        if magic.startswith((ZSTD_MAGIC, PARQUET_MAGIC)) or file.seek(0, 2) == 0:
            return False
        if not magic.startswith(GZIP_MAGIC):
            file.seek(-1, 2)
            return file.read(1) not in LINE_ENDS
    last = b"\n"
    with gzip.open(plain) as source:
        while block := source.read(_BLOCK):
            last = block[-1:]
    return last not in LINE_ENDS
