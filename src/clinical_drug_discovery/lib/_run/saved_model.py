"""A saved model for an evaluation: its graph, its drug ranker and its embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...evaluation.rankers import RANKERS, Ranker, saved_rankers, why_not_saved
from ...graph.knowledge_graph import KnowledgeGraph
from ...models.read_embeddings import read_embeddings
from ...ranking.drug_ranker import DrugRanker
from ...system.errors import InputError
from ...system.log import part
from ...system.untrusted.inputs import read_json
from .model_dir import RANKER_FILE, read_model_graph, read_model_ranker


class SavedModel(NamedTuple):
    """A model directory, and the embeddings that lie beside it."""

    directory: Path
    model: str  #: graphsage or hgt
    graph: KnowledgeGraph
    ranker: DrugRanker | None
    embeddings: Tensor | None  #: shape (N, dim), in the order of the graph

    @staticmethod
    def read(directory: Path, embeddings: str | Path | None) -> SavedModel:
        """Read a model.

        Args:
            directory: model directory.
            embeddings: file of the embeddings; None: the file that the run wrote, if it still lies
                beside the model directory.

        Raises:
            InputError: a file is missing or damaged, or the files do not belong together.
        """
        with part("Reading the model"):
            ranker, sha256 = None, None
            if (directory / RANKER_FILE).exists():
                ranker, sha256 = read_model_ranker(directory)
            graph = read_model_graph(directory, sha256)
            stats = _read_stats(directory)
            path = directory.resolve().parent / str(stats["output_file"])
            if embeddings is not None:
                path = Path(embeddings)
            values = None
            if embeddings is not None or path.exists():
                values = _read_embeddings(path, graph)
        return SavedModel(directory, str(stats["model"]), graph, ranker, values)

    def choose(self, asked: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
        """Return the rankers to compare, and those that are left out, with the reasons.

        Args:
            asked: names of rankers; None: all that the model provides.

        Raises:
            InputError: the model does not provide a ranker that was asked for.
        """
        has_decoders = self.ranker is not None and self.ranker.gnn is not None
        missing = why_not_saved(self.ranker is not None, has_decoders, self.embeddings is not None)
        if asked is None:
            return [name for name in RANKERS if name not in missing], missing
        for name in asked:
            if name in missing:
                raise InputError(
                    f"rankers (got {name!r}) does not work with model_dir {self.directory}: "
                    f"{missing[name]}"
                )
        return list(asked), {}

    def rankers(self, names: Sequence[str]) -> Iterator[tuple[str, Ranker]]:
        """Yield the name of each ranker and the ranker."""
        return saved_rankers(self.graph, self.ranker, self.embeddings, names)


def _read_stats(directory: Path) -> dict[str, Any]:
    """Return the record of the run that wrote a model directory."""
    path = directory / "stats.json"
    try:
        stats = read_json(path)
        found = {name: stats[name] for name in ("model", "output_file")}
        if not all(isinstance(value, str) for value in found.values()):
            raise TypeError("model and output_file must be texts")
        if Path(found["output_file"]).name != found["output_file"]:
            raise ValueError("output_file must be a name without a directory")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"model_dir (got {directory}) must have the file stats.json of a finished run: {error}"
        ) from None


def _read_embeddings(path: Path, graph: KnowledgeGraph) -> Tensor:
    """Read embeddings, and bring their rows into the order of the graph's nodes.

    Raises:
        InputError: the file is not readable, or has other nodes than the graph.
    """
    nodes, values = read_embeddings(path)
    order = nodes["node_index"].arg_sort()
    wanted = graph.nodes["node_index"].arg_sort()
    columns = ("node_index", "node_id", "node_type")
    if not nodes[order].select(columns).equals(graph.nodes[wanted].select(columns)):
        raise InputError(
            f"embeddings (got {path}) has other nodes than the graph of the model directory"
        )
    rows = np.empty(len(values), np.int64)
    rows[wanted.to_numpy()] = order.to_numpy()
    return torch.from_numpy(values[rows])
