"""Sizes that stay the same from step to step, for GPUs.

Metal compiles an operation for each shape of its arguments, and torch keeps what was compiled for
ever: with shapes that differ in every batch, 9 MB became 13.7 GB in one epoch of 315 shapes
(https://github.com/pytorch/pytorch/issues/181485). CUDA's libraries search for an algorithm for
each shape. So on these devices everything that differs between batches is filled up: the rows of a
batch, the edges of a subgraph, and the chunks of edges into a batch's rows. The CPU takes any
shape, and nothing is filled up there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

DEVICE_TYPES: tuple[str, ...] = ("mps", "cuda")  #: devices that prepare operations for each shape
Counts = npt.NDArray[np.integer]
_LEAST_EDGES = 64


def needs_fixed_shapes(device: torch.device) -> bool:
    """Return whether operations are prepared for each shape on a device."""
    return device.type in DEVICE_TYPES


class FixedSizes:
    """Sizes that only grow, with room to spare, so that they soon stop growing."""

    def __init__(self, limits: Counts) -> None:
        """Start with sizes of 0.

        Args:
            limits: the largest size of each kind.
        """
        self._limits = limits
        self._sizes = np.zeros_like(limits)

    def fit(self, counts: Counts) -> Counts:
        """Return sizes of at least `counts`, and at least those returned before.

        Args:
            counts: shape of `limits`, and none above its limit.
        """
        # 10% more, or 4 standard deviations of a count of independent draws.
        room = counts + np.maximum(0.1 * counts, 4 * np.sqrt(counts))
        room = (-(-room // 64) * 64).astype(np.int64)
        grown = np.minimum(room, self._limits)
        self._sizes = np.where(counts > self._sizes, grown, self._sizes)
        return self._sizes


def filled_size(count: int, most: int, device: torch.device) -> int:
    """Return the size of a chunk that holds `count` edges.

    On GPUs that is a power of two, so that there are at most log2(most) sizes.

    Args:
        count: at least 1 and at most `most`.
        most: edges in a full chunk.
        device: of the chunk.
    """
    if not needs_fixed_shapes(device):
        return count
    return min(most, max(_LEAST_EDGES, 1 << (count - 1).bit_length()))
