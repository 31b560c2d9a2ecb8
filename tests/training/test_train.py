"""The one training step, and the loops of both models."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import Fact, to_rows

import clinical_drug_discovery
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import choose_backend
from clinical_drug_discovery.ops.cpu import attention as kernels
from clinical_drug_discovery.training.batches import make_batches
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.objective.disease_pairs import (
    PairSampler,
    shared_neighbor_jaccard,
)
from clinical_drug_discovery.training.objective.link_loss import link_prediction_loss
from clinical_drug_discovery.training.objective.similarity_losses import contrastive_loss
from clinical_drug_discovery.training.objective.terms import Term
from clinical_drug_discovery.training.optimizer import ModelOptimizer
from clinical_drug_discovery.training.train import training_step

PACKAGE = Path(clinical_drug_discovery.__file__).parent
MOST_FRAMES, MOST_FILES = 8, 6


def make(name: str, graph: KnowledgeGraph) -> tuple[GraphSage | Hgt, DistMult]:
    generator = torch.Generator().manual_seed(0)
    model: GraphSage | Hgt
    if name == "graphsage":
        model = GraphSage(graph.num_nodes, 16, 12, 2, generator)
    else:
        model = Hgt(graph.type_offsets, len(graph.edge_types), 16, 12, 2, 4, generator)
    return model, DistMult(len(graph.relations), 12, generator)


@pytest.mark.parametrize("training", ["full", "sampled"])
@pytest.mark.parametrize("name", ["graphsage", "hgt"])
def test_steps_lower_the_loss(name: str, training: str, graph: KnowledgeGraph) -> None:
    model, decoder = make(name, graph)
    optimizer = ModelOptimizer(model, decoder, 0.01, 20, lazy=training == "sampled")
    backend = choose_backend(torch.device("cpu"), graph.num_edges)
    batches = make_batches(graph, backend, training, graph.num_nodes, seed=0)
    sampler = EdgeSampler(graph, np.minimum(graph.edge_type_counts // 4, 5), seed=0)
    losses = []
    for _ in range(20):
        found = training_step(model, decoder, optimizer, batches.next(sampler.sample()))
        assert found["loss"] == found["link_loss"]
        losses.append(found["loss"])
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_terms_are_weighted(graph: KnowledgeGraph) -> None:
    jaccard = shared_neighbor_jaccard(
        graph, node_type="disease", neighbor_type="gene/protein", relation="disease_protein"
    )
    assert jaccard is not None
    pairs = PairSampler(jaccard, node_range_of(graph, "disease")[0], 0.05, 0).sample(8)
    model, decoder = make("hgt", graph)
    backend = choose_backend(torch.device("cpu"), graph.num_edges)
    facts = EdgeSampler(graph, np.minimum(graph.edge_type_counts, 5), seed=0).sample()
    batch = make_batches(graph, backend, "full", None, 0).next(facts.including(pairs.nodes))
    seen = batch.to_device()
    with torch.no_grad():
        z = model(seen.all_nodes, seen.targets)
        link = link_prediction_loss(decoder, z, seen.facts).item()
        loss = partial(contrastive_loss, pairs=pairs, temperature=0.2)
        contrast = loss(z[torch.searchsorted(seen.rows, pairs.nodes)]).item()
    optimizer = ModelOptimizer(model, decoder, 0.01, 1, lazy=False)
    term = Term("contrastive_loss", 0.25, pairs.nodes, loss)
    found = training_step(model, decoder, optimizer, batch, [term], 0.75)
    wanted = {"loss": 0.75 * link + 0.25 * contrast, "link_loss": link}
    assert found == pytest.approx({**wanted, "contrastive_loss": contrast}, rel=1e-5)


def test_few_frames_lie_between_the_public_function_and_the_kernel(
    tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader follows the data from the call to the kernel through at most six files."""
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    monkeypatch.setattr("clinical_drug_discovery.ops.backend.MIN_KERNEL_EDGES", 0)
    attend, stacks = kernels._attend, []

    def noting(*given: Any) -> None:
        stack = traceback.extract_stack()
        own = [frame for frame in stack if Path(frame.filename).is_relative_to(PACKAGE)]
        # The check of parameters is one decorator of all public functions.
        stacks.append([frame for frame in own if Path(frame.filename).name != "arguments.py"])
        attend(*given)

    monkeypatch.setattr(kernels, "_attend", noting)
    generate: Callable[..., Any] = generate_hgt_embeddings
    generate(tmp_path / "kg.csv", tmp_path / "e.npy", 16, 16, num_epochs=1, ranker=False)
    in_training = [stack for stack in stacks if "add_gradients" in {f.name for f in stack}]
    assert in_training
    for stack in in_training:
        names = [f"{Path(frame.filename).name}: {frame.name}" for frame in stack]
        assert names[0] == "gnn_hgt.py: generate_hgt_embeddings"
        assert len(names) <= MOST_FRAMES, names
        assert len({frame.filename for frame in stack}) <= MOST_FILES, names
