"""Checkpoints: the state of a training on disk, from which a later run continues.

On the CPU, a training that was stopped and continued ends in the same bytes as one that was not. A
checkpoint is one checksummed safetensors file with the tensors and a JSON record of every part of
the training: weights, optimizer, random generators, history and position. The last two files stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numba
import torch
from torch import Tensor

from ..ops.buffers import release_buffers
from ..system import disk
from ..system.errors import InputError
from ..system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    load_checksummed,
    save_checksummed,
)
from ..system.interrupts import finishing_steps, note_resume
from ..system.processes import most_threads
from ..system.progress import Run
from .distributed.shards import Shards
from .history import TrainingRecord, is_finite

VERSION = 2  #: format version; increase it whenever an older checkpoint would continue differently
PATTERN = "checkpoint-*.safetensors"  #: names of checkpoints in a directory
_KEPT = 2  # checkpoints that stay: if the newest is damaged, the one before can be used
_MOST_SHOWN, _MOST_DIFFERENCES = 100, 8  # characters of a value, and values, in a message
#: what a part raises for a state that is not its own
_WRONG_STATE = (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError)


class Part(Protocol):
    """A part of a training with a state: tensors and JSON values by name."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state; the tensors need not be copies."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Continue from a state. Raise an error if the JSON values are not of such a part."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read, with the right checksum."""

    path: Path
    identity: Mapping[str, Any]  #: settings, graph, versions and device of the training
    cycles: tuple[int, ...]  #: number of epochs of each cycle of the learning rate
    finished_epochs: int
    threads: Mapping[str, int]  #: number of threads of torch and of numba
    values: Mapping[str, Mapping[str, Any]]  #: JSON values of each part
    tensors: Mapping[str, Tensor]  #: by part/name

    @property
    def is_finished(self) -> bool:
        """True if all epochs are done."""
        return self.finished_epochs == sum(self.cycles)


def find_checkpoint(paths: Sequence[Path], run: Run) -> Found | None:
    """Return the first checkpoint that is not damaged; warn about damaged ones.

    Args:
        paths: files of checkpoints, the newest first.
        run: receives the warnings.

    Raises:
        InputError: there are checkpoints, but none can be used.
    """
    for path in paths:
        try:
            return _read(path)
        except DamagedFileError as error:
            run.warn(f"the checkpoint {path} is damaged and skipped: {error}")
        except OtherVersionError as error:
            raise InputError(f"{path} is of {error}; continue it with that version") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if paths:
        raise InputError(
            f"resume (got True) finds only damaged checkpoints in {paths[0].parent}: start again "
            "with overwrite (--overwrite) and without resume (--resume)"
        )
    return None


def _read(path: Path) -> Found:
    record, tensors = load_checksummed(path, VERSION)
    try:
        cycles, threads = record["cycles"], record["threads"]
        done, identity, values = (record[k] for k in ("finished_epochs", "identity", "parts"))
        whole = [*cycles, *(threads[name] for name in ("torch", "numba")), done + 1]
        fits = all(type(number) is int and 0 < number < 2**31 for number in whole)
        fits = fits and cycles and done <= sum(cycles) and isinstance(identity, dict)
        if not fits or not all(isinstance(part, dict) for part in values.values()):
            raise ValueError("its record has wrong values")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"its record is not that of a checkpoint: {error}") from error
    return Found(path, identity, tuple(cycles), done, threads, values, tensors)


def newest_first(directory: Path) -> list[Path]:
    """Return the checkpoints of a directory, the newest first; none if it does not exist."""
    return sorted(directory.glob(PATTERN), reverse=True)


