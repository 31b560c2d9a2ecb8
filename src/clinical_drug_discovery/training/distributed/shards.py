"""The state of a training that several processes share: node tables divided by rows, and copies.

Learned vectors and the moments of Adam for them are tables with a row per node. Each process owns a
range of their rows. All other weights and moments are the same in all processes. Files are read and
written by the first process alone, and do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ...models.kinds.interface import TrainableModel
from ...models.layers import DistMult
from ...system.group.interface import Group
from ...system.group.rows import Rows

# Tensors of a checkpoint that are divided by rows, if the training is on subgraphs.
_TABLES = {
    "model/node_embedding",
    *(f"optimizer/vectors.{m}" for m in ("mean", "square", "num_steps")),
}


class Shards:
    """The division of the node tables of a training among its processes."""

    def __init__(self, group: Group, num_nodes: int) -> None:
        """Divide the rows equally.

        Args:
            group: the processes.
            num_nodes: number of rows of each table.
        """
        self.group, self.rows = group, Rows(group, num_nodes)

    def divide_model(self, model: TrainableModel, decoder: DistMult) -> None:
        """Give the weights of the first process to all, and to each its rows of the node table."""
        if self.group.size == 1:
            return
        table = model.node_embedding.detach()
        own = self.rows.divide(table if self.group.rank == 0 else None, table)
        _set_table(model, own)
        for weight in chain(model.parameters(), decoder.parameters()):
            if weight is not model.node_embedding:
                self.group.copy(weight.detach())

    def complete_model(self, model: TrainableModel) -> None:
        """Give the whole node table to all processes, for inference."""
        if self.group.size > 1:
            _set_table(model, self.rows.whole(model.node_embedding.detach()))

    def shape(self, name: str, own: Tensor) -> torch.Size:
        """Return the shape of a tensor of a checkpoint, given that of this process."""
        return torch.Size([self.rows.num_rows, *own.shape[1:]]) if name in _TABLES else own.shape

    def collect(self, name: str, own: Tensor) -> Tensor:
        """Return a tensor for a checkpoint; only that of the first process is complete."""
        return self.rows.collect(own) if name in _TABLES else own

    def divide(self, name: str, found: Mapping[str, Tensor], own: Tensor) -> Tensor:
        """Return what this process needs of a tensor that the first process has found.

        Args:
            name: of the tensor.
            found: tensors by name; those of the other processes are ignored.
            own: the tensor that will be replaced.
        """
        is_first = self.group.rank == 0
        if name in _TABLES:
            return self.rows.divide(found[name] if is_first else None, own)
        # A mapped file cannot be written to, and torch does not know that the source only reads.
        tensor = found[name].clone() if is_first and self.group.size > 1 else found.get(name, own)
        if not is_first:
            tensor = torch.empty_like(own)
        self.group.copy(tensor)
        return tensor


def _set_table(model: TrainableModel, table: Tensor) -> None:
    module: Any = model
    module.node_embedding = nn.Parameter(table)
