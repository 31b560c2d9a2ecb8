"""The parts of the product that the audit runs: training, inference and evaluation of both models.

They run on the CPU with torch's own operations, padded and chunked as on a GPU. What runs on the
host whatever the device, such as the sampling of batches, is done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from backends import TORCH
from graphs import graph_of, random_facts

from clinical_drug_discovery.evaluation.gnn_scores import GnnScores
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, node_range_of
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import LayeredModel, embed_all
from clinical_drug_discovery.models.kinds.interface import FULL, SAMPLED
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.system.machine import one_thread
from clinical_drug_discovery.training.batches import HostBatch, make_batches
from clinical_drug_discovery.training.edge_sampler import EdgeSampler
from clinical_drug_discovery.training.objective.disease_pairs import (
    PairSampler,
    shared_neighbor_jaccard,
)
from clinical_drug_discovery.training.objective.near_pairs import NearPairSampler
from clinical_drug_discovery.training.objective.terms import Term, Terms
from clinical_drug_discovery.training.objective.treatment_votes import TreatmentSampler
from clinical_drug_discovery.training.optimizer import ModelOptimizer
from clinical_drug_discovery.training.train import training_step

MODELS = ("graphsage", "hgt")
PARTS = ("training", "sampled training", "inference and scores")
_HIDDEN, _DIM, _HEADS, _LAYERS, _STEPS = 16, 12, 2, 2, 1
_CHUNK_SIZE = 40  # nodes that inference embeds at a time: three chunks
_POSITIVES = 4  # of each edge type in a step


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Make the CPU pad as GPUs do, and cut even a small graph into several chunks."""
    package = "clinical_drug_discovery"
    with (
        one_thread(True),
        patch(f"{package}.ops.fixed_shapes.DEVICE_TYPES", ("cpu",)),
        patch(f"{package}.ops.fixed_shapes._LEAST_EDGES", 4),
        patch(f"{package}.ops.reference.EDGE_CHUNK", 32),
        patch(f"{package}.ops.listwise.FACT_CHUNK", 4),
        patch(f"{package}.training.edge_sampler.NUM_CANDIDATES", 8),
    ):
        yield


def audited_path(model_name: str, part: str) -> Callable[[], object]:
    """Prepare one part of a model on a small graph, and return the function that runs it.

    Args:
        model_name: one of `MODELS`.
        part: one of `PARTS`.
    """
    with as_on_a_gpu():
        graph = graph_of(random_facts(np.random.default_rng(0), 120))
        generator = torch.Generator().manual_seed(0)
        model: GraphSage | Hgt
        if model_name == "graphsage":
            model = GraphSage(graph.num_nodes, _HIDDEN, _DIM, _LAYERS, generator)
        else:
            counts = graph.type_offsets, len(graph.edge_types)
            model = Hgt(*counts, _HIDDEN, _DIM, _LAYERS, _HEADS, generator)
        decoder = DistMult(len(graph.relations), _DIM, generator)
        if "training" in part:
            steps = _sampled_steps(graph, part == "training", _pairs(graph, model))
            optimizer = partial(ModelOptimizer, model, decoder, 0.01, _STEPS)
            lazy = part == "sampled training"
            return partial(_train, model, decoder, optimizer, lazy, steps)
        return partial(_embed_and_score, model, decoder, graph)


def _pairs(graph: KnowledgeGraph, model: GraphSage | Hgt) -> PairSampler | None:
    if isinstance(model, GraphSage):
        return None
    jaccard = shared_neighbor_jaccard(
        graph, node_type="disease", neighbor_type="gene/protein", relation="disease_protein"
    )
    assert jaccard is not None
    return PairSampler(jaccard, node_range_of(graph, "disease")[0], 0.1, 0)


def _sampled_steps(
    graph: KnowledgeGraph, full: bool, pairs: PairSampler | None
) -> list[tuple[HostBatch, list[Term]]]:
    """Sample the batches and terms of some steps, which the host does."""
    size = None if full else graph.num_nodes
    batches = make_batches(graph, TORCH, FULL if full else SAMPLED, size, 0)
    near = NearPairSampler(graph, ["drug", "disease"], 0)
    terms = Terms(
        near, dict.fromkeys(near.node_types, _POSITIVES), {"drug": "a", "disease": "b"},
        TreatmentSampler(graph, 1, 0), pairs, _POSITIVES, 0.0 if pairs is None else 0.5, 0.1,
    )  # fmt: skip
    sampler, steps = EdgeSampler(graph, [_POSITIVES] * len(graph.edge_types), 0), []
    for _ in range(_STEPS):
        drawn = terms.sample()
        nodes = torch.cat([term.nodes for term in drawn])
        steps.append((batches.next(sampler.sample().including(nodes)), drawn))
    return steps


def _train(
    model: GraphSage | Hgt,
    decoder: DistMult,
    make_optimizer: Callable[..., ModelOptimizer],
    lazy: bool,
    steps: list[tuple[HostBatch, list[Term]]],
) -> None:
    with as_on_a_gpu():
        optimizer = make_optimizer(lazy=lazy)
        for batch, terms in steps:
            training_step(model, decoder, optimizer, batch, terms, 0.3)


def _embed_and_score(
    model: LayeredModel[Any], decoder: DistMult, graph: KnowledgeGraph
) -> npt.NDArray[np.floating]:
    """Embed all nodes, and compute the scores from which the figures of an evaluation come."""
    first, last = graph.node_range(0)
    with as_on_a_gpu():
        embeddings = embed_all(model, graph, _CHUNK_SIZE, TORCH)
        return GnnScores(embeddings, decoder)(np.arange(first, last), 0, (first, last))
