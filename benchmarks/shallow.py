"""DistMult, ComplEx and RotatE, which learn one vector per node: models that a GNN has to beat.

Each edge type has its own relation vector, and so has its reverse ("reciprocal relations", Lacroix
et al., arXiv:1806.07297). The loss is a softmax of each target among sampled nodes of its type.
DistMult and ComplEx have the N3 penalty of the same paper. RotatE (Sun et al., arXiv:1902.10197)
rotates complex numbers and scores by distance, without a penalty. The optimizer is Adagrad. Edge
types are sampled by the square root of their size, as in the training of the GNNs.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.graph.knowledge_graph import (
    EdgeType,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.training.edge_sampler import divide_equally

DISTMULT, COMPLEX, ROTATE = KINDS = ("DistMult", "ComplEx", "RotatE")
BATCH, NEGATIVES = 8192, 1024
LEARNING_RATE, PENALTY, FIRST_STD = 0.1, 2e-3, 0.1
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt, from malloc.h


class Shallow(nn.Module):
    """One vector per node and per edge type. A complex vector is stored as (real, imaginary).

    With q = query(s, r): DistMult and ComplEx score by <q, t>, RotatE by -|q - t|.
    """

    def __init__(self, graph: KnowledgeGraph, dim: int, kind: str, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        num_relations = len(graph.edge_types)
        nodes = FIRST_STD * torch.randn(graph.num_nodes, dim, generator=generator)
        if kind == ROTATE:  # angles
            relations = math.pi * (2 * torch.rand(num_relations, dim // 2, generator=generator) - 1)
        else:
            relations = 1 + FIRST_STD * torch.randn(num_relations, dim, generator=generator)
        self.nodes = nn.Embedding.from_pretrained(nodes, freeze=False, sparse=True)
        self.relations = nn.Embedding.from_pretrained(relations, freeze=False)
        self.kind = kind

    def query(self, source: Tensor, relation: Tensor) -> Tensor:
        """Return s r. For complex vectors, its inner product with t is Re(s r conj(t))."""
        if self.kind == DISTMULT:
            return source * relation
        a, b = source.chunk(2, dim=-1)
        if self.kind == ROTATE:
            c, d = relation.cos(), relation.sin()
        else:
            c, d = relation.chunk(2, dim=-1)
        return torch.cat([a * c - b * d, a * d + b * c], dim=-1)

    def scores(self, query: Tensor, targets: Tensor) -> Tensor:
        """Return the scores of all pairs, shape (number of queries, number of targets)."""
        products = query @ targets.T
        if self.kind != ROTATE:
            return products
        squares = query.square().sum(dim=1, keepdim=True) + targets.square().sum(dim=1)
        return -(squares - 2 * products).clamp_min(1e-12).sqrt()

    def own_scores(self, query: Tensor, target: Tensor) -> Tensor:
        """Return the score of each query and its own target, shape (number of queries, 1)."""
        if self.kind != ROTATE:
            return (query * target).sum(dim=1, keepdim=True)
        return -(query - target).square().sum(dim=1, keepdim=True).clamp_min(1e-12).sqrt()

    def size(self, x: Tensor) -> Tensor:
        """Return the sum of the cubed moduli of each row."""
        if self.kind == COMPLEX:
            a, b = x.chunk(2, dim=-1)
            x = (a * a + b * b + 1e-12).sqrt()
        return x.abs().pow(3).sum(dim=-1)


def train_shallow(
    graph: KnowledgeGraph,
    *,
    kind: str,
    seconds: float,
    dim: int = 128,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Shallow:
    """Train a model of `KINDS` for some seconds of a clock. The learning rate falls to 0."""
    _keep_freed_buffers()
    torch.sparse.check_sparse_tensor_invariants.disable()  # an explicit choice avoids a warning
    start, steps = clock(), 0
    model = Shallow(graph, dim, kind, seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adagrad(model.parameters(), LEARNING_RATE)
    sizes = divide_equally(graph.edge_type_counts, BATCH)
    while (passed := (clock() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - passed)
        optimizer.zero_grad()
        loss = torch.stack([_loss(model, graph, r, size, rng) for r, size in enumerate(sizes)])
        torch.autograd.backward(loss.sum() / sum(sizes))
        optimizer.step()
        steps += 1
    print(f"{kind}: {steps} steps in {seconds:.0f} s", flush=True)
    return model


def _keep_freed_buffers() -> None:
    """Make the C heap keep freed memory. Clearing it again took a third of the training."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # only in glibc
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def shallow_ranker(graph: KnowledgeGraph, model: Shallow) -> Callable[[IntArray], Scores]:
    """Return a function that scores all drugs for diseases by both directions of an indication."""
    indication = EdgeType(PRIMEKG.drug_type, PRIMEKG.indication, PRIMEKG.disease_type)
    forth = graph.edge_types.index(indication)
    span = node_range_of(graph, PRIMEKG.drug_type)

    @torch.no_grad()
    def scores_of(diseases: IntArray) -> Scores:
        z, relations = model.nodes.weight, model.relations.weight
        asked, drugs = z[torch.from_numpy(diseases)], z[slice(*span)]
        # Add both directions, since each has its own relation vector.
        back = model.scores(model.query(asked, relations[graph.reverse_edge_type[forth]]), drugs)
        scores: Scores = (
            back + model.scores(model.query(drugs, relations[forth]), asked).T
        ).numpy()
        return scores

    return scores_of


def _loss(
    model: Shallow, graph: KnowledgeGraph, r: int, size: int, rng: np.random.Generator
) -> Tensor:
    """Return the loss of some edges of type r: the target against sampled nodes, plus penalty."""
    if not size:
        return torch.zeros(())
    edges = rng.choice(int(graph.edge_type_counts[r]), size, replace=False)
    first, stop = graph.node_range(graph.endpoint_types[r][1])
    indptr = graph.indptr_of(r).numpy()
    dst = first + np.searchsorted(indptr - indptr[0], edges, side="right") - 1
    drawn = rng.integers(first, stop, NEGATIVES)
    src = torch.from_numpy(graph.src_of(r).numpy()[edges].astype(np.int64))
    source, target, others = (
        model.nodes(nodes) for nodes in (src, torch.from_numpy(dst), torch.from_numpy(drawn))
    )
    relation = model.relations(torch.tensor([r]))
    query = model.query(source, relation)
    logits = model.scores(query, others)
    logits = logits.masked_fill(torch.from_numpy(dst[:, None] == drawn), -torch.inf)
    truth = torch.zeros(size, dtype=torch.int64)
    logits = torch.cat([model.own_scores(query, target), logits], dim=1)
    loss: Tensor = functional.cross_entropy(logits, truth, reduction="sum")
    if model.kind == ROTATE:
        return loss
    cubes = model.size(source).sum() + model.size(target).sum() + size * model.size(relation).sum()
    total: Tensor = loss + PENALTY * cubes
    return total
