"""What is audited: what a device does of training, inference and evaluation of both models.

The host's part is done before, or left out: drawing batches, and figures of collapse in float64,
which work on the CPU whatever the device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.models.hgt import Hgt
from clinical_drug_discovery.models.inference import LayeredModel, embed_all
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ranking.bilinear_score import GnnScores
from clinical_drug_discovery.training.batches import FullBatch, HostBatch, SubgraphBatches
from clinical_drug_discovery.training.disease_pairs import (
    PairBatch,
    PairSampler,
    shared_neighbor_jaccard,
)
from clinical_drug_discovery.training.edge_sampler import EdgeSampler, divide_equally
from clinical_drug_discovery.training.optimizer import ModelOptimizer
from clinical_drug_discovery.training.train import ContrastiveTerm, training_step

TORCH = Backend(torch.device("cpu"), kernels=False)  # what other devices run
_HIDDEN, _DIM, _HEADS = 64, 48, 4
_CHUNK = 100  # of inference, so that some types take several
_SCALE = 0.01  # of PrimeKG
_PART = 1.0  # of the nodes, that a step on parts sees
_SAGE_FACTS, _HGT_FACTS = 1_000, 50  # of a batch: in all, and of each edge type


@dataclass(frozen=True)
class AuditedPath:
    """One part of what a model does."""

    name: str
    run: Callable[[], object]
    waits: int  #: how often the host may wait for the device: for the values of losses


def audited_paths(num_epochs: int = 2) -> Iterator[AuditedPath]:
    """Training, inference and evaluation of GraphSAGE, then of HGT, on a synthetic graph.

    Args:
        num_epochs: of training.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kg.parquet"
        synthesize_graph(path, scale=_SCALE)
        graph = read_graph(path)
    generator = torch.Generator().manual_seed(0)
    shared = shared_neighbor_jaccard(
        graph, node_type="disease", neighbor_type="gene/protein", relation="disease_protein"
    )
    assert shared is not None  # the synthetic graph has such facts
    first, _ = node_range_of(graph, "disease")
    drawn: dict[str, tuple[IntArray | list[int], PairSampler | None]] = {
        "graphsage": (divide_equally(graph.edge_type_counts, _SAGE_FACTS), None),
        "hgt": (np.minimum(graph.edge_type_counts, _HGT_FACTS), PairSampler(shared, first, 0.1, 0)),
    }
    models: dict[str, GraphSage | Hgt] = {
        "graphsage": GraphSage(graph.num_nodes, _HIDDEN, _DIM, 3, generator),
        "hgt": Hgt(
            graph.type_offsets, len(graph.edge_types), _HIDDEN, _DIM, 2, _HEADS, generator
        ),
    }  # fmt: skip
    for name, model in models.items():
        sizes, alike = drawn[name]
        draw = partial(_draw, graph, sizes, alike, num_epochs)
        whole = draw(FullBatch(graph, TORCH))
        parts = draw(SubgraphBatches(graph, TORCH, int(_PART * graph.num_nodes), 0))
        decoder = DistMult(len(graph.relations), _DIM, torch.Generator().manual_seed(0))
        train = partial(_train, model, decoder, whole)
        waits = num_epochs
        yield AuditedPath(f"{name} training", train, waits)
        sampled = partial(_train, model, decoder, parts)
        yield AuditedPath(f"{name} training on parts", sampled, waits)
        yield AuditedPath(f"{name} inference", partial(_embed, model, graph), 0)
        yield AuditedPath(f"{name} evaluation", partial(_score, model, decoder, graph), 0)


def _draw(
    graph: KnowledgeGraph,
    sizes: IntArray | list[int],
    alike: PairSampler | None,
    num_epochs: int,
    views: FullBatch | SubgraphBatches,
) -> list[tuple[HostBatch, PairBatch | None]]:
    """What the host does for some steps."""
    sampler, drawn = EdgeSampler(graph, sizes, 0), []
    for _ in range(num_epochs):
        batch = sampler.sample()
        pairs = alike.sample(_HGT_FACTS) if alike is not None else None
        if pairs is not None:
            batch = batch.including(pairs.nodes)
        drawn.append((views.next(batch), pairs))
    return drawn


def _train(
    model: GraphSage | Hgt, decoder: DistMult, drawn: list[tuple[HostBatch, PairBatch | None]]
) -> None:
    """As the recipes of `lib` train, a step for each part."""
    by_parts = drawn[0][0].nodes is not None
    learner = ModelOptimizer(model, decoder, 0.01, len(drawn), lazy=by_parts)
    for part, pairs in drawn:
        term = None if pairs is None else ContrastiveTerm(pairs, 0.5, 0.1)
        training_step(model, decoder, learner, part, term)


def _embed(model: LayeredModel[Any], graph: KnowledgeGraph) -> Tensor:
    return embed_all(model, graph, _CHUNK, TORCH)


def _score(
    model: LayeredModel[Any], decoder: DistMult, graph: KnowledgeGraph
) -> npt.NDArray[np.floating]:
    """Every figure comes from these scores; made on the CPU, since embeddings go there."""
    span = graph.node_range(0)
    scores = GnnScores(embed_all(model, graph, _CHUNK, TORCH), decoder)
    return scores(np.arange(*span)[:_CHUNK], 0, span)
