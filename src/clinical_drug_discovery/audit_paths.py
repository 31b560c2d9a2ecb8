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
import torch
from torch import Tensor

from clinical_drug_discovery.blocks import full_block, row_block
from clinical_drug_discovery.contrast import PairBatch, PairSampler
from clinical_drug_discovery.graph import IntArray, KnowledgeGraph
from clinical_drug_discovery.hgt import Hgt
from clinical_drug_discovery.inference import LayeredModel, embed_all
from clinical_drug_discovery.losses import DistMult, contrastive_loss, link_prediction_loss
from clinical_drug_discovery.ops.backend import device_path, in_bfloat16
from clinical_drug_discovery.optimizer import Adam
from clinical_drug_discovery.pairs import span_of
from clinical_drug_discovery.sage import GraphSage
from clinical_drug_discovery.sampling import EdgeBatch, EdgeSampler, SteadyRows, share_out
from clinical_drug_discovery.similarity import shared_neighbor_jaccard
from clinical_drug_discovery.synthetic import synthesize_graph
from clinical_drug_discovery.tables import read_graph

_HIDDEN, _DIM, _HEADS = 64, 48, 4
_CHUNK = 100  # of inference, so that some types take several
_SCALE = 0.01  # of PrimeKG
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
    first, _ = span_of(graph, "disease")
    _ = graph.source_chunks  # the host's part
    drawn: dict[str, tuple[IntArray | list[int], PairSampler | None]] = {
        "graphsage": (share_out(graph.edge_type_counts, _SAGE_FACTS), None),
        "hgt": (np.minimum(graph.edge_type_counts, _HGT_FACTS), PairSampler(shared, first, 0.1, 0)),
    }
    models: dict[str, GraphSage | Hgt] = {
        "graphsage": GraphSage(graph.num_nodes, _HIDDEN, _DIM, 3, generator),
        "hgt": Hgt(
            graph.bounds, len(graph.edge_types), _HIDDEN, _DIM, 2, _HEADS, generator
        ),
    }  # fmt: skip
    for name, model in models.items():
        sizes, alike = drawn[name]
        sampler = EdgeSampler(graph, sizes, 0)
        with device_path():
            steady = SteadyRows(graph, graph.device)
            batches = [_draw(sampler, steady, alike) for _ in range(num_epochs)]
        train = partial(_train, model, graph, batches)
        waits = num_epochs * (3 if alike else 1)
        yield AuditedPath(f"{name} training", train, waits)
        yield AuditedPath(f"{name} training in bfloat16", partial(_in_bfloat16, train), waits)
        yield AuditedPath(f"{name} inference", partial(_embed, model, graph), 0)
        decoder = DistMult(len(graph.relations), _DIM, torch.Generator().manual_seed(0))
        evaluate = partial(_score, model, decoder, graph, batches[0][0])
        yield AuditedPath(f"{name} evaluation", evaluate, 0)


def _draw(
    sampler: EdgeSampler, steady: SteadyRows, alike: PairSampler | None
) -> tuple[EdgeBatch, PairBatch | None]:
    batch = sampler.sample()
    pairs = alike.sample(_HGT_FACTS) if alike is not None else None
    if pairs is not None:
        batch = batch.including(pairs.nodes)
    return steady.fill(batch), pairs


def _train(
    model: GraphSage | Hgt,
    graph: KnowledgeGraph,
    batches: list[tuple[EdgeBatch, PairBatch | None]],
) -> None:
    """As the recipes of `lib` train, a step for each batch."""
    hidden = full_block(graph)
    decoder = DistMult(len(graph.relations), _DIM, torch.Generator().manual_seed(0))
    optimizer = Adam([*model.parameters(), *decoder.parameters()], 0.01)
    for batch, pairs in batches:
        target = row_block(graph, batch.rows)
        z = model(hidden, target)
        parts = [link_prediction_loss(decoder, z, batch)]
        if pairs is not None:
            parts.append(contrastive_loss(z, batch.rows, pairs, 0.1))
        loss = torch.stack(parts).mean() if len(parts) > 1 else parts[0]
        z.detach().cpu()  # what the look at collapse takes
        loss.backward()
        optimizer.step()
        [value.item() for value in (loss, *(parts if pairs is not None else ()))]


def _in_bfloat16(run: Callable[[], object]) -> None:
    """As CUDA does where it is asked to: looked at for waits, and for what shapes it sees."""
    with in_bfloat16(True):
        run()


def _embed(model: LayeredModel[Any], graph: KnowledgeGraph) -> Tensor:
    return embed_all(model, graph, _CHUNK)


@torch.no_grad()
def _score(
    model: GraphSage | Hgt, decoder: DistMult, graph: KnowledgeGraph, batch: EdgeBatch
) -> Tensor:
    """The scores of facts, which every figure of link prediction comes from."""
    z = model(full_block(graph), row_block(graph, batch.rows))
    scores: Tensor = decoder(z, batch.src, batch.relation, batch.dst)
    return scores.sigmoid().cpu()
