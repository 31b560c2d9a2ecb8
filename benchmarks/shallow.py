"""DistMult and ComplEx, which learn one vector per node: models that a GNN has to beat.

Each edge type has its own relation vector, and so has its reverse ("reciprocal relations", Lacroix
et al., arXiv:1806.07297). The loss is a softmax of each target among sampled nodes of its type,
with the N3 penalty of the same paper. The optimizer is Adagrad. Edge types are sampled by the
square root of their size, as in the training of the GNNs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clinical_drug_discovery.graph.knowledge_graph import (
    EdgeType,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.graph.vocabulary import PRIMEKG
from clinical_drug_discovery.ranking.gnn_scores import Scores
from clinical_drug_discovery.training.edge_sampler import divide_equally

BATCH, NEGATIVES = 8192, 1024
LEARNING_RATE, PENALTY, FIRST_STD = 0.1, 2e-3, 0.1


class Shallow(nn.Module):
    """score(s, r, t) = <query(s, r), t>, for real or complex vectors."""

    def __init__(self, graph: KnowledgeGraph, dim: int, is_complex: bool, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = graph.num_nodes, len(graph.edge_types)
        nodes, relations = (FIRST_STD * torch.randn(n, dim, generator=generator) for n in sizes)
        self.nodes = nn.Embedding.from_pretrained(nodes, freeze=False, sparse=True)
        self.relations = nn.Embedding.from_pretrained(relations + 1, freeze=False)
        self.is_complex = is_complex

    def query(self, source: Tensor, relation: Tensor) -> Tensor:
        """Return s r. The score is its inner product with t, or Re(s r conj(t)) if complex."""
        if not self.is_complex:
            return source * relation
        (a, b), (c, d) = source.chunk(2, dim=-1), relation.chunk(2, dim=-1)
        return torch.cat([a * c - b * d, a * d + b * c], dim=-1)

    def size(self, x: Tensor) -> Tensor:
        """Return the sum of the cubed moduli of each row."""
        if self.is_complex:
            a, b = x.chunk(2, dim=-1)
            x = (a * a + b * b + 1e-12).sqrt()
        return x.abs().pow(3).sum(dim=-1)


def train_shallow(
    graph: KnowledgeGraph, *, is_complex: bool, seconds: float, dim: int = 128, seed: int = 0
) -> Callable[[IntArray], Scores]:
    """Train for some seconds; returns a function that scores all drugs for diseases."""
    torch.sparse.check_sparse_tensor_invariants.disable()  # an explicit choice avoids a warning
    model = Shallow(graph, dim, is_complex, seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adagrad(model.parameters(), LEARNING_RATE)
    sizes = divide_equally(graph.edge_type_counts, BATCH)
    start, steps = time.perf_counter(), 0
    while (passed := (time.perf_counter() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - passed)
        optimizer.zero_grad()
        loss = torch.stack([_loss(model, graph, r, size, rng) for r, size in enumerate(sizes)])
        torch.autograd.backward(loss.sum() / sum(sizes))
        optimizer.step()
        steps += 1
    print(
        f"{'ComplEx' if is_complex else 'DistMult'}: {steps} steps in {seconds:.0f} s", flush=True
    )
    indication = EdgeType(PRIMEKG.drug_type, PRIMEKG.indication, PRIMEKG.disease_type)
    forth = graph.edge_types.index(indication)
    span = node_range_of(graph, PRIMEKG.drug_type)

    @torch.no_grad()
    def scores_of(diseases: IntArray) -> Scores:
        z, relations = model.nodes.weight, model.relations.weight
        asked, drugs = z[torch.from_numpy(diseases)], z[slice(*span)]
        # Add both directions, since each has its own relation vector.
        back = model.query(asked, relations[graph.reverse_edge_type[forth]]) @ drugs.T
        scores: Scores = (back + asked @ model.query(drugs, relations[forth]).T).numpy()
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
    own = (query * target).sum(dim=1, keepdim=True)
    logits = query @ others.T
    logits = logits.masked_fill(torch.from_numpy(dst[:, None] == drawn), -torch.inf)
    truth = torch.zeros(size, dtype=torch.int64)
    loss = functional.cross_entropy(torch.cat([own, logits], dim=1), truth, reduction="sum")
    cubes = model.size(source).sum() + model.size(target).sum() + size * model.size(relation).sum()
    total: Tensor = loss + PENALTY * cubes
    return total
