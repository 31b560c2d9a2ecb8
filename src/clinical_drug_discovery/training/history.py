"""The history of a training: losses, time and collapse figures of each epoch, and divergence."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..graph.knowledge_graph import KnowledgeGraph
from ..models.collapse import check_batch
from ..system.errors import InputError
from ..system.progress import Run
from .edge_sampler import NUM_CANDIDATES
from .objective.link_loss import CENTRING

# The largest link loss of a model that knows nothing: all scores are equal, and all embeddings of a
# type are equal. Good runs stay below it; when a run diverges, its loss rises far above.
_KNOWS_NOTHING = math.log(1 + NUM_CANDIDATES) + CENTRING
_FINITE_NUMBERS = 1 << 22  # numbers per test for NaN and infinity: a test copies them

History = list[dict[str, Any]]  #: one record per epoch


class TrainingRecord:
    """Collects the losses, the time and the collapse figures of each epoch.

    It also knows the position of the training: the number of finished epochs, and of the steps of
    the current epoch.
    """

    def __init__(
        self,
        run: Run,
        graph: KnowledgeGraph,
        num_epochs: int,
        num_steps: int,
        weights: Iterable[tuple[str, Tensor]],
        *,
        is_linked: bool = True,
    ) -> None:
        """Start the clock of the first epoch.

        Args:
            run: provides the learning rate and the growing file of the history; measures the peak
                memory of the device.
            graph: on the CPU.
            num_epochs: number of epochs.
            num_steps: number of steps in an epoch.
            weights: names and tensors, searched for the first NaN or infinity if the loss diverges.
            is_linked: the link loss is a part of the loss; False: its size is not checked.
        """
        self.history: History = []
        self.num_epochs, self._num_steps = num_epochs, num_steps
        self.ended_early: str | None = None  #: the reason, if so
        self.seconds_before = 0.0  #: training time of the runs that this one continues
        self._run, self._graph, self.weights = run, graph, list(weights)
        self._is_linked = is_linked
        self._start = time.perf_counter()
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._collapse: dict[str, float | None] = {}

    @property
    def is_finished(self) -> bool:
        """True after the last step of the last epoch, or after `end_early`."""
        return self.ended_early is not None or len(self.history) >= self.num_epochs

    @property
    def epoch(self) -> int:
        """Number of the current epoch, from 1."""
        return len(self.history) + 1

    @property
    def num_done(self) -> int:
        """Number of steps that are done."""
        return len(self.history) * self._num_steps + len(self._losses.get("loss", ()))

    def after_forward(self, z: Tensor, rows: Tensor, losses: Mapping[str, float]) -> None:
        """Check the losses of a step, and in the epoch's first step run `check_batch`.

        It runs before the weights change, so that the weights of a diverging training stay finite.

        Args:
            z: shape (M, D), embeddings of the batch.
            rows: shape (M,), nodes of the batch.
            losses: of this step.

        Raises:
            InputError: a loss is NaN or infinite.
        """
        # The terms first: their sum is named "loss".
        for name in sorted(losses, key=lambda name: name == "loss"):
            if not math.isfinite(losses[name]):
                self._stop_for(name, losses[name], z)
        if not self._losses and not self._collapse:  # the first part of the epoch's first step
            self._collapse = check_batch(z, rows, self._graph, self.epoch, self.num_epochs)

    def after_backward(self) -> None:
        """Measure the memory of the device while the gradients exist."""
        self._run.peak.sample()

    def add(self, losses: Mapping[str, float]) -> bool:
        """Add the mean losses of one step; return True if this step ends an epoch.

        Raises:
            InputError: the mean link loss of the epoch is more than twice that of a model that
                knows nothing.
        """
        for name, value in losses.items():
            self._losses[name].append(value)
        if len(self._losses["loss"]) < self._num_steps:
            return False
        means = {name: fmean(values) for name, values in self._losses.items()}
        if self._is_linked and means["link_loss"] > 2 * _KNOWS_NOTHING:
            raise InputError(
                f"{self._too_high()}: the link_loss of epoch {self.epoch} is "
                f"{means['link_loss']:.3g}; a model that knows nothing has at most "
                f"{_KNOWS_NOTHING:.2g}. {self._advice()}"
            )
        seconds = time.perf_counter() - self._start
        record = {"epoch": self.epoch, **means, "seconds": seconds, **self._collapse}
        self.history.append(record)
        self._losses.clear()
        self._collapse = {}
        self._start = time.perf_counter()
        self._run.history.append(record)
        return True

    def end_early(self, reason: str) -> None:
        """End the training after the current epoch; after the last one, there is nothing to end."""
        if not self.is_finished:
            self.ended_early = f"{reason} after epoch {len(self.history)} of {self.num_epochs}"
            self._run.progress.milestone(f"The training ends early: {self.ended_early}")

    @property
    def note(self) -> str:
        """The loss of the last epoch, for the progress line."""
        return f"loss {self.history[-1]['loss']:.4f}"

    def state_dict(self) -> dict[str, Any]:
        """Return the history and the figures of the current epoch."""
        return {
            "history": list(self.history),
            "losses": {name: list(values) for name, values in self._losses.items()},
            "collapse": dict(self._collapse),
            "seconds": time.perf_counter() - self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same training, and write its history to the growing file.

        Raises:
            ValueError: the state is not that of a training with so many epochs and steps.
        """
        history, losses = list(state["history"]), dict(state["losses"])
        if [row["epoch"] for row in history] != list(range(1, len(history) + 1)):
            raise ValueError("the epochs of the history are not 1, 2, ...")
        numbers = [value for values in losses.values() for value in values]
        numbers += [row[name] for row in history for name in ("loss", "seconds")]
        numbers.append(state["seconds"])
        values = [value for row in history for value in row.values()]
        if not all(value is None or isinstance(value, int | float) for value in values):
            raise ValueError("the history does not consist of numbers")
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError("the losses are not finite numbers")
        # A step may lack a term: few near pairs of a small type may all join a node to itself.
        steps, most = len(losses.get("loss", ())), max(map(len, losses.values()), default=0)
        if most > steps or steps >= self._num_steps:
            raise ValueError(f"the losses are not those of less than {self._num_steps} steps")
        if len(history) > self.num_epochs:
            raise ValueError(f"the history has more than {self.num_epochs} epochs")
        self.history = history
        self._losses = defaultdict(list, losses)
        self._collapse = dict(state["collapse"])
        self._start = time.perf_counter() - state["seconds"]
        self.seconds_before = state["seconds"] + sum(row["seconds"] for row in history)
        for record in self.history:
            self._run.history.append(record)

    def _stop_for(self, name: str, value: float, z: Tensor) -> None:
        where = next((n for n, tensor in self.weights if not is_finite(tensor)), None)
        if where is None:
            where = "the embeddings of the batch" if not is_finite(z) else "the loss itself"
        raise InputError(
            f"{self._too_high()}: the {name} of epoch {self.epoch} is {value} in step "
            f"{self.num_done % self._num_steps + 1}; the first NaN or infinity is in {where}. "
            f"{self._advice()}"
        )

    def _too_high(self) -> str:
        return f"learning_rate (got {self._run.learning_rate}) is too high"

    def _advice(self) -> str:
        return f"Start again with a lower one, such as {self._run.learning_rate / 10:g}"


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds neither NaN nor infinity, in bounded memory."""
    rows = torch.atleast_1d(tensor.detach())[..., None].flatten(1)
    size = max(_FINITE_NUMBERS // max(rows.shape[1], 1), 1)
    return all(bool(torch.isfinite(part).all()) for part in rows.split(size))
