"""The end of a run on disk: write its files, bring them into place, or rescue them elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ...graph.knowledge_graph import KnowledgeGraph
from ...models.embeddings_file import output_files
from ...models.kinds.interface import Settings
from ...system import disk
from ...system.errors import InputError
from ...system.files import WriteError
from ...system.interrupts import note_resume, note_written
from ...system.limits.parameters import ONLY_AT_END
from ...system.log import milestone
from ...system.progress import Run
from ...system.run_directory import (
    SWAP,
    Places,
    locked,
    locked_files,
    part_of,
    swap,
    work_directory,
)
from ...training.memory_plan import Plan
from .model_dir import MODEL_FILES, model_dir_of

_CHECKPOINTS = 3  # at a time: two are kept while a third is written
_TABLES = 3  # of a checkpoint: the vectors, and two moments of Adam
_CSV_BYTES = 11  # of a number with its comma, on average
#: Writes all results: into a directory for the model, and to a path for the embeddings.
Write = Callable[[Path, Path], None]


@contextmanager
def working(run: Run) -> Iterator[Places]:
    """Work on a run: lock its results, and let its history grow in `<model_dir>.run`.

    The first of several processes does this for all.

    Raises:
        InputError: another process writes to the model directory or the embeddings.
        WriteError: a lock cannot be written.
    """
    if run.group.rank:
        yield Places.of(run.model_dir)
        return
    with (
        locked(run.model_dir) as places,
        locked_files(f"output (got {run.output})", _outside(run, places)),
    ):
        try:
            with run.history.growing(places.work):
                for name in MODEL_FILES:  # of a run that was killed while it wrote its results
                    (places.work / name).unlink(missing_ok=True)
                yield places
        finally:
            with suppress(OSError):  # it was renamed, or holds checkpoints
                places.work.rmdir()


def check_space(run: Run, graph: KnowledgeGraph, plan: Plan, checkpoint_minutes: float) -> None:
    """Compare the free space with the size of the results and scratch files, before the training.

    Files of an earlier run that will be replaced do not count as free, because they stay until the
    new ones are complete.

    Raises:
        InputError: a file system has less free space than the results need.
    """
    names = int(graph.nodes.estimated_size())
    arrays = sum(array.nbytes for array in graph.arrays)
    per_number = _CSV_BYTES if run.output.suffix.lower() == ".csv" else 4
    checkpoints = 1 if checkpoint_minutes == ONLY_AT_END else _CHECKPOINTS
    model, embeddings = result_bytes(
        graph.num_nodes, arrays, names, plan.settings, per_number, checkpoints
    )
    written = [
        (f"model_dir (got {run.model_dir})", run.model_dir.resolve().parent, model),
        (f"output (got {run.output})", run.output.resolve().parent, embeddings),
    ]
    if plan.scratch_dir is not None:
        shown = f"scratch_dir (got {plan.scratch_dir})"
        written.append((shown, plan.scratch_dir.resolve(), plan.file_bytes))
    needed: dict[int, tuple[str, Path, int]] = {}
    for shown, folder, size in written:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        device = place.stat().st_dev
        before = needed[device][2] if device in needed else 0
        needed[device] = (shown, place, before + size)
    for shown, place, size in needed.values():
        free = disk.free_bytes(place)
        if free < size:
            raise InputError(
                f"{shown} needs about {size:,} bytes for the files of this run, but the disk of "
                f"{place} has {free:,} bytes free"
            )


def result_bytes(
    num_nodes: int,
    arrays: int,
    names: int,
    settings: Settings,
    per_number: int = 4,
    checkpoints: int = _CHECKPOINTS,
) -> tuple[int, int]:
    """Predict the bytes of a model directory with its checkpoints, and of the embeddings.

    Args:
        num_nodes: of the graph.
        arrays: bytes of the graph's arrays.
        names: bytes of the table of nodes.
        settings: already checked.
        per_number: bytes for each number of an embedding; 4 in Parquet and .npy.
        checkpoints: largest number of checkpoints at a time.
    """
    weights = 4 * num_nodes * settings.hidden_dim
    model = (1 + _TABLES * checkpoints) * weights + arrays + 2 * names
    return model, per_number * num_nodes * settings.embedding_dim + names


def finish_run(run: Run, places: Places, write: Write) -> None:
    """Write the results of a run, and bring them into place; if that fails, rescue them.

    Args:
        run: provides the paths.
        places: the locked model directory.
        write: writes the results; called again for the rescue.

    Raises:
        WriteError: the results are not in place; the message says where they are.
    """
    output, targets = run.output.resolve(), _outside(run, places)
    if targets:
        place = part_of(output, places)
    else:  # the file is renamed with its directory
        place = places.work / output.relative_to(places.model_dir)
    parts = [place, *(part_of(path, places) for path in targets)]
    try:
        write(places.work, place)
    except WriteError as error:
        _discard(places, parts)
        raise _rescued(run, write, error) from error
    try:
        run.history.complete()
        swap(places, targets, MODEL_FILES)
    except OSError as error:
        if not (places.work / SWAP).exists() and not (places.model_dir / SWAP).exists():
            _discard(places, parts)
            raise _rescued(run, write, error) from error
        raise WriteError(
            f"{places.model_dir} cannot be replaced: {error.strerror or error}; the new run is "
            f"complete in {places.work}, and the next cdd command with --model-dir "
            f"{run.model_dir} brings it into place"
        ) from error
    note_resume(None)
    for path in (run.model_dir, run.output):
        note_written(path)


def _outside(run: Run, places: Places) -> list[Path]:
    """Return the files of the embeddings, unless they lie in the model directory."""
    output = run.output.resolve()
    return [] if places.model_dir in output.parents else output_files(output)


def _discard(places: Places, parts: Sequence[Path]) -> None:
    """Remove unfinished results, which may fill the disk; a checkpoint stays."""
    for path in (*(places.work / name for name in (*MODEL_FILES, disk.PART + SWAP)), *parts):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _rescued(run: Run, write: Write, error: OSError) -> WriteError:
    """Write the results to another directory; return the error that says where they are."""
    reason = str(error)
    for base in (Path(tempfile.gettempdir()), Path(os.curdir)):
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="cdd-rescue-", dir=base)).absolute()
            output = folder / run.output.name
            model_dir = model_dir_of(output)
            write(model_dir, output)
        except OSError as failure:
            if folder is not None:
                with suppress(OSError):
                    disk.remove(folder)
            reason += f"; nor can {base} be used: {failure.strerror or failure}"
            continue
        return WriteError(
            f"{error}. The results are safe in {folder}: embeddings {output.name}, model "
            f"{model_dir.name}, without the drug ranker. Move them when there is space, then run "
            f"cdd fit-ranker --model-dir with the model directory"
        )
    return WriteError(
        f"{reason}. The results are lost; if {work_directory(run.model_dir)} has a checkpoint, "
        "--resume continues from it"
    )


@contextmanager
def kept(run: Run) -> Iterator[None]:
    """Say in an error of the `with` block that the model and its embeddings are complete."""
    text = (
        f"the model {run.model_dir} and its embeddings {run.output} are complete; "
        f"cdd fit-ranker --model-dir {run.model_dir} fits the drug ranker"
    )
    try:
        yield
    except (InputError, MemoryError) as error:
        raise InputError(f"{str(error) or 'the memory is full'}; {text}") from error
    except Exception as error:
        milestone(text)
        error.add_note(text)
        raise
