"""Downloads that continue after a cut connection, and are checked before they get their name.

The bytes go to `NAME.CHECKSUM.part` beside the file, so a part is continued only if the server
still has the same file. Only the standard library is used.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from . import disk, log
from .errors import InputError
from .files import check_name, check_writable, writing
from .interrupts import note_resume, note_written

_CHUNK = 2**20  # bytes per read, and per step of the progress
_TIMEOUT = 60.0  # seconds without a byte, after which a connection counts as cut
_WAITS = (1.0, 4.0, 15.0, 60.0)  # seconds before further attempts, counted since the last byte
_MOST_TEXT = 2**25  # bytes of an answer that is read as text
_CUT = (OSError, HTTPException)  # urllib's errors of a connection; HTTPError is among them


@dataclass(frozen=True)
class Remote:
    """A file on a server."""

    url: str
    name: str
    num_bytes: int
    md5: str  #: hexadecimal


def read_text(url: str) -> bytes:
    """Return a short answer of a server.

    Raises:
        InputError: the server cannot be reached, or its answer is an error or too long.
    """
    try:
        with _open(url) as answer:
            text: bytes = answer.read(_MOST_TEXT + 1)
    except _CUT as error:
        raise InputError(f"{url} cannot be read: {_reason(error)}") from None
    if len(text) > _MOST_TEXT:
        raise InputError(f"{url} answers with more than {_MOST_TEXT:,} bytes")
    return text


def download(remote: Remote, target: Path, parameter: str, *, overwrite: bool) -> bool:
    """Download a file, or continue an earlier download of it; return False if it is there already.

    Args:
        remote: the file.
        target: where the complete file goes.
        parameter: the parameter that holds the target, for error messages.
        overwrite: replace another file of this name.

    Raises:
        InputError: another file has the name, the disk is too small, the connection was cut too
            often (the part stays), or the size or the checksum is wrong (the part is removed).
    """
    check_name(parameter, target)
    check_writable(parameter, target.parent, target)
    if target.exists():
        if target.is_file() and target.stat().st_size == remote.num_bytes:
            with log.part(f"Comparing {target}"):
                same = _hash_of(target).hexdigest() == remote.md5
            if same:
                return False
        if not overwrite:
            raise InputError(
                f"{parameter} (got {target}) exists already and is another file; --overwrite "
                "replaces it"
            )
    part = target.with_name(f"{target.name}.{remote.md5[:12]}.part")
    with writing(target):
        disk.make_directory(target.parent)
        have = part.stat().st_size if part.exists() else 0
        if disk.free_bytes(target.parent) < remote.num_bytes - have:
            raise InputError(
                f"{parameter} (got {target}) needs {remote.num_bytes - have:,} bytes, but the disk "
                f"has {disk.free_bytes(target.parent):,} bytes free"
            )
        _fill(remote, part)
        _check(remote, part)
        disk.flush(part)
        disk.rename(part, target)
    note_resume(None)
    note_written(target)
    return True


def _fill(remote: Remote, part: Path) -> None:
    """Append to a part until it has all bytes.

    Raises:
        InputError: the connection is cut again and again without a new byte in between.
    """
    failures, most = 0, 0
    while (have := part.stat().st_size if part.exists() else 0) < remote.num_bytes:
        reason = "the connection was closed"
        try:
            _append(remote, part, have)
        except InputError:  # also a full disk, which is an OSError
            raise
        except HTTPError as error:
            if error.code < 500:  # the server will not change its mind
                raise InputError(f"{remote.url} cannot be read: {_reason(error)}") from None
            reason = _reason(error)
        except _CUT as error:
            reason = _reason(error)
        now = part.stat().st_size if part.exists() else 0
        if now >= remote.num_bytes:
            break
        # A server that ignores Range sends the first bytes again, which is not progress.
        failures, most = (1 if now > max(have, most) else failures + 1), max(have, now, most)
        note_resume(f"{now:,} of {remote.num_bytes:,} bytes are in {part}", flag=None)
        if failures > len(_WAITS):
            raise InputError(
                f"{remote.url} stopped at {now:,} of {remote.num_bytes:,} bytes: {reason}; the "
                "same command continues from there"
            )
        wait = _WAITS[failures - 1]
        log.milestone(f"{remote.name}: {reason} at {now:,} bytes; again in {wait:g} s")
        time.sleep(wait)


def _append(remote: Remote, part: Path, have: int) -> None:
    """Ask for the bytes that are missing, and append what arrives."""
    with _open(remote.url, have) as answer:
        start = _start_of(remote, answer, have)
        if start < have:
            log.milestone(f"{remote.name}: the server sends the file from its beginning")
            disk.remove(part)
        total, before = -(-remote.num_bytes // _CHUNK), start // _CHUNK
        with log.part(f"Downloading {remote.name}", total, "MiB", before=before) as advance:
            while chunk := answer.read1(_CHUNK):
                with writing(part):
                    disk.append(part, chunk)
                start = _count(start, chunk, advance)
                if start > remote.num_bytes:
                    disk.remove(part)
                    raise InputError(
                        f"{remote.url} sends more than the {remote.num_bytes:,} bytes of its "
                        "description: try again later"
                    )


def _count(have: int, chunk: bytes, advance: Callable[..., None]) -> int:
    """Advance the progress by each whole MiB, and return the new number of bytes."""
    for _ in range((have + len(chunk)) // _CHUNK - have // _CHUNK):
        advance()
    return have + len(chunk)


def _start_of(remote: Remote, answer: Any, have: int) -> int:
    """Return the number of the first byte of an answer: `have`, or 0 if Range was ignored.

    Raises:
        InputError: the answer is not of a file of the described size.
    """
    size = remote.num_bytes
    if answer.status == 206:
        found = str(answer.headers.get("Content-Range", ""))
        if found != f"bytes {have}-{size - 1}/{size}":
            raise InputError(
                f"{remote.url} answers with {found or 'an unknown range'} of bytes instead of "
                f"{have}-{size - 1} of {size}: try again later"
            )
        return have
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(size):
        raise InputError(
            f"{remote.url} has {length} bytes, but its description says {size}: try again later"
        )
    return 0


def _check(remote: Remote, part: Path) -> None:
    """Check the checksum of a complete part; remove the part if it is wrong.

    Raises:
        InputError: it is wrong.
    """
    with log.part(f"Checking {remote.name}"):
        found = _hash_of(part).hexdigest()
    if found != remote.md5 or part.stat().st_size != remote.num_bytes:
        disk.remove(part)
        raise InputError(
            f"{remote.url}: the file that arrived has the MD5 {found} instead of {remote.md5}, so "
            "it was removed: start again"
        )


def _hash_of(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))


def _open(url: str, start: int = 0) -> Any:
    """Open a URL, from a byte on."""
    headers = {"User-Agent": f"clinical-drug-discovery/{version('clinical-drug-discovery')}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return urlopen(Request(url, headers=headers), timeout=_TIMEOUT)


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__
