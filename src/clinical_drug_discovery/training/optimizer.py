"""The optimizer: Adam, and a lazy Adam for the input vectors of sampled subgraphs.

`torch.optim` is not used, because its first use imports a compiler that takes 70 MB of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.kinds.interface import TrainableModel
from ..models.layers import DistMult
from ..ops.buffers import lies_in_file, read_ahead, rows_in_any_order, zeros
from ..system.group.interface import ALONE, Group
from ..system.group.rows import Asked, Rows
from .schedule import learning_rate_fraction

_CHUNK = 1 << 18  # numbers that are updated at a time, so that temporaries stay in the CPU's cache
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_LAST = 37_500  # updates after which the bias corrections are 1, also in float64


class Adam:
    """Adam: algorithm 1 of "Adam: A Method for Stochastic Optimization" (arXiv:1412.6980).

    The updates equal those of `torch.optim.Adam` with its default constants.
    """

    def __init__(self, weights: Iterable[Tensor], learning_rate: float) -> None:
        self._weights = list(weights)
        self._moments = [(zeros(w, *w.shape), zeros(w, *w.shape)) for w in self._weights]
        self._learning_rate = learning_rate
        self._num_steps = 0

    @torch.no_grad()
    def step(self, fraction: float = 1.0) -> None:
        """Update every weight that has a gradient, and set all gradients to None.

        The next forward pass then has the memory of the gradients.

        Args:
            fraction: factor of the learning rate, from the schedule.
        """
        self._num_steps += 1
        size = fraction * self._learning_rate / (1 - _BETA1**self._num_steps)
        root = (1 - _BETA2**self._num_steps) ** 0.5
        for weight, moments in zip(self._weights, self._moments, strict=True):
            grad, weight.grad = weight.grad, None
            if grad is None:
                continue
            whole = (t.view(-1) for t in (weight.detach(), grad.contiguous(), *moments))
            chunks = zip(*(t.split(_chunk_size(t)) for t in whole), strict=True)
            for values, grad, mean, square in chunks:
                mean.lerp_(grad, 1 - _BETA1)
                square.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
                values.addcdiv_(mean, square.sqrt().div_(root).add_(_EPS), value=-size)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of each weight (not copied) and the number of steps."""
        state: dict[str, Any] = {"num_steps": self._num_steps}
        for index, (mean, square) in enumerate(self._moments):
            state[f"mean.{index}"], state[f"square.{index}"] = mean, square
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same weights."""
        for index, (mean, square) in enumerate(self._moments):
            mean.copy_(state[f"mean.{index}"])
            square.copy_(_not_negative(state[f"square.{index}"]))
        self._num_steps = _whole(state["num_steps"])


class LazyAdam:
    """`Adam` for a table of which each step uses some rows; all other rows stay unchanged.

    Unlike in `torch.optim.SparseAdam`, the bias correction of a row uses the number of updates of
    this row. With the number of all steps, a late first update of a row would be too small.

    The table can be divided by rows among several processes. Then each process holds the moments of
    its own rows, fetches the rows that it needs, and returns their gradients.

    If the table lies in a file, a second file has a record of 4 C numbers for each row: its vector,
    both moments, and C unused numbers, so that a record seldom lies on two pages. A step then reads
    and writes one page for a row instead of three: the disk's pages, not its bytes, limit the
    speed. The table itself is updated by `write_back`. Each time that a checkpoint is saved, the
    whole file is read seven times.
    """

    def __init__(self, table: Tensor, learning_rate: float, rows: Rows | None = None) -> None:
        """Set all moments and step counts to 0.

        Args:
            table: shape (N, C), or the rows of this process; `step` changes it in place, or, if it
                lies in a file, `write_back`.
            learning_rate: learning rate before the schedule's factor.
            rows: the division of the table; None: this process has all rows.
        """
        self._rows = Rows(ALONE, len(table)) if rows is None else rows
        self._table, self._learning_rate = table, learning_rate
        if lies_in_file(table):
            width = table.shape[1]
            records = zeros(table, len(table), 4 * width)
            self._values, self._mean, self._square, _ = records.split(width, dim=1)
        else:
            self._values = table
            self._mean, self._square = zeros(table, *table.shape), zeros(table, *table.shape)
        self._num_steps = table.new_zeros(len(table), 1)
        self._fill()
        self._is_ahead = False  # the values have changed since `write_back`
        self._corrections = _corrections(table)
        self._chunk = _chunk_size(table)
        self._taken: list[tuple[Asked, Tensor]] = []

    def take(self, rows: Tensor) -> Tensor:
        """Return a copy of some rows. The backward pass must set its gradient before `step`.

        A step may consist of several calls, whose gradients are added.

        Args:
            rows: shape (n,), int64, distinct row numbers of the whole table, ascending.
        """
        with rows_in_any_order(self._values):
            read_ahead(self._values, rows)
            values, asked = self._rows.fetch(self._values, rows)
        self._taken.append((asked, values.requires_grad_()))
        return values

    @torch.no_grad()
    def step(self, fraction: float = 1.0) -> None:
        """Update the rows that were taken since the last step.

        Args:
            fraction: factor of the learning rate, from the schedule.
        """
        if not self._taken:
            raise RuntimeError("no rows were taken since the last step")
        taken, self._taken = [(asked, values.grad) for asked, values in self._taken], []
        found = [(asked, grad) for asked, grad in taken if grad is not None]
        if len(found) < len(taken):
            raise RuntimeError("the rows that were taken lack a gradient")
        rows, gradient = self._rows.give_back(found)
        with rows_in_any_order(self._values):
            self._update(rows, gradient, fraction * self._learning_rate)
        self._is_ahead = True

    def _update(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        num_steps = self._num_steps[rows] + 1
        self._num_steps[rows] = num_steps
        size = max(self._chunk // gradient.shape[1], 1)
        for at, grad, count in zip(
            *(part.split(size) for part in (rows, gradient, num_steps)), strict=True
        ):
            mean = self._mean[at].lerp_(grad, 1 - _BETA1)
            square = self._square[at].mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
            self._mean[at], self._square[at] = mean, square
            of_mean, of_square = self._corrections[count[:, 0].clamp(max=_LAST).long()].split(1, 1)
            spread = square.div_(of_square).sqrt_().add_(_EPS)
            move = mean.div_(of_mean).div_(spread)
            self._values[at] = self._values[at].sub_(move, alpha=learning_rate)

    def _fill(self) -> None:
        """Copy the table into the records. In memory, both are one tensor, and nothing is copied.

        Pages that are written in order lie in memory in blocks of up to 128 KiB. A change of one
        row would later write its whole block to the disk. So the pages are made one by one.
        """
        with rows_in_any_order(self._values):
            self._values.copy_(self._table)

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the table up to date."""
        if self._is_ahead:
            self._table.copy_(self._values)
            self._is_ahead = False

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and the number of steps of each row (not copied)."""
        return {"mean": self._mean, "square": self._square, "num_steps": self._num_steps}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of a table of the same shape; the table already has its vectors."""
        self._fill()
        self._mean.copy_(state["mean"])
        self._square.copy_(_not_negative(state["square"]))
        self._num_steps.copy_(_not_negative(state["num_steps"]))


