"""The collapse check: do all embeddings of a node type point in the same direction?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..graph.knowledge_graph import KnowledgeGraph
from ..system.errors import check_shape

_CHECK_EVERY = 10  # epochs between two checks: a check takes half a second on PrimeKG
CHECKED_ROWS = 8192  #: rows converted to float64 at a time
_MIN_NODES = 10
_HIGH_COSINE = 0.8
_LOW_RANK, _LOW_RANK_FRACTION = 1.5, 0.02

Collapse = dict[str, dict[str, float | None]]  #: mean_cosine and effective_rank of each type


def collapse_by_type(
    embeddings: Tensor, type_ptr: Sequence[int], node_type_names: Sequence[str]
) -> Collapse:
    """Compute how similar the embeddings of each node type are to each other.

    `mean_cosine` is the mean cosine over all pairs of different nodes of the type. It is 1 if all
    embeddings point in the same direction. `effective_rank` is exp(entropy) of the normalized
    singular values of the type's rows (Roy and Vetterli, EUSIPCO 2007, eq. 3), between 1 and
    min(number of nodes, D). Rows are not centered, so a common direction lowers the rank.

    Args:
        embeddings: shape (M, D), ordered by type, on the CPU.
        type_ptr: the rows of type t are type_ptr[t]:type_ptr[t + 1].
        node_type_names: names of the T types.

    Returns:
        mean_cosine (None with fewer than two rows) and effective_rank (None without rows) of each
        node type.
    """
    check_shape("embeddings", embeddings, type_ptr[-1], None)
    return {
        name: _collapse(embeddings[start:stop])
        for name, (start, stop) in zip(node_type_names, pairwise(type_ptr), strict=True)
    }


def collapse_warnings(collapse: Collapse, graph: KnowledgeGraph, embedding_dim: int) -> list[str]:
    """Return a warning for each node type whose embeddings have collapsed, with the likely cause.

    A type of at least 10 nodes has collapsed if mean_cosine >= 0.8, or if
    effective_rank <= max(1.5, 2% of the largest possible rank).

    Args:
        collapse: result of `collapse_by_type` for all nodes.
        graph: on the CPU.
        embedding_dim: D.
    """
    texts = []
    degree = graph.degree
    for (name, figures), (start, stop) in zip(
        collapse.items(), pairwise(graph.type_ptr.tolist()), strict=True
    ):
        cosine, rank = figures["mean_cosine"], figures["effective_rank"]
        if stop - start < _MIN_NODES or cosine is None or rank is None:
            continue
        low_rank = max(_LOW_RANK, _LOW_RANK_FRACTION * min(stop - start, embedding_dim))
        if cosine < _HIGH_COSINE and rank > low_rank:
            continue
        cause = "learning_rate is too high for this graph"
        if degree[start:stop].median() <= 1:
            cause = (
                "at least half of its nodes have at most one edge, so they are hard to tell apart"
            )
        texts.append(
            f"embeddings of node type {name!r} have collapsed (mean_cosine {cosine:.2f}, "
            f"effective_rank {rank:.1f}); likely cause: {cause}"
        )
    return texts


def _collapse(rows: Tensor) -> dict[str, float | None]:
    num_rows, dim = rows.shape
    if num_rows == 0:
        return {"mean_cosine": None, "effective_rank": None}
    # Both figures come from a vector (D,) and a matrix (D, D), without a loop over pairs of nodes;
    # few rows have a smaller matrix (n, n) with the same singular values.
    direction = torch.zeros(dim, dtype=torch.float64)
    size = min(num_rows, dim)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for chunk in rows.split(CHECKED_ROWS if size == dim else num_rows):
        wide = chunk.double()
        gram += wide.t() @ wide if size == dim else wide @ wide.t()
        direction += functional.normalize(wide, dim=1, out=wide).sum(dim=0)
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    fraction = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny)
    entropy = -torch.special.xlogy(fraction, fraction).sum()
    # |sum of unit vectors|^2 is the sum of cosines over all ordered pairs and pairs (i, i).
    pairs = num_rows * (num_rows - 1)
    to_itself = int(rows.any(dim=1).sum())  # cosines of (i, i): 1 each, but 0 for a row of zeros
    cosine = ((direction @ direction).item() - to_itself) / pairs if pairs else None
    return {"mean_cosine": cosine, "effective_rank": float(entropy.exp())}


def check_batch(
    z: Tensor, rows: Tensor, graph: KnowledgeGraph, epoch: int, num_epochs: int
) -> dict[str, float | None]:
    """Compute the collapse of a batch's embeddings in the first, every tenth and the last epoch.

    Args:
        z: shape (M, D), embeddings.
        rows: shape (M,), the node of each embedding, ascending, on the CPU.
        graph: on the CPU.
        epoch: counted from 1.
        num_epochs: number of the last epoch.

    Returns:
        "mean_cosine.<type>" and "effective_rank.<type>" for each node type; empty in other epochs.
    """
    if epoch not in (1, num_epochs) and epoch % _CHECK_EVERY:
        return {}
    row_ptr = np.searchsorted(rows.numpy(), graph.type_ptr.numpy()).tolist()
    collapse = collapse_by_type(z.detach().cpu(), row_ptr, graph.node_type_names)
    return {f"{name}.{kind}": value for kind, f in collapse.items() for name, value in f.items()}
