"""The training of a run from its beginning, or from the last checkpoint of an earlier run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...graph.cache import content_sha256
from ...graph.knowledge_graph import KnowledgeGraph
from ...models.embeddings_file import output_files
from ...models.kinds.table import kind_of
from ...models.warm_start import ORIGIN, WarmStart
from ...system.errors import InputError, check_between, shown
from ...system.files import check_new, file_sha256
from ...system.group.launch import is_restart
from ...system.interrupts import note_resume
from ...system.limits.parameters import ONLY_AT_END
from ...system.progress import Run
from ...system.run_directory import work_directory
from ...system.untrusted.inputs import read_json
from ...training.checkpoint import Checkpoints, Found, find_checkpoint, newest_first
from ...training.memory_plan import Plan
from ...training.schedule import LATER_FRACTION
from .model_dir import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    MODEL_FILES,
    STATS_FILE,
    WEIGHTS_FILE,
    run_of_model,
)
from .results import EmbeddingStats


def check_start(outputs: list[Path], model_dir: Path, resume: bool, overwrite: bool) -> None:
    """Check that a run neither replaces the files of an earlier run nor forgets its checkpoints.

    Args:
        outputs: the embeddings files.
        model_dir: directory of the model.
        resume: continue an earlier run.
        overwrite: replace the files of an earlier run.

    Raises:
        InputError: there are such files, and neither `resume` nor `overwrite` allows it; or a run
            that continues would replace embeddings that were not written with its model.
    """
    unfinished = newest_first(work_directory(model_dir))
    if unfinished and not (resume or overwrite):
        raise InputError(
            f"{unfinished[0]} is a checkpoint of an earlier run: continue that run with resume "
            "(--resume), or replace it with overwrite (--overwrite)"
        )
    if not (resume and _checkpoints_of(model_dir)):
        # A run of an earlier version that was stopped left only history.csv.
        model_files = (model_dir / name for name in MODEL_FILES if name != "history.csv")
        check_new([*outputs, *model_files], overwrite)
    elif not overwrite:
        _check_own(outputs, model_dir)


def _check_own(outputs: list[Path], model_dir: Path) -> None:
    """Check that embeddings which a continued run would replace were written with its model.

    Raises:
        InputError: a file is another one.
    """
    written = _written_with(model_dir)
    for path in outputs:
        if path.exists() and file_sha256(path) not in written:
            raise InputError(
                f"{path} was not written with the model in {model_dir}, and resume (got True) does "
                "not replace other files: choose another output, or replace the file with "
                "overwrite (--overwrite)"
            )


def _written_with(model_dir: Path) -> set[str]:
    """Return the SHA-256 of the embeddings files of a finished run; empty if unknown."""
    try:
        return set(dict(read_json(model_dir / STATS_FILE)["output_sha256"]).values())
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged
        return set()


def open_checkpoints(
    run: Run,
    graph: KnowledgeGraph,
    plan: Plan,
    init_from: str | Path | None,
    start: WarmStart | None,
    *,
    seed: int,
    resume: bool,
    minutes: float,
) -> tuple[Checkpoints, dict[str, Any] | None]:
    """Prepare the checkpoints of a run, and find the one to continue from.

    Args:
        run: provides the directories; receives warnings.
        graph: on the CPU.
        plan: provides the settings and the backend.
        init_from: directory of the earlier model that the run starts from, if there is one.
        start: this model; None if the run continues from a checkpoint.
        seed: seed of the run.
        resume: continue from the last checkpoint, if there is one.
        minutes: time between two checkpoints.

    Returns:
        The checkpoints, and the stats of the earlier run if it is finished.

    Raises:
        InputError: the earlier run has other settings or another graph, or its files are damaged.
    """
    check_between("checkpoint_minutes", minutes, 0, ONLY_AT_END, low_allowed=True)
    directory = work_directory(run.model_dir)
    note_resume(None)
    found = None
    if continues(run.model_dir, resume) and run.group.rank == 0:
        found = find_checkpoint(_checkpoints_of(run.model_dir), run)
        if found is None:
            run.progress.milestone(
                f"No checkpoint in {directory}: the training starts from the beginning"
            )
    found = _shared(run, found)
    identity = _identity(run, graph, plan, seed)
    if init_from is not None:
        identity[ORIGIN] = _record_of(Path(init_from), start, found, run.model_dir)
    identity = _same_everywhere(run, identity)
    num_epochs = plan.settings.num_epochs
    checkpoints = Checkpoints.of(directory, identity, minutes, num_epochs, found)
    if found is None:
        return checkpoints, None
    is_complete = found.path.parent == run.model_dir
    if is_complete:
        written = _written_with(run.model_dir)
        paths = output_files(run.output)
        is_complete = all(path.exists() and file_sha256(path) in written for path in paths)
    (is_complete, *_) = run.group.gather(is_complete)
    if found.finished_epochs == num_epochs and is_complete:
        run.progress.milestone(
            f"The run is finished: {run.output} and {run.model_dir} have all {num_epochs} epochs"
        )
        return checkpoints, _stats_of(run) if run.group.rank == 0 else {}
    _announce(run, found, checkpoints)
    return checkpoints, None


def continues(model_dir: Path, resume: bool) -> bool:
    """Return whether a run continues an earlier one: as asked, or as torchrun has restarted it."""
    unfinished = (work_directory(model_dir), model_dir)
    return resume or (is_restart() and any(newest_first(path) for path in unfinished))


def has_checkpoint(run: Run, resume: bool) -> bool:
    """Return whether a run continues from a checkpoint; the first of several processes decides."""
    found = run.group.rank == 0 and continues(run.model_dir, resume)
    return bool(run.group.gather(found and bool(_checkpoints_of(run.model_dir)))[0])


def run_of_origin(directory: Path) -> str:
    """Return the id of the run of an earlier model, or the hash of its weights if it lacks an id.

    Raises:
        InputError: the model directory is damaged, or of a later version.
    """
    run = run_of_model(directory)
    return file_sha256(directory / WEIGHTS_FILE) if run is None else run


def keep_last_checkpoint(run: Run, checkpoints: Checkpoints) -> None:
    """Move the last checkpoint of a finished run to its model directory, for a longer training.

    The directory in which the run worked is removed.
    """
    # They move with the directory in which the run worked, if that becomes the model directory.
    for directory in (checkpoints.directory, run.model_dir):
        for index, path in enumerate(newest_first(directory)):
            if index == 0:
                os.replace(path, run.model_dir / CHECKPOINT_FILE)
            else:
                path.unlink(missing_ok=True)
    remove_run_dir(checkpoints.directory)
    note_resume(None)


def remove_run_dir(directory: Path) -> None:
    """Remove the checkpoints and the history in the directory of a run; keep other files."""
    for path in (*newest_first(directory), directory / "history.csv"):
        path.unlink(missing_ok=True)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _checkpoints_of(model_dir: Path) -> list[Path]:
    """Return the checkpoints of an unfinished run and of the finished model, the newest first."""
    finished = model_dir / CHECKPOINT_FILE
    return [
        *newest_first(work_directory(model_dir)),
        *newest_first(model_dir),  # of a run that was stopped in the fit of its ranker
        *([finished] if finished.exists() else []),
    ]


def _identity(run: Run, graph: KnowledgeGraph, plan: Plan, seed: int) -> dict[str, Any]:
    """Return what a continued run must share with the earlier run, to end in the same bytes."""
    settings = {k: v for k, v in asdict(plan.settings).items() if k != "num_epochs"}
    backend = plan.backend
    return {
        "model": plan.settings.model,
        **settings,
        "vector_rate": kind_of(plan.settings.model).vector_rate,
        "seed": seed,
        "vocabulary": json.loads(json.dumps(asdict(graph.vocabulary))),
        "graph": content_sha256(graph),
        "device": run.device.type,
        "kernels": backend.kernels,
        "product_dtype": str(backend.product_dtype(torch.float32)),
        "version": version("clinical-drug-discovery"),
        "torch": torch.__version__,
    }


def _record_of(
    directory: Path, start: WarmStart | None, found: Found | None, model_dir: Path
) -> Any:
    """Return the record of an earlier model, for the identity of a run that starts from it.

    A run that continues has it in its checkpoint. The earlier model may be gone then, or replaced
    by this run. If it is still there, it must be the same.
    """
    if found is None:
        return None if start is None else dict(start.record)
    stored = found.identity.get(ORIGIN)
    is_there = (directory / CONFIG_FILE).exists() and directory.resolve() != model_dir.resolve()
    if not isinstance(stored, dict) or (is_there and run_of_origin(directory) != stored["run"]):
        return {"run": run_of_origin(directory)} if is_there else str(directory)
    return stored


def _shared(run: Run, found: Found | None) -> Found | None:
    """Return the checkpoint that the first process has found, in all others without tensors."""
    record = None
    if found is not None:
        record = {**asdict(replace(found, tensors={})), "path": str(found.path)}
    record = run.group.gather(record)[0]
    if run.group.rank == 0 or record is None:
        return found
    return Found(**{**record, "path": Path(record["path"]), "cycles": tuple(record["cycles"])})


def _same_everywhere(run: Run, identity: dict[str, Any]) -> dict[str, Any]:
    """Check that all processes train the same model on the same graph, and return what they share.

    Raises:
        InputError: a value of another process differs.
    """
    identity = json.loads(json.dumps(identity))
    for rank, other in enumerate(run.group.gather(identity)):
        for name, value in identity.items():
            if other[name] != value:
                raise InputError(
                    f"{name} (got {shown(value)}) must be the same in all processes, but process "
                    f"{rank} has {shown(other[name])}"
                )
    return identity


def _announce(run: Run, found: Found, checkpoints: Checkpoints) -> None:
    """Say where the training continues."""
    note_resume(f"a checkpoint of epoch {found.finished_epochs} is in {found.path.parent}")
    more = ""
    if len(checkpoints.cycles) > len(found.cycles):
        rate = run.learning_rate * LATER_FRACTION
        more = f"; {checkpoints.cycles[-1]} more epochs start at a learning rate of {rate:g}"
    run.progress.milestone(
        f"Continuing from {found.path}, after epoch {found.finished_epochs} of "
        f"{sum(checkpoints.cycles)}{more}"
    )


def _stats_of(run: Run) -> dict[str, Any]:
    """Return the record of the finished run in the model directory.

    Raises:
        InputError: the record is missing or damaged.
    """
    path = run.model_dir / "stats.json"
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
        if set(stats) != {field.name for field in fields(EmbeddingStats)}:
            raise ValueError("it has other keys")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not the record of a finished run ({error}): start again with overwrite "
            "(--overwrite) and without resume"
        ) from None
    return {**stats, "output_file": str(run.output), "model_dir": str(run.model_dir)}
