"""A disk that fails: each call that changes it is counted, and one or all later ones fail."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from clinical_drug_discovery.system import disk

#: The calls of `disk` that a fault can hit.
CALLS = (
    "create", "create_temporary", "append", "flush", "rename", "make_directory", "reserve",
    "open_nameless", "write_at",
)  # fmt: skip


@dataclass
class FailingDisk:
    """Replaces the calls of `disk` for all paths below a folder.

    Attributes:
        folder: other paths work as usual.
        fail_at: number of the first call that fails, from 1; 0: none.
        forever: all later calls fail as well, as on a disk that stays full.
        most_bytes: writes fail as soon as more bytes than this are written.
        number: number of the error of the system.
    """

    folder: Path
    fail_at: int = 0
    forever: bool = False
    most_bytes: int | None = None
    number: int = errno.ENOSPC
    calls: list[str] = field(default_factory=list)
    num_bytes: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the calls until the end of the test."""
        for name in CALLS:
            patch.setattr(disk, name, self._counting(name, getattr(disk, name)))

    def _counting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            if not any(self._is_below(path) for path in arguments if isinstance(path, Path)):
                return call(*arguments)
            self._step(name, arguments[0])
            if name == "append":
                self._write(arguments[1])
            found = call(*arguments)
            return Counted(found, self._write) if name == "create" else found

        return counted

    def _is_below(self, path: Path) -> bool:
        return self.folder in path.absolute().parents or self.folder == path.absolute()

    def _step(self, name: str, path: Path) -> None:
        self.calls.append(f"{name} {path.name}")
        at = len(self.calls)
        if self.fail_at and (at == self.fail_at or (self.forever and at > self.fail_at)):
            raise OSError(self.number, os.strerror(self.number), str(path))

    def _write(self, data: bytes) -> None:
        self.num_bytes += len(data)
        if self.most_bytes is not None and self.num_bytes > self.most_bytes:
            raise OSError(self.number, os.strerror(self.number))


class Counted(io.RawIOBase):
    """A file whose writes are counted; polars and this package write to it as to any file."""

    def __init__(self, file: BinaryIO, count: Callable[[bytes], None]) -> None:
        self._file, self._count = file, count

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._count(memoryview(data).cast("B"))  # type: ignore[arg-type]  # has a length
        return self._file.write(data)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        self._file.close()
        super().close()

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # otherwise libraries would write past the counter
