"""Write splits to files for other programs, and read the scores that these programs write.

Each split has a directory with three files:

- train.parquet: src and dst (node numbers) and relation (edge types; each direction has its own)
- asked.parquet: disease (n node numbers to rank drugs for)
- split.json: num_nodes; first_drug and num_drugs; indication (the edge types drug -> disease and
  disease -> drug); spans (first and stop of the target numbers of each edge type)

A program writes <name>.npy beside them: float32, shape (n, num_drugs), higher is better. See
rival_pykeen.py, rival_pecanpy.py and rival_pyg.py; each needs an environment of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from clinical_drug_discovery.evaluation.gnn_scores import Scores
from clinical_drug_discovery.graph.knowledge_graph import (
    EdgeType,
    IntArray,
    KnowledgeGraph,
    node_range_of,
)
from clinical_drug_discovery.graph.vocabulary import PRIMEKG


def export_split(place: Path, graph: KnowledgeGraph, diseases: IntArray) -> None:
    """Write what another program may know: the training graph, and the diseases to rank for."""
    place.mkdir(parents=True, exist_ok=True)
    columns = {"src": graph.src, "relation": graph.edge_type, "dst": graph.dst}
    table = pl.DataFrame({name: values.numpy() for name, values in columns.items()})
    table.write_parquet(place / "train.parquet")
    pl.DataFrame({"disease": diseases}).write_parquet(place / "asked.parquet")
    first, stop = node_range_of(graph, PRIMEKG.drug_type)
    indication = EdgeType(PRIMEKG.drug_type, PRIMEKG.indication, PRIMEKG.disease_type)
    forth = graph.edge_types.index(indication)
    record = {
        "num_nodes": graph.num_nodes,
        "first_drug": first,
        "num_drugs": stop - first,
        "indication": [forth, graph.reverse_edge_type[forth]],
        "spans": [graph.node_range(ends[1]) for ends in graph.endpoint_types],
    }
    (place / "split.json").write_text(json.dumps(record))


def found_scores(place: Path, shape: tuple[int, ...]) -> Iterator[tuple[str, Scores]]:
    """Read the scores of all programs that have written some."""
    for path in sorted(place.glob("*.npy")):
        scores = np.load(path)
        if scores.shape != shape:
            raise SystemExit(f"{path} has shape {scores.shape}, not {shape} (another split?)")
        yield path.stem, scores
