"""Calls after each epoch of a training: the function of a user, and a tracker of experiments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..models.kinds.interface import Settings
from ..system.arguments import plain
from ..system.errors import InputError, shown
from ..system.progress import Run

#: Gets a copy of each row of the history. It returns True or "stop" to end the training after this
#: epoch, and None or False to go on.
EpochHook = Callable[[dict[str, Any]], Any]
STOP = "stop"


class Tracker(Protocol):
    """Writes the figures of a training to another program."""

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write the figures of one epoch."""

    def close(self, is_finished: bool) -> None:
        """End the record, as that of a finished or of a failed run."""


class TensorBoard:
    """Event files in the directory `<model_dir>.tensorboard`, for the program TensorBoard."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any]) -> None:
        self._make = import_module("torch.utils.tensorboard").SummaryWriter
        self._directory = model_dir.with_name(f"{model_dir.name}.tensorboard")
        self._settings = settings
        self._writer: Any = None

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write the figures; the first call hides those of an earlier run from this epoch on."""
        if self._writer is None:
            self._writer = self._make(str(self._directory), purge_step=epoch)
            self._writer.add_text("settings", str(dict(self._settings)), epoch)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, is_finished: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class MlFlow:
    """A run of MLflow, at the place that MLFLOW_TRACKING_URI names, or the caller's active run."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any]) -> None:
        self._mlflow = import_module("mlflow")
        self._is_ours = self._mlflow.active_run() is None
        if self._is_ours:
            self._mlflow.start_run(run_name=model_dir.name)
        self._mlflow.log_params(dict(settings))

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write the figures; MLflow allows few characters in a name."""
        allowed = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in figures.items()}
        self._mlflow.log_metrics(allowed, step=epoch)

    def close(self, is_finished: bool) -> None:
        """End the run, unless it is the caller's."""
        if self._is_ours:
            self._mlflow.end_run("FINISHED" if is_finished else "FAILED")


class WandB:
    """A run of Weights & Biases, with the settings of its environment, or the caller's run."""

    def __init__(self, model_dir: Path, settings: Mapping[str, Any]) -> None:
        self._wandb = import_module("wandb")
        self._is_ours = self._wandb.run is None
        self._run = self._wandb.init(name=model_dir.name) if self._is_ours else self._wandb.run
        self._run.config.update(dict(settings))

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write the figures."""
        self._run.log({"epoch": epoch, **figures})

    def close(self, is_finished: bool) -> None:
        """End the run, unless it is the caller's."""
        if self._is_ours:
            self._run.finish(exit_code=0 if is_finished else 1)


#: Value of `tracker`: the class, and the package that it needs.
TRACKERS: dict[str, tuple[Callable[[Path, Mapping[str, Any]], Tracker], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "mlflow": (MlFlow, "mlflow"),
    "wandb": (WandB, "wandb"),
}


@contextmanager
def hooks(
    run: Run, settings: Settings, on_epoch: EpochHook | None, tracker: str | None
) -> Iterator[EpochHook]:
    """Open a tracker for a `with` block; yield the function to call after each epoch.

    A tracker that cannot be opened is refused before the training. One that fails later is a
    warning, because hours of training are worth more than its figures.

    Args:
        run: provides the model directory, whose name the tracker shows; receives the warning.
        settings: the tracker shows them.
        on_epoch: function of the user, or None.
        tracker: a key of `TRACKERS`, or None.

    Raises:
        InputError: the tracker cannot be opened, or `on_epoch` returns something else than it may.
    """
    if run.group.rank:  # the first process speaks for all
        on_epoch = tracker = None
    opened = None if tracker is None else _open(tracker, run, settings)
    open_ones = [] if opened is None else [opened]

    def after_epoch(record: dict[str, Any]) -> bool:
        for one in list(open_ones):
            figures = {k: v for k, v in record.items() if k != "epoch" and v is not None}
            try:
                one.log(record["epoch"], figures)
            except Exception as error:  # of another package: a full disk, a lost connection
                run.warn(f"tracker {tracker} gets no more figures: {_reason(error)}")
                open_ones.remove(one)
        return on_epoch is not None and _wants_stop(on_epoch(dict(record)))

    is_finished = False
    try:
        yield after_epoch
        is_finished = True
    finally:
        if opened is not None:
            try:
                opened.close(is_finished)
            except Exception as error:  # as above
                run.warn(f"tracker {tracker} was not closed: {_reason(error)}")


def _open(name: str, run: Run, settings: Settings) -> Tracker:
    make, package = TRACKERS[name]
    try:
        return make(run.model_dir, {"model": settings.model, **asdict(settings)})
    except ImportError as error:
        raise InputError(
            f"tracker (got {name!r}) needs the package {package}, which cannot be imported "
            f"({_reason(error)}): pip install {package}"
        ) from None
    except Exception as error:  # of another package: an unknown address, no key
        raise InputError(f"tracker (got {name!r}) cannot be opened: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _wants_stop(answer: Any) -> bool:
    answer = plain(answer)
    if answer is None or answer is False:
        return False
    if answer is True or answer == STOP:
        return True
    raise InputError(
        f"on_epoch (returned {shown(answer)}) must return True or 'stop' to end the training, or "
        "None or False to go on"
    )
