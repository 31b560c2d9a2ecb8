"""Padding on GPUs, so that shapes stay the same from step to step.

Metal compiles an operation for each new shape of the arguments, and torch never frees the compiled
operations: memory grew from 9 MB to 13.7 GB in one epoch with 315 different shapes
(https://github.com/pytorch/pytorch/issues/181485). CUDA's libraries search for an algorithm for
each new shape. So these devices pad three sizes that differ between batches: the rows of a batch,
the edges of a subgraph, and the chunks of edges into a batch's rows. The CPU does not pad.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

DEVICE_TYPES: tuple[str, ...] = ("mps", "cuda")  #: devices that need fixed shapes
Counts = npt.NDArray[np.integer]
_LEAST_EDGES = 64  # edges of the smallest padded chunk


def needs_fixed_shapes(device: torch.device) -> bool:
    """Return whether a device prepares operations for each new shape."""
    return device.type in DEVICE_TYPES


class FixedSizes:
    """Padded sizes that only grow. Each grows with a reserve, so that it soon stops growing."""

    def __init__(self, limits: Counts) -> None:
        """Start with sizes of 0.

        Args:
            limits: the largest value of each size.
        """
        self._limits = limits
        self._sizes = np.zeros_like(limits)

    def fit(self, counts: Counts) -> Counts:
        """Return sizes that are at least `counts` and not below those of earlier calls.

        Args:
            counts: same shape as `limits`; no count may exceed its limit.
        """
        # The reserve is 10%, or 4 standard deviations of a Poisson count if that is more.
        room = counts + np.maximum(0.1 * counts, 4 * np.sqrt(counts))
        room = (-(-room // 64) * 64).astype(np.int64)
        grown = np.minimum(room, self._limits)
        self._sizes = np.where(counts > self._sizes, grown, self._sizes)
        return self._sizes


def filled_size(count: int, most: int, device: torch.device) -> int:
    """Return the padded size of a chunk of `count` edges.

    On GPUs this is a power of two or `most`, so at most log2(most) different sizes occur.

    Args:
        count: between 1 and `most`.
        most: edges in a full chunk.
        device: the chunk's device; the CPU does not pad.
    """
    if not needs_fixed_shapes(device):
        return count
    return min(most, max(_LEAST_EDGES, 1 << (count - 1).bit_length()))
