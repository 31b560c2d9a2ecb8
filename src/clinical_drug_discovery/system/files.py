"""Files that are whole or absent: atomic writes, and the model directory.

A record and tensors as one file in safetensors, with a version and a checksum of all of it.

No pickle, and nothing that is read is believed before the checksum has been compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clinical_drug_discovery.system.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on success it takes the name, else it goes.

    Args:
        path: where the finished file is to stand; missing directories are made. Of a symbolic link
            the target is replaced, and the link stays.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files for the owner alone; the finished one gets what open() would give.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(name: str, directory: Path) -> None:
    """Refuse a directory that could not be made or written to, before anything expensive starts.

    Nothing is made yet, so a run that fails later leaves nothing behind.

    Args:
        name: the parameter that it comes from, for the error.
        directory: where files are to be written; missing parents will be made then.
    """
    try:
        places = (directory, *directory.absolute().parents)
        existing = next(path for path in places if path.exists())
    except OSError as error:
        raise InputError(
            f"{name} (got {directory}) cannot be written to: {error.strerror}"
        ) from None
    if not existing.is_dir():
        raise InputError(f"{name} (got {directory}) cannot be a directory: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"{name} (got {directory}) cannot be written to: no permission in {existing}"
        )


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class DamagedFileError(ValueError):
    """The file is not as it was written."""


class OtherVersionError(ValueError):
    """The file was written by another version of this package."""


def save_sealed(path: Path, version: int, record: Any, tensors: dict[str, Tensor]) -> None:
    """Write a file; `load_sealed` gives both back.

    Args:
        path: overwritten; see `checkpoint.atomic_path`.
        version: of what is written.
        record: whatever JSON can hold.
        tensors: contiguous, on the CPU, none a part of another.

    Raises:
        OSError: the file could not be written.
    """
    text = json.dumps(record)
    metadata = {"version": str(version), "record": text, "sha256": _checksum(text, tensors)}
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_sealed(path: Path, version: int) -> tuple[Any, dict[str, Tensor]]:
    """Read what `save_sealed` wrote.

    The tensors are mapped, not copied: pages that are not in use cost no memory. Whoever writes the
    file anew must therefore replace it.

    Raises:
        DamagedFileError: the file is not as it was written.
        OtherVersionError: it is of another version.
        OSError: it cannot be read at all.
    """
    with path.open("rb"):  # a missing or forbidden file is no damaged one
        pass
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata["version"] != str(version):
                raise OtherVersionError(f"version {metadata['version']}, not {version}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file of safetensors is no dict
        if _checksum(metadata["record"], tensors) != metadata["sha256"]:
            raise DamagedFileError("its checksum is wrong")
    except KeyError as error:
        raise DamagedFileError(f"it has no {error}") from error
    except (SafetensorError, TypeError, UnicodeError) as error:
        raise DamagedFileError(str(error).split("\n")[0]) from error
    return json.loads(metadata["record"]), tensors


def sealed_checksum(path: Path) -> str:
    """The checksum that stands in a file, which `load_sealed` has compared."""
    with safe_open(path, "pt") as file:
        return str(file.metadata()["sha256"])


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds, whatever the order; a second for 1.8 GB."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
