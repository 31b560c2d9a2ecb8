"""The terms of a step's loss that compare nodes of one type, and the weight of link prediction.

loss = 0.3 ((1 - w) link + w contrastive) + 0.5 (near drugs + near diseases + votes)

Link prediction alone makes embeddings whose neighbors know little of treatments: less than the
input vectors. w is HGT's contrastive weight; GraphSAGE has w = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...models.kinds.interface import Contrast, Settings
from ...system.errors import counted
from ...system.progress import Run
from ..edge_sampler import RandomSampler
from ..memory_plan import Plan
from .disease_pairs import PairSampler, compared_by_genes, shared_neighbor_jaccard
from .near_pairs import NearPairSampler
from .similarity_losses import contrastive_loss, near_loss, nearness_loss, vote_loss
from .treatment_votes import TreatmentSampler, has_treatments

_LINK, _NEAR, _VOTES = 0.3, 0.5, 0.5


@dataclass(frozen=True)
class Term:
    """A term of the loss of one step."""

    name: str  #: of its value in the history; values of one name are added, and share the weight
    weight: float
    nodes: Tensor  #: shape (K,), int64, on the CPU: nodes of the graph, which may repeat
    loss: Callable[[Tensor], Tensor]  #: of the embeddings of these nodes, shape (K, D)


def nodes_of(terms: Sequence[Term]) -> Tensor:
    """Return the nodes of all terms, one term after the other."""
    return torch.cat([torch.empty(0, dtype=torch.int64), *(term.nodes for term in terms)])


@dataclass(frozen=True)
class Terms:
    """Draws the terms of each step."""

    near: NearPairSampler
    num_near: Mapping[str, int]  #: near pairs of each node type in a step
    near_names: Mapping[str, str]  #: names of their losses in the history, by node type
    treatments: TreatmentSampler | None  #: None without two treated diseases
    pairs: PairSampler | None  #: similar diseases; None without such edges or contrast
    num_pairs: int = 0  #: pairs of similar diseases in a step
    contrastive_weight: float = 0.0  #: w
    temperature: float = 1.0  #: of the contrastive term

    @property
    def link_weight(self) -> float:
        """The factor of the loss of link prediction."""
        return _LINK * (1 - self.contrastive_weight)

    @property
    def samplers(self) -> dict[str, RandomSampler]:
        """The samplers by name, for a checkpoint."""
        found = {"near": self.near, "treatments": self.treatments, "pairs": self.pairs}
        return {name: sampler for name, sampler in found.items() if sampler is not None}

    def sample(self) -> list[Term]:
        """Draw the terms of a step."""
        terms = []
        for node_type, number in self.num_near.items():
            near = self.near.sample(node_type, number)
            # Few pairs of a small type may all join a node to itself.
            if len(near.left):
                name, loss = self.near_names[node_type], partial(near_loss, pairs=near)
                terms.append(Term(name, _NEAR, near.nodes, loss))
        if self.treatments is not None:
            known = self.treatments.sample()
            asked = [(known.voters, vote_loss)]
            asked += [(known.drugs, nearness_loss)] if known.has_several else []
            for nodes, loss_of in asked:
                terms.append(Term("vote_loss", _VOTES, nodes, partial(loss_of, batch=known)))
        if self.pairs is not None and self.contrastive_weight:
            pairs = self.pairs.sample(self.num_pairs)
            loss = partial(contrastive_loss, pairs=pairs, temperature=self.temperature)
            weight = _LINK * self.contrastive_weight
            terms.append(Term("contrastive_loss", weight, pairs.nodes, loss))
        return terms


def make_terms(run: Run, graph: KnowledgeGraph, settings: Settings, plan: Plan, seed: int) -> Terms:
    """Return the terms that a graph and the settings allow; warn if the contrast is left out.

    Args:
        run: receives warnings.
        graph: on the CPU, with its treatments.
        settings: already checked.
        plan: the plan for this graph and these settings.
        seed: seed of the sampling.
    """
    words = graph.vocabulary
    names = {words.drug_type: "near_drug_loss", words.disease_type: "near_disease_loss"}
    near = NearPairSampler(graph, list(names), seed)
    treatments = TreatmentSampler(graph, plan.num_parts, seed) if has_treatments(graph) else None
    sizes = {name: len(range(*node_range_of(graph, name))) for name in near.node_types}
    num_near = {name: plan.compared.near(size) for name, size in sizes.items()}
    terms = Terms(near, num_near, names, treatments, None)
    contrast = settings.contrast
    if contrast is None:
        return terms
    pairs = _similar_diseases(run, graph, contrast, seed)
    weight = _contrastive_weight(run, pairs, contrast.weight, plan.num_pairs)
    return replace(
        terms, pairs=pairs, num_pairs=plan.num_pairs, contrastive_weight=weight,
        temperature=contrast.temperature,
    )  # fmt: skip


def _similar_diseases(
    run: Run, graph: KnowledgeGraph, contrast: Contrast, seed: int
) -> PairSampler | None:
    """Return the pairs of similar diseases; if the graph lacks the edges, warn and return None."""
    names, threshold = compared_by_genes(graph), contrast.similarity_threshold
    jaccard = shared_neighbor_jaccard(graph, **names)
    if jaccard is None:
        run.warn(
            f"the graph lacks facts of disease_gene_relation {names['relation']!r} between "
            f"disease_type {names['node_type']!r} and gene_type {names['neighbor_type']!r}, so the "
            "model is trained without its contrastive term"
        )
        return None
    first, _ = node_range_of(graph, names["node_type"])
    pairs = PairSampler(jaccard, first, threshold, seed)
    run.progress.milestone(
        f"{counted(pairs.num_similar_pairs, 'pair')} of similar {names['node_type']!r} nodes "
        f"(their {names['neighbor_type']!r} neighbors have a Jaccard index of at least "
        f"{threshold:g}); {counted(pairs.num_held_out_nodes, 'node is', 'nodes are')} held out for "
        f"measurement, and {counted(pairs.num_pairs, 'pair remains', 'pairs remain')} for training"
    )
    return pairs


def _contrastive_weight(
    run: Run, pairs: PairSampler | None, weight: float, batch_size: int
) -> float:
    """Return the weight of the contrastive term; if no pair has negatives, warn and return 0."""
    if pairs is None or weight == 0:
        return 0.0
    if not pairs.has_negatives(batch_size):
        run.warn(
            f"the contrastive loss lacks negatives, so the model is trained without it: "
            f"{pairs.num_pairs:,} of {pairs.num_similar_pairs:,} pairs of similar diseases remain "
            f"without the held-out diseases, and a step has {batch_size:,} pairs (edge_sample_size)"
        )
        return 0.0
    return weight
