"""The map: the embeddings of one node type in two dimensions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...graph.knowledge_graph import node_range_of
from ...system.machine import one_thread
from ...system.processes import alone
from .open_model import OpenModel

_KEPT_MAPS = 8  # maps that are kept; one of 28,000 nodes takes 0.3 MB
_BLOCK = 8192  # rows that are multiplied at a time


class Maps:
    """The maps of one model, each made when it is first asked for."""

    def __init__(self, opened: OpenModel) -> None:
        self._opened = opened
        self.positions = lru_cache(_KEPT_MAPS)(self._positions)

    def _positions(self, node_type: str) -> bytes:
        """Return the map of a type as little-endian bytes.

        The bytes are n node numbers (int32), then n pairs of coordinates from -1 to 1 (float32).
        Nodes without facts are left out, because their embeddings say nothing.
        """
        opened = self._opened
        nodes, values = opened.model.embeddings(node_type)
        first, stop = node_range_of(opened.graph, node_type)
        with_facts = opened.graph.degree.numpy()[first:stop] > 0
        numbers = nodes["node_index"].to_numpy()[with_facts]
        with alone(), one_thread(True):  # half the CPU time of two threads, on a busy computer, too
            places = principal_plane(values[with_facts])
        return numbers.astype("<i4").tobytes() + places.astype("<f4").tobytes()


def principal_plane(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the first two principal components of the directions of n vectors, shape (n, 2).

    Cosines compare directions, so each vector first gets the length 1. The components come from the
    covariance of the D dimensions, which costs n * D^2 operations: 0.15 s for 23,000 vectors of 512
    numbers, in float32 within a block. The largest coordinate is 1 or -1, and the signs are those
    of the largest weights, so that the same vectors always give the same picture.
    """
    if not len(values):
        return np.empty((0, 2), np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(lengths > 0, lengths, 1)
    unit -= unit.mean(axis=0)
    covariance = np.zeros((values.shape[1], values.shape[1]))
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        covariance += block.T @ block
    axes = np.linalg.eigh(covariance)[1][:, :-3:-1]  # of the two largest eigenvalues
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    places = unit @ axes.astype(np.float32)
    largest = np.abs(places).max()
    scaled: npt.NDArray[np.float32] = (places / (largest if largest > 0 else 1)).astype(np.float32)
    return scaled
