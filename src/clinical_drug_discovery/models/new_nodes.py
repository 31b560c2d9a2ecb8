"""Input vectors for nodes that a trained model does not know: those of their neighbors.

GraphSAGE and HGT have a learned input vector for each node of the training (`node_embedding`). The
layers work on any graph with the same types ("inductive", arXiv:1706.02216, section 3), so a new
node needs only an input vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..graph.adjacency import adjacency
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..ops.buffers import zeros
from .initialisation import row_ranges

BoolArray = npt.NDArray[np.bool_]


def vectors_with_new_nodes(
    graph: KnowledgeGraph, vectors: Tensor, number: IntArray
) -> tuple[Tensor, IntArray]:
    """Return input vectors for all nodes of a graph, given those of the known nodes.

    Args:
        graph: the edges that the model reads, on the CPU.
        vectors: shape (K, C), the vectors of the known nodes.
        number: shape (K,), the number of each known node in the graph.

    Returns:
        The vectors, shape (N, C); and the nodes that no path joins to a known node, see
        `fill_new_nodes`.
    """
    known = np.zeros(graph.num_nodes, bool)
    known[number] = True
    table = vectors.new_zeros(graph.num_nodes, vectors.shape[1])
    table[torch.from_numpy(number)] = vectors
    return table, fill_new_nodes(graph, table, known)


def fill_new_nodes(graph: KnowledgeGraph, table: Tensor, known: BoolArray) -> IntArray:
    """Write the input vectors of new nodes into a table that has those of the known nodes.

    The vector of a new node is the mean over its edge types of the mean vectors of its known
    neighbors of this type, each scaled to length 1. Edge types count equally, as in
    `structural_vectors`. It is scaled to the mean length of the known vectors of its own node type.
    New nodes that only have new neighbors follow in the next round, with the vectors of these.

    Peak memory: a row for each new node, and 24 bytes per edge of the largest type.

    Args:
        graph: the edges that the model reads, on the CPU.
        table: shape (N, C), on the CPU; changed in place.
        known: shape (N,), true for the nodes whose rows are given.

    Returns:
        The nodes that no path joins to a known node, ascending. Their vectors are 0.
    """
    known = known.copy()
    lengths = _lengths(graph, table, known)
    missing: IntArray = np.flatnonzero(~known)
    for part in _parts(missing):
        table[torch.from_numpy(part)] = 0  # so that they add nothing to a sum over neighbors
    while len(missing):
        total = zeros(table, len(missing), table.shape[1])
        for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
            (first, stop), (low, high) = map(graph.node_range, (src_type, dst_type))
            of_type = slice(*np.searchsorted(missing, (low, high)).tolist())
            if of_type.start == of_type.stop:
                continue
            links = adjacency(graph, graph.edge_types[graph.reverse_edge_type[r]])
            sources, sums = table[first:stop].numpy(), total[of_type]
            for rows in row_ranges(0, len(sums)):
                near = links[missing[of_type][rows] - low] @ sources
                sums[rows] += functional.normalize(torch.from_numpy(near), dim=1)
        found = (total != 0).any(dim=1).numpy()
        if not found.any():
            break
        for part in _parts(np.flatnonzero(found)):
            unit = functional.normalize(total[torch.from_numpy(part)], dim=1)
            nodes = torch.from_numpy(missing[part])
            table[nodes] = unit * lengths[nodes][:, None]
        missing = missing[~found]
    return missing


def _parts(rows: IntArray) -> Iterator[IntArray]:
    """Yield a few thousand rows at a time."""
    for part in row_ranges(0, len(rows)):
        yield rows[part]


def _lengths(graph: KnowledgeGraph, table: Tensor, known: BoolArray) -> Tensor:
    """Return for each node the mean length of the known vectors of its type, shape (N,).

    A type without known nodes gets the mean of all.
    """
    every = table.norm(dim=1)
    lengths = torch.empty_like(every)
    for first, stop in pairwise(graph.type_offsets):
        of_type = every[first:stop][torch.from_numpy(known[first:stop])]
        lengths[first:stop] = of_type.mean() if len(of_type) else every[known].mean()
    return lengths