def _corrections(like: Tensor) -> Tensor:
    """Return the bias corrections of both moments for each number of updates, shape (n, 2).

    The last bit of a power in torch depends on its place in the tensor, so a row that another
    process owns would get another one. A table also spares GPUs a wait for the distinct counts.
    """
    return like.new_tensor([(1 - _BETA1**count, 1 - _BETA2**count) for count in range(_LAST + 1)])


def _chunk_size(values: Tensor) -> int:
    """Return the number of values to update at a time: all on a GPU, to launch few operations."""
    return _CHUNK if values.device.type == "cpu" else max(values.numel(), 1)


class ModelOptimizer:
    """Adam for all weights of a model and its decoder, with cosine decay of the learning rate.

    The input vectors have a learning rate of their own. Adam moves each number by about the
    learning rate in a step. The numbers of an input vector are near 1 at first, those of a map of
    256 columns near 1/16, so at an equal rate the vectors would change 16 times less. "Adafactor"
    (arXiv:1804.04235), section 8, makes steps relative to the scale of the weights for this reason.
    """

    def __init__(
        self,
        model: TrainableModel,
        decoder: DistMult,
        learning_rate: float,
        num_steps: int,
        *,
        lazy: bool,
        vector_rate: float = 1.0,
        later_steps: Sequence[int] = (),
        group: Group = ALONE,
        rows: Rows | None = None,
    ) -> None:
        """Prepare the first step.

        Args:
            model: on the device.
            decoder: on the device.
            learning_rate: learning rate of the first step.
            num_steps: number of steps in the whole training, or in its first cycle.
            lazy: use `LazyAdam` for the input vectors; for training on subgraphs.
            vector_rate: learning rate of the input vectors, as a multiple of `learning_rate`.
            later_steps: number of steps of each later cycle, see `learning_rate_fraction`.
            group: the processes whose gradients are added.
            rows: the division of the input vectors among them; see `LazyAdam`.
        """
        self._table, self._group = model.node_embedding, group
        others = [w for w in (*model.parameters(), *decoder.parameters()) if w is not self._table]
        rate = learning_rate * vector_rate
        self._lazy = LazyAdam(self._table.detach(), rate, rows) if lazy else None
        of_vectors = self._lazy or Adam([self._table], rate)
        self._parts = {"weights": Adam(others, learning_rate), "vectors": of_vectors}
        self._shared = others if lazy else [self._table, *others]  # have gradients of all processes
        self._step, self._cycles = 0, (num_steps, *later_steps)

    def vectors(self, nodes: Tensor | None) -> Tensor:
        """Return the input vectors of `nodes`, shape (n, C); None returns those of all nodes."""
        if nodes is None or self._lazy is None:
            return self._table
        return self._lazy.take(nodes)

    def step(self) -> None:
        """Add the gradients of all processes, update all weights, and set the gradients to None."""
        self._group.sum([w.grad for w in self._shared if w.grad is not None])
        fraction = learning_rate_fraction(self._step, self._cycles)
        self._step += 1
        for part in self._parts.values():
            part.step(fraction)

    def write_back(self) -> None:
        """Bring the model's input vectors up to date; see `LazyAdam`."""
        if self._lazy is not None:
            self._lazy.write_back()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimizers and the position in the schedule.

        The state belongs to the model's weights, so it first brings them up to date.
        """
        self.write_back()
        state = {
            f"{name}.{key}": value
            for name, part in self._parts.items()
            for key, value in part.state_dict().items()
        }
        return {"step": self._step, **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of the same model and the same kind of training."""
        for name, part in self._parts.items():
            start = f"{name}."
            part.load_state_dict(
                {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            )
        self._step = _whole(state["step"])


def _whole(value: Any) -> int:
    """Return a number of steps from a saved state, or raise ValueError."""
    if type(value) is not int or value < 0:
        raise ValueError(f"a number of steps (got {value!r}) must be a whole number")
    return value


def _not_negative(tensor: Tensor) -> Tensor:
    """Return a tensor of a saved state, or raise ValueError if a number is negative."""
    if bool((tensor < 0).any()):
        raise ValueError("a mean of squares or a number of steps is negative")
    return tensor
