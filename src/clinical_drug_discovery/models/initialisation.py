"""Initial weights, and initial node vectors that reflect the graph's structure.

The vectors are random projections of powers of the adjacency matrix, after "Fast and Accurate
Network Embeddings via Very Sparse Random Projection" (FastRP, arXiv:1908.11512), eq. 2 to 4. All
edge types have equal weight: otherwise 1,000 edges of one type would outweigh a drug's one target.
Nodes with the same neighbors start with similar vectors. Training from random vectors does not
bring drugs of one class together within 100 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ..graph.adjacency import adjacency, power, scale, sparse_links
from ..graph.knowledge_graph import KnowledgeGraph
from ..ops.buffers import empty, zeros
from .walk_vectors import walk_vectors

_OWN = 0.25  # weight of a node's own random vector, which keeps all nodes distinct
LINKED = 0.5  #: least share of the nodes of a type that a hierarchy links
_NEAR = 0.5  # weight of neighbors, if the type has a hierarchy; walks along it have 1
_ROWS = 8_192  # rows per chunk


def structural_vectors(graph: KnowledgeGraph, dim: int, generator: torch.Generator) -> Tensor:
    """Return `projected_vectors`, to which types with a hierarchy add `walk_vectors` along it.

    Peak memory: that of `projected_vectors`, or one array of the result's size and the vectors of
    the walks of one type.

    Args:
        graph: on the CPU.
        dim: length of a vector.
        generator: draws the random vectors.

    Returns:
        shape (N, dim), float32. Each row has length sqrt(dim).
    """
    vectors = projected_vectors(graph, dim, generator)
    for t, (first, stop) in enumerate(pairwise(graph.type_offsets)):
        if (links := sparse_links(graph, graph.node_type_names[t], LINKED)) is not None:
            walks = walk_vectors(links, dim, generator)
            for part in row_ranges(first, stop):
                own = _unit(walks[part.start - first : part.stop - first])
                vectors[part] = own + _NEAR * _unit(vectors[part])
            del walks
        for part in row_ranges(first, stop):
            vectors[part] = _unit(vectors[part]).mul_(dim**0.5)
    return vectors


def projected_vectors(graph: KnowledgeGraph, dim: int, generator: torch.Generator) -> Tensor:
    """Return random vectors of all nodes, summed over neighbors and neighbors' neighbors (FastRP).

    Peak memory: three arrays of the result's size, and 8 bytes per edge of the largest type.

    Args:
        graph: on the CPU.
        dim: length of a vector.
        generator: draws the random vectors.

    Returns:
        shape (N, dim), float32. The mean of each node type is 0.
    """
    own = _normal(graph.num_nodes, dim, generator)
    near = _step(graph, own)
    far = _step(graph, near)
    for first, stop in pairwise(graph.type_offsets):
        for part in row_ranges(first, stop):
            near[part] += far[part] + _OWN * _unit(own[part])
        # Subtract the type's mean, which all its nodes share. Numpy sums in the same order for any
        # number of threads.
        if stop - first > 1:
            shared = near[first:stop].numpy().mean(axis=0, dtype=np.float64)
            near[first:stop] -= torch.from_numpy(shared).float()
    return near


def row_ranges(first: int, stop: int) -> Iterator[slice]:
    """Yield the ranges of a few thousand rows each that cover the range from first to stop."""
    for start in range(first, stop, _ROWS):
        yield slice(start, min(start + _ROWS, stop))


def _step(graph: KnowledgeGraph, x: Tensor) -> Tensor:
    """Sum x over the neighbors of each edge type, normalize the sums, add them, and normalize.

    Neighbors with many edges get a smaller weight. Nodes without edges get 0.
    """
    total = zeros(x, *x.shape)
    for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
        links = adjacency(graph, graph.edge_types[graph.reverse_edge_type[r]])  # targets by sources
        every = np.ones(links.shape[0], np.float32)
        weighted = scale(links, every, power(links.sum(axis=0)))
        sources = x[slice(*graph.node_range(src_type))].numpy()
        first, stop = graph.node_range(dst_type)
        for part in row_ranges(first, stop):
            sums = weighted[part.start - first : part.stop - first] @ sources
            total[part] += _unit(torch.from_numpy(sums))
    for part in row_ranges(0, len(total)):
        total[part] = _unit(total[part])
    return total


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


def node_vectors(num_nodes: int, dim: int, generator: torch.Generator) -> nn.Parameter:
    """Return a learned vector per node, at first normally distributed, shape (num_nodes, dim).

    With a scratch directory, many vectors lie in a file (`ops.buffers.large_in_files`).
    """
    return nn.Parameter(_normal(num_nodes, dim, generator))


def _normal(num_rows: int, dim: int, generator: torch.Generator) -> Tensor:
    return empty(torch.empty(0), num_rows, dim).normal_(generator=generator)


def uniform(shape: tuple[int, ...], in_dim: int, generator: torch.Generator) -> Tensor:
    """Draw uniform weights of variance 1 / in_dim, so that a map keeps the variance of inputs."""
    bound = (3.0 / in_dim) ** 0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