@dataclass
class Checkpoints:
    """The checkpoints of one training: saves its state, and continues a saved state."""

    directory: Path  #: of the checkpoints
    identity: Mapping[str, Any]  #: JSON values by name, which a continued training shares
    minutes: float  #: time between two checkpoints
    cycles: tuple[int, ...]  #: number of epochs of each cycle of the learning rate
    found: Found | None = None  #: the checkpoint to continue from
    last: list[Path] = field(default_factory=list)  #: the files that stay, the newest last

    @staticmethod
    def of(
        directory: Path,
        identity: Mapping[str, Any],
        minutes: float,
        num_epochs: int,
        found: Found | None,
    ) -> Checkpoints:
        """Check that a training continues the checkpoint that was found, and add its cycles.

        More epochs than the checkpoint has are a new cycle of the learning rate.

        Args:
            directory: of the checkpoints to save.
            identity: JSON values by name, which must equal those of `found`.
            minutes: time between two checkpoints.
            num_epochs: number of epochs in all.
            found: the checkpoint to continue from; None: start from the beginning.

        Raises:
            InputError: the identity differs, or the checkpoint has more epochs.
        """
        if found is None:
            return Checkpoints(directory, identity, minutes, (num_epochs,))
        _check_same(found, identity)
        done = sum(found.cycles)
        if num_epochs < done:
            raise InputError(
                f"num_epochs (got {num_epochs}) must be at least {done}, the number of epochs of "
                f"the training that resume continues ({found.path})"
            )
        cycles = found.cycles if num_epochs == done else (*found.cycles, num_epochs - done)
        return Checkpoints(directory, identity, minutes, cycles, found, [found.path])

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Use as many threads as the run that is continued, within the block, if there are so many.

        Results do not depend on the number of threads; this rests on tests of some CPUs.
        """
        if self.found is None:
            yield
            return
        before, found = _threads(), self.found.threads
        numba_most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
        numba.set_num_threads(min(found["numba"], numba_most))
        torch.set_num_threads(min(found["torch"], most_threads()))
        try:
            yield
        finally:
            numba.set_num_threads(before["numba"])
            torch.set_num_threads(before["torch"])

    def restore(self, parts: Mapping[str, Part], shards: Shards, record: TrainingRecord) -> None:
        """Bring all parts to the state of the checkpoint that was found, and free its memory.

        A training that starts from the beginning removes the checkpoints of an earlier one. The
        first of several processes reads the file, and the others get their share from it.

        Args:
            parts: the parts of the training by name.
            shards: the division of the node tables.
            record: one of them.

        Raises:
            InputError: its content does not fit the parts.
        """
        found, self.found = self.found, None
        if shards.group.rank == 0:
            # Unfinished files are of a run that was killed while it saved.
            for path in (
                *self.directory.glob(f"{disk.PART}*"),
                *([] if found else newest_first(self.directory)),
            ):
                path.unlink(missing_ok=True)
        if found is None:
            return
        try:
            if shards.group.rank == 0:
                _check_content(found, parts, shards)
            for name, part in parts.items():
                tensors = {
                    key: shards.divide(f"{name}/{key}", found.tensors, own)
                    for key, own in part.state_dict().items()
                    if isinstance(own, Tensor)
                }
                part.load_state_dict({**found.values[name], **tensors})
            if len(record.history) != found.finished_epochs:
                raise ValueError(f"its history has not {found.finished_epochs} epochs")
            if found.values["optimizer"]["step"] != record.num_done:
                raise ValueError(f"its optimizer has not taken {record.num_done} steps")
        except _WRONG_STATE as error:
            raise InputError(
                f"{found.path} is damaged: {str(error)[:_MOST_SHOWN]}; remove it to continue from "
                "the checkpoint before it"
            ) from None

    def save(
        self, parts: Mapping[str, Part], shards: Shards, record: TrainingRecord, run: Run
    ) -> None:
        """Save the state of all parts; if that fails, warn, since the training can go on.

        A state with NaN or infinity is not saved: it must not replace the last good checkpoint, and
        the next step refuses it. The check takes 0.1 s on PrimeKG.

        Args:
            parts: the parts of the training.
            shards: the division of the node tables. The first process gets them whole, and saves.
            record: one of them, which knows the position.
            run: receives a warning.
        """
        if shards.group.size > 1:
            release_buffers()  # the first process collects the tables of all
        tensors: dict[str, Tensor] = {}
        values: dict[str, dict[str, Any]] = {}
        for name, part in parts.items():
            values[name] = {}
            for key, value in part.state_dict().items():
                if isinstance(value, Tensor):
                    whole = shards.collect(f"{name}/{key}", value.detach())
                    tensors[f"{name}/{key}"] = whole.cpu()
                else:
                    values[name][key] = value
        if shards.group.rank or not all(map(is_finite, tensors.values())):
            return
        content = {
            "identity": dict(self.identity),
            "cycles": self.cycles,
            "finished_epochs": len(record.history),
            "threads": _threads(),
            "parts": values,
        }
        path = self.directory / PATTERN.replace("*", f"{record.num_done:09}")
        try:
            with atomic_path(path) as temporary:
                save_checksummed(temporary, VERSION, content, tensors)
        except OSError as error:
            run.warn(f"no checkpoint was saved: {path}: {error.strerror or error}")
            return
        self.last = [*(one for one in self.last if one != path), path][-_KEPT:]
        for other in newest_first(self.directory):
            if other not in self.last:
                other.unlink(missing_ok=True)
        note_resume(f"a checkpoint of epoch {len(record.history)} is in {self.directory}")


def _threads() -> dict[str, int]:
    """Return the numbers of threads of torch and numba, and change neither.

    If numba has not run yet, the question starts its threads. With OpenMP, this sets the number for
    torch, too, and small work on several threads takes many times as long.
    """
    threads = torch.get_num_threads()
    found = {"torch": threads, "numba": numba.get_num_threads()}
    torch.set_num_threads(threads)
    return found


def _check_same(found: Found, identity: Mapping[str, Any]) -> None:
    """Check that a checkpoint belongs to a training; show all differences.

    Raises:
        InputError: a value differs.
    """
    different = list(_differences(found.identity, identity))
    if different:
        shown = ", ".join(different[:_MOST_DIFFERENCES])
        raise InputError(
            f"resume (got True) cannot continue {found.path}, which differs in {shown}: use the "
            "same values, or start again with overwrite (--overwrite) and without resume"
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Yield text about each value that differs, such as "seed (0 in the checkpoint, 1 now)"."""
    for name in {**new, **old}:
        one, other = (values.get(name, "missing") for values in (old, new))
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{within}{name}.")
        elif one != other:
            yield f"{within}{name} ({_shown(one)} in the checkpoint, {_shown(other)} now)"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _check_content(found: Found, parts: Mapping[str, Part], shards: Shards) -> None:
    """Check that the tensors of a checkpoint are those of the parts: names, types, shapes, values.

    Raises:
        ValueError: they are not.
    """
    expected = {
        f"{name}/{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
        if isinstance(value, Tensor)
    }
    if expected.keys() != found.tensors.keys() or parts.keys() != found.values.keys():
        raise ValueError("it has other parts than the training")
    for name, tensor in expected.items():
        other = found.tensors[name]
        if (other.shape, other.dtype) != (shards.shape(name, tensor), tensor.dtype):
            raise ValueError(f"{name} has another shape or type")
        if not is_finite(other):
            raise ValueError(f"{name} holds NaN or infinity")


