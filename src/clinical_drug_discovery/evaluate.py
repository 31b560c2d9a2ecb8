"""Are the embeddings worth anything? So far: have they collapsed?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.runtime import check_shape

_CHUNK_ROWS = 8192


def collapse_by_type(
    embeddings: Tensor, graph: KnowledgeGraph
) -> dict[str, dict[str, float | None]]:
    """How alike the embeddings of each node type are.

    `mean_cosine` is the mean over all pairs of different nodes of the type: 1 when all point the
    same way. `effective_rank` is exp(entropy) of the normalised singular values of the type's rows
    (Roy and Vetterli, EUSIPCO 2007, eq. 3), not centred, so that one shared direction counts as
    what it is: between 1 and min(number of nodes, D).

    Args:
        embeddings: shape (N, D), on the CPU.
        graph: gives each type's range of rows.

    Returns:
        For each node type mean_cosine (None for a type with one node) and effective_rank.
    """
    check_shape("embeddings", embeddings, graph.num_nodes, None)
    bounds = graph.type_ptr.tolist()
    return {
        name: _collapse(embeddings[start:stop])
        for name, start, stop in zip(graph.node_type_names, bounds, bounds[1:], strict=False)
    }


def _collapse(rows: Tensor) -> dict[str, float | None]:
    num_rows, dim = rows.shape
    # Both figures come from a D-vector and a (D, D) matrix: no pair of nodes is ever formed.
    direction = torch.zeros(dim, dtype=torch.float64)
    gram = torch.zeros(dim, dim, dtype=torch.float64)
    for chunk in rows.split(_CHUNK_ROWS):
        wide = chunk.double()
        direction += functional.normalize(wide, dim=1).sum(dim=0)
        gram += wide.t() @ wide
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny)
    entropy = -torch.special.xlogy(share, share).sum()
    # |sum of unit vectors|^2 counts every ordered pair, and each node with itself.
    pairs = num_rows * (num_rows - 1)
    to_itself = int(rows.any(dim=1).sum())  # 1 each, but 0 for a row of zeros
    cosine = ((direction @ direction).item() - to_itself) / pairs if pairs else None
    return {"mean_cosine": cosine, "effective_rank": float(entropy.exp())}
