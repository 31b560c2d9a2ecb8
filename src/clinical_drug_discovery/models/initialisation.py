"""Initial weights, and initial vectors of the nodes that reflect the graph's structure.

The vectors are random projections of the graph's powers, after "Fast and Accurate Network
Embeddings via Very Sparse Random Projection" (FastRP, arXiv:1908.11512), eq. 2 to 4. Each edge type
counts equally: otherwise the 1,000 genes that share a drug's effects would outweigh its one target.
Nodes with the same neighbors start with similar vectors. From random vectors, 100 steps of training
do not bring drugs of one class together.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..graph.adjacency import adjacency, power, scale
from ..graph.knowledge_graph import KnowledgeGraph

_OWN = 0.25  # weight of a node's own random vector: no two nodes get the same result
_ROWS = 8_192  # rows normalized at a time


def structural_vectors(graph: KnowledgeGraph, dim: int, generator: torch.Generator) -> Tensor:
    """Return sums of random vectors over neighbors and over neighbors' neighbors.

    Peak memory: three arrays of the result's size, and 8 bytes for each edge of a type.

    Args:
        graph: on the CPU.
        dim: length of a vector.
        generator: draws the random vectors.

    Returns:
        shape (N, dim), float32, each row of length sqrt(dim).
    """
    own = torch.randn(graph.num_nodes, dim, generator=generator)
    near = _step(graph, own)
    far = _step(graph, near)
    for first, stop in pairwise(graph.type_offsets):
        for start in range(first, stop, _ROWS):
            part = slice(start, min(start + _ROWS, stop))
            near[part] += far[part] + _OWN * _unit(own[part])
        # The mean of a type tells none of its nodes apart. Numpy sums in one order, whatever the
        # number of threads.
        if stop - first > 1:
            shared = near[first:stop].numpy().mean(axis=0, dtype=np.float64)
            near[first:stop] -= torch.from_numpy(shared).float()
        own[first:stop] = _unit(near[first:stop]).mul_(dim**0.5)
    return own


def _step(graph: KnowledgeGraph, x: Tensor) -> Tensor:
    """Sum x over neighbors, normalized to length 1 for each edge type and then in all.

    Neighbors of high degree get a smaller weight. Nodes without edges get 0.
    """
    total = torch.zeros_like(x)
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        links = adjacency(graph, graph.edge_types[graph.reverse_edge_type[r]])  # targets by sources
        every = np.ones(links.shape[0], np.float32)
        sums = (
            scale(links, every, power(links.sum(axis=0)))
            @ x[slice(*graph.node_range(src_type))].numpy()
        )
        total[slice(*graph.node_range(dst_type))] += _unit(torch.from_numpy(sums))
    return _unit(total)


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


def uniform(shape: tuple[int, ...], in_dim: int, generator: torch.Generator) -> Tensor:
    """Draw uniform weights that keep the variance of an input of `in_dim` numbers."""
    bound = (3.0 / in_dim) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