@contextmanager
def keeping(
    checkpoints: Checkpoints | None,
    parts: Mapping[str, Part],
    shards: Shards,
    record: TrainingRecord,
    run: Run,
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Continue a saved state, show the progress, and save the state during the `with` block.

    A first Ctrl-C or SIGTERM is noted within the block. The next call after a step then saves a
    checkpoint and stops the run. A second signal stops it at once.

    Args:
        checkpoints: None: save nothing.
        parts: the parts of the training by name.
        shards: the division of the node tables.
        record: one of the parts.
        run: shows the progress.

    Yields:
        A function to call with a note after each epoch, and one to call after each step.
    """
    if checkpoints is not None:
        checkpoints.restore(parts, shards, record)
    before = len(record.history)
    with run.progress.bar("Training", record.num_epochs, "epoch", before) as advance:
        if checkpoints is None:
            yield advance, lambda: None
            return
        with finishing_steps() as stop:
            due = time.monotonic() + 60 * checkpoints.minutes

            def after_step() -> None:
                nonlocal due
                wishes = run.group.gather([stop.number, time.monotonic() >= due])
                number = next((number for number, _ in wishes if number is not None), None)
                if number is not None or record.is_finished or wishes[0][1]:
                    checkpoints.save(parts, shards, record, run)
                    due = time.monotonic() + 60 * checkpoints.minutes
                if number is not None:
                    stop.now(number)

            try:
                yield advance, after_step
            except InputError as error:  # the loss diverges
                if not checkpoints.last:
                    raise
                raise InputError(
                    f"{error}, and with overwrite (--overwrite). Do not use resume (--resume): it "
                    "keeps the learning rate, so the loss would diverge again. The last checkpoint "
                    f"before that is {checkpoints.last[-1]}"
                ) from None
            last = checkpoints.last
            if last and all(path.parent != checkpoints.directory for path in last):
                checkpoints.save(parts, shards, record, run)  # a finished training was continued
