"""The directory of a run on disk: its work in progress, its lock, and the swap at its end.

A run that ends in the model directory `D` works in `D.run`. When all its files are complete, the
swap brings them into place: `D` becomes `D.run/.old`, the embeddings get their names, `D.run`
becomes `D`, and `D/.old` is deleted. A journal in `D.run` is written before the first rename. If
the process is killed during the swap, the next command that uses `D` completes it. Whenever `D`
exists, it is one complete run, and the embeddings that were written with it are of the same run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import disk
from .errors import InputError
from .files import writing

SWAP = "swap.json"  #: the journal of a swap
OLD = ".old"  #: the earlier run during a swap, in the directory of the new run
OUTPUT_LOCK = ".lock"  #: the lock in a directory of results; with a file name, that of one file


class Places(NamedTuple):
    """The paths of a model directory, all beside each other."""

    model_dir: Path  #: the finished run
    work: Path  #: the run in progress: its growing history, checkpoints and results
    lock: Path  #: says which process writes

    @staticmethod
    def of(model_dir: Path) -> Places:
        """Return the paths; a model directory that is a symbolic link is followed."""
        place = model_dir.resolve()
        work, lock = (place.with_name(place.name + end) for end in (".run", ".lock"))
        return Places(place, work, lock)


def work_directory(model_dir: Path) -> Path:
    """Return the directory in which a run works (`<model_dir>.run`), with its checkpoints."""
    return Places.of(model_dir).work


def part_of(target: Path, places: Places) -> Path:
    """Return the name that a result outside of the model directory has before the swap.

    Runs of other model directories have other names, so a swap that was interrupted is completed
    with the files of its own run. The name stays the same if all is moved together.
    """
    way = os.path.relpath(places.model_dir, target.parent)
    return target.with_name(f"{disk.PART}{zlib.crc32(os.fsencode(way)):08x}-{target.name}")


@contextmanager
def locked(model_dir: Path) -> Iterator[Places]:
    """Keep other processes from writing to a model directory, and complete an interrupted swap.

    The lock is a file with the process, the start time of the process, and the run. The system
    releases it when the process ends, even by a kill. Where the file system does not lock files,
    the start time tells whether the process of the lock still runs.

    Raises:
        InputError: a running process writes to the directory.
        WriteError: the lock cannot be written, or a swap cannot be completed.
    """
    places = Places.of(model_dir)
    with _holding(places.lock, f"model_dir (got {model_dir})"):
        with writing(places.model_dir):
            _complete(places)
            for path in places.model_dir.glob(f"{disk.PART}*"):  # of a process that was killed
                disk.remove(path)
        yield places


@contextmanager
def locked_output(output_dir: Path) -> Iterator[None]:
    """Keep other processes from writing to a directory of results without a swap.

    The lock lies in the directory, since the directory around it may be read-only.

    Raises:
        InputError: a running process writes to the directory.
        WriteError: the lock cannot be written.
    """
    with _holding(output_dir / OUTPUT_LOCK, f"output_dir (got {output_dir})"):
        yield


@contextmanager
def locked_files(name: str, paths: Iterable[Path]) -> Iterator[None]:
    """Keep other processes from writing results outside of their model directories.

    Args:
        name: the parameter with its value, for messages.
        paths: the files; the locks lie beside them.

    Raises:
        InputError: a running process writes to one of the files.
        WriteError: a lock cannot be written.
    """
    with ExitStack() as locks:
        for path in paths:
            locks.enter_context(_holding(_lock_of(path), name))
        yield


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{OUTPUT_LOCK}-{path.name}")


@contextmanager
def _holding(lock: Path, name: str) -> Iterator[None]:
    """Hold a lock within the `with` block; its directory is made, and removed if it stays empty."""
    made = [path for path in lock.parents if not path.exists()]
    try:
        with writing(lock):
            disk.make_directory(lock.parent)
            handle = _take(lock, name)
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()
            os.close(handle)
    finally:
        with suppress(OSError):  # the directories hold results
            for path in made:
                path.rmdir()


def check_unused(model_dir: Path, output: Path, files: Iterable[Path]) -> None:
    """Check that no running process writes to a model directory or its output; change nothing.

    Args:
        model_dir: the directory.
        output: the embeddings, for messages.
        files: all files of the embeddings.

    Raises:
        InputError: a process does; the message has its run and the age of the run.
    """
    locks = {Places.of(model_dir).lock: f"model_dir (got {model_dir})"}
    locks |= {_lock_of(path.resolve()): f"output (got {output})" for path in files}
    for lock, name in locks.items():
        with suppress(OSError):  # such as a missing lock
            handle = os.open(lock, os.O_RDWR)
            try:
                _check_free(handle, name)
            finally:
                os.close(handle)


def settle(model_dir: Path, *, to_write: bool = False) -> None:
    """Complete an interrupted swap before a model directory is used.

    Args:
        model_dir: the directory.
        to_write: True: it may be missing.

    Raises:
        InputError: the directory is missing because its swap is going on, or cannot be completed.
    """
    places = Places.of(model_dir)
    if not any((place / SWAP).exists() for place in (places.work, places.model_dir)):
        if not to_write and places.work.is_dir() and not places.model_dir.exists():
            raise InputError(
                f"model_dir (got {model_dir}) does not exist yet: an unfinished run lies in "
                f"{places.work}"
            )
        return
    try:
        with locked(model_dir):
            pass
    except (InputError, OSError) as error:
        if places.model_dir.is_dir():  # complete in any case
            return
        raise InputError(
            f"model_dir (got {model_dir}) is being replaced by the run in {places.work}, and this "
            f"cannot be completed now: {error}"
        ) from None


def swap(places: Places, targets: Sequence[Path], ours: Iterable[str]) -> None:
    """Bring a complete run from `places.work` into place, and the results outside of it.

    Args:
        places: the paths of the run.
        targets: results outside of the model directory, which have their names of `part_of`.
        ours: file names that every run writes; the other files of the earlier directory are kept.

    Raises:
        OSError: a step failed. The run is complete on disk, and the next command completes the
            swap.
    """
    parent = places.model_dir.parent
    record = {
        "targets": [os.path.relpath(path.resolve(), parent) for path in targets],
        "ours": sorted(ours),
    }
    temporary = places.work / (disk.PART + SWAP)
    with disk.create(temporary) as file:
        file.write(json.dumps(record).encode())
    disk.flush(temporary)
    disk.rename(temporary, places.work / SWAP)
    _complete(places)


def _complete(places: Places) -> None:
    """Take the remaining steps of a swap, which may have been interrupted after any of them."""
    if (places.work / SWAP).exists():
        targets, _ = _journal(places.work / SWAP, places)
        if places.model_dir.exists():
            disk.rename(places.model_dir, places.work / OLD)
        waiting = [path for path in targets if part_of(path, places).exists()]
        if len(targets) > 1 and waiting:
            # An index beside the numbers of another run must never be seen: the numbers go first
            # and come last.
            disk.remove(targets[-1])
        for path in waiting:
            disk.rename(part_of(path, places), path)
        disk.rename(places.work, places.model_dir)
    if (places.model_dir / SWAP).exists():
        _, ours = _journal(places.model_dir / SWAP, places)
        if (places.model_dir / OLD).is_dir():
            _keep_others(places.model_dir, ours)
            disk.remove(places.model_dir / OLD)
        disk.remove(places.model_dir / SWAP)


def _keep_others(model_dir: Path, ours: Sequence[str]) -> None:
    """Move the files that do not belong to a run from the earlier directory to the new one."""
    for path in sorted((model_dir / OLD).iterdir()):
        unfinished = path.name.startswith((disk.PART, "checkpoint")) or path.name == SWAP
        if path.name not in ours and not unfinished and not (model_dir / path.name).exists():
            disk.rename(path, model_dir / path.name)


def _journal(path: Path, places: Places) -> tuple[list[Path], list[str]]:
    """Return the targets and the file names of a run from a journal.

    A journal can only rename files that have a name of `part_of`, so that a journal from a stranger
    cannot do harm.

    Raises:
        InputError: the journal is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        targets = [places.model_dir.parent / name for name in record["targets"]]
        return targets, [str(name) for name in record["ours"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}; delete it") from None


def _take(lock: Path, name: str) -> int:
    """Take the lock, and return its open file."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _check_free(handle, name)
            if os.fstat(handle).st_ino == os.stat(lock).st_ino:
                try:
                    _write_record(handle)
                except OSError:  # such as a full disk; the lock is ours
                    os.unlink(lock)
                    raise
                return handle
        except FileNotFoundError:
            pass  # its owner has removed it in the meantime
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _check_free(handle: int, name: str) -> None:
    """Lock an open lock file, or raise InputError if a running process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = False
    except BlockingIOError:
        is_held = True
    except OSError:  # the file system does not lock files
        is_held = False
    record = _record(handle)
    if not is_held and not _is_alive(record):
        return
    age = max(0, time.time() - float(record.get("started", time.time())))
    raise InputError(
        f"{name} is in use by process {record.get('pid', '?')}, whose run "
        f"{record.get('run', '?')} began {_duration(age)} ago: wait until it ends, or choose "
        "another path"
    )


def _record(handle: int) -> dict[str, Any]:
    try:
        record = json.loads(os.pread(handle, 4096, 0))
    except (ValueError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(handle: int) -> None:
    import psutil  # here and below: a question to a model needs no psutil

    me = psutil.Process()
    record = {
        "run": uuid.uuid4().hex[:12],
        "pid": me.pid,
        "process_started": me.create_time(),
        "host": socket.gethostname(),
        "started": time.time(),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(record).encode(), 0)


def _is_alive(record: dict[str, Any]) -> bool:
    """Return whether the process of a lock still runs; a process of this one's own has ended."""
    if record.get("host") != socket.gethostname() or record.get("pid") == os.getpid():
        return False
    import psutil

    try:
        process = psutil.Process(int(record["pid"]))
        started = abs(process.create_time() - float(record["process_started"])) < 1
        return started and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
