"""Input vectors for nodes that a trained model does not know: those of their neighbors.

GraphSAGE and HGT have a learned input vector for each node of the training (`node_embedding`). The
layers work on any graph with the same types ("inductive", arXiv:1706.02216, section 3), so a new
node needs only an input vector.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..graph.adjacency import adjacency
from ..graph.knowledge_graph import IntArray, KnowledgeGraph


def vectors_with_new_nodes(
    graph: KnowledgeGraph, vectors: Tensor, number: IntArray
) -> tuple[Tensor, IntArray]:
    """Return input vectors for all nodes of a graph, given those of the known nodes.

    The vector of a new node is the mean over its edge types of the mean vectors of its known
    neighbors of this type, each scaled to length 1. Edge types count equally, as in
    `structural_vectors`. It is scaled to the mean length of the known vectors of its own node type.
    New nodes that only have new neighbors follow in the next round, with the vectors of these.

    Args:
        graph: the edges that the model reads, on the CPU.
        vectors: shape (K, C), the vectors of the known nodes.
        number: shape (K,), the number of each known node in the graph.

    Returns:
        The vectors, shape (N, C); and the nodes that no path joins to a known node. Their vectors
        are 0.
    """
    known = np.zeros(graph.num_nodes, bool)
    known[number] = True
    result = vectors.new_zeros(graph.num_nodes, vectors.shape[1])
    result[torch.from_numpy(number)] = vectors
    lengths = _lengths(graph, result, known)
    while not known.all():
        total = torch.zeros_like(result[~known])
        missing = np.flatnonzero(~known)
        for r, (src_type, dst_type) in enumerate(graph.endpoint_types):
            (first, stop), (low, high) = map(graph.node_range, (src_type, dst_type))
            of_type = (missing >= low) & (missing < high)
            if not of_type.any():
                continue
            links = adjacency(graph, graph.edge_types[graph.reverse_edge_type[r]])
            links = links[missing[of_type] - low]
            sums = links @ (result[first:stop].numpy() * known[first:stop, None])
            total[torch.from_numpy(of_type)] += functional.normalize(torch.from_numpy(sums), dim=1)
        found = (total != 0).any(dim=1).numpy()
        if not found.any():
            break
        new = missing[found]
        unit = functional.normalize(total[torch.from_numpy(found)], dim=1)
        result[torch.from_numpy(new)] = unit * lengths[torch.from_numpy(new)][:, None]
        known[new] = True
    return result, np.flatnonzero(~known)


def _lengths(graph: KnowledgeGraph, vectors: Tensor, known: np.ndarray) -> Tensor:
    """Return for each node the mean length of the known vectors of its type, shape (N,).

    A type without known nodes gets the mean of all.
    """
    every = vectors.norm(dim=1)
    lengths = torch.empty_like(every)
    for first, stop in pairwise(graph.type_offsets):
        of_type = every[first:stop][torch.from_numpy(known[first:stop])]
        lengths[first:stop] = of_type.mean() if len(of_type) else every[known].mean()
    return lengths
