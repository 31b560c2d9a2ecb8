"""Files from strangers: regular files only, JSON without surprises, lines of bounded length."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from ..errors import InputError, shown

MAX_LINE = 2**20  #: characters of a line of a list of names; a longer line is not a list
_MAX_JSON = 2**27  # bytes of a JSON file; parsed JSON takes ten times its size


def check_regular(name: str, path: Path, choice: str = "") -> None:
    """Check that a path is a regular file: a pipe may wait for ever, a device may never end.

    Args:
        name: the parameter that holds the path, for the error message.
        path: may be a symbolic link to a file.
        choice: text about other allowed values, to follow "must be a file".

    Raises:
        InputError: the path is missing, or is a directory, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        rule = f"must be a file{choice}" if choice else "cannot be read"
        raise InputError(f"{name} (got {path}) {rule}: {reason}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{name} (got {path}) must be a file{choice}")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text without repeated keys, NaN, infinity, endless numbers or endless nesting.

    Raises:
        ValueError: the text is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def repeated(key: str) -> str:
    """Return the message about a key that a file has twice."""
    return f"the key {shown(key)} is given twice, but a key must be given once"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; Python would take the last value of a repeated key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(repeated(next(key for key in keys if keys.count(key) > 1)))
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not allowed")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file of at most 128 MiB, or not valid JSON.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_JSON:
        raise ValueError(f"it must be a file of at most {_MAX_JSON:,} bytes")
    return parse_json(path.read_bytes())


def bounded_lines(where: str, file: IO[str]) -> Iterator[str]:
    """Yield the lines of a text file with their line ends, one in memory at a time.

    Args:
        where: the parameter and the path, for the error message.
        file: open for reading.

    Raises:
        InputError: a line has more than a million characters.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(
                f"{where}, line {number}: a line must have at most {MAX_LINE:,} characters"
            )
        yield line
