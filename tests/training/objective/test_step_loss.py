"""The loss of a step gives the gradients that autograd gives its formula."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from backends import TORCH
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.training.batches import make_batches
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
from clinical_drug_discovery.training.objective.step_loss import step_loss
from clinical_drug_discovery.training.objective.terms import Term

LINK, SHARE = 0.3, 0.25


def spread(found: Tensor, power: int) -> Tensor:
    """Any loss whose gradient depends on every row and its place."""
    places = torch.arange(1, len(found) + 1, dtype=found.dtype)
    return (found**power * places[:, None]).mean()


TERMS = [  # nodes repeat within a term and among terms; two terms have one name
    Term("near", 0.5, torch.tensor([7, 3, 7, 60]), partial(spread, power=2)),
    Term("votes", 0.2, torch.tensor([3, 11]), partial(spread, power=3)),
    Term("votes", 0.2, torch.tensor([80, 7]), partial(spread, power=4)),
]


@pytest.mark.parametrize("terms", [TERMS, []])
def test_losses_and_gradients_are_those_of_autograd(
    graph: KnowledgeGraph, terms: list[Term]
) -> None:
    facts = EdgeSampler(graph, [3] * len(graph.edge_types), seed=0).sample()
    nodes = torch.cat([facts.rows[:0], *(term.nodes for term in terms)])
    batch = make_batches(graph, TORCH, "full", None, 0).next(facts.including(nodes)).to_device()
    generator = torch.Generator().manual_seed(0)
    decoder = DistMult(len(graph.relations), 6, generator).double()
    x = torch.randn(
        len(batch.rows), 6, generator=generator, dtype=torch.float64, requires_grad=True
    )
    z = 2 * x

    link = link_prediction_loss(decoder, z, batch.facts)
    others = [one.loss(z[torch.searchsorted(batch.rows, one.nodes)]) for one in terms]
    total = LINK * link + sum(one.weight * loss for one, loss in zip(terms, others, strict=True))
    wanted = torch.autograd.grad(SHARE * total, [x, decoder.relation], retain_graph=True)

    losses, root = step_loss(z, batch, decoder, terms, LINK, SHARE)
    kept: Any = root.grad_fn
    assert kept.saved_tensors == ()  # the embeddings are free before the backward pass
    root.backward()
    torch.testing.assert_close([x.grad, decoder.relation.grad], list(wanted))
    expected = {"loss": total, "link_loss": link}
    if terms:
        expected |= {"near": others[0], "votes": others[1] + others[2]}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}
    )
