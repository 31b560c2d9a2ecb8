"""A saved model for an evaluation: its graph, its drug ranker and its embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...evaluation.gnn_scores import GnnScores
from ...evaluation.rankers import RANKERS, Ranker, saved_rankers, why_not_saved
from ...graph.knowledge_graph import KnowledgeGraph
from ...models.embeddings_file import RUN, output_files
from ...models.read_embeddings import read_embeddings
from ...ranking.drug_ranker import DrugRanker
from ...system.errors import InputError
from ...system.files import file_sha256
from ...system.log import part
from ...system.run_directory import settle
from ...system.untrusted.inputs import read_json
from .._model.network import read_decoder
from .model_dir import (
    RANKER_FILE,
    STATS_FILE,
    check_embeddings_of,
    check_same_run,
    read_model_graph,
    read_model_ranker,
)

_HASHES = "output_sha256"


class SavedModel(NamedTuple):
    """A model directory, and the embeddings that lie beside it."""

    directory: Path
    run: str | None  #: id of the run
    model: str  #: graphsage or hgt
    seed: int  #: of the run
    graph: KnowledgeGraph
    ranker: DrugRanker | None
    embeddings: Tensor | None  #: shape (N, dim), in the order of the graph

    @staticmethod
    def read(
        directory: Path, embeddings: str | Path | None, *, with_ranker: bool = True
    ) -> SavedModel:
        """Read a model.

        Args:
            directory: model directory.
            embeddings: file of the embeddings; None: the file that the run wrote, if it still lies
                beside the model directory.
            with_ranker: read the ranker as well, if there is one.

        Raises:
            InputError: a file is missing or damaged, or the files do not belong together.
        """
        with part("Reading the model"):
            ranker, sha256 = None, None
            settle(directory)
            if with_ranker and (directory / RANKER_FILE).exists():
                ranker, sha256 = read_model_ranker(directory)
            graph = read_model_graph(directory, sha256)
            stats = _read_stats(directory)
            check_same_run(directory, {STATS_FILE: stats[RUN]})
            path = directory.resolve().parent / str(stats["output_file"])
            if embeddings is not None:
                path = Path(embeddings)
            values = None
            if embeddings is not None or path.exists():
                values = _read_embeddings(path, graph)
                check_embeddings_of(path, directory)
                if embeddings is None:
                    _check_unchanged(path, stats, directory)
        return SavedModel(
            directory, stats[RUN], str(stats["model"]), int(stats["seed"]), graph, ranker, values
        )

    def choose(self, asked: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
        """Return the rankers to compare, and those that are left out, with the reasons.

        Args:
            asked: names of rankers; None: all that the model provides.

        Raises:
            InputError: the model does not provide a ranker that was asked for.
        """
        missing = why_not_saved(self.ranker is not None, self.embeddings is not None)
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
        gnn = None
        if self.embeddings is not None:
            decoder = read_decoder(self.directory, self.graph, self.embeddings.shape[1])
            gnn = GnnScores(self.embeddings, decoder)
        return saved_rankers(self.graph, self.ranker, gnn, names)


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
        known = {**found, "seed": int(stats["seed"])}
        return {**known, RUN: stats.get(RUN), _HASHES: dict(stats.get(_HASHES) or {})}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"model_dir (got {directory}) must have the file stats.json of a finished run: {error}"
        ) from None


def _check_unchanged(path: Path, stats: dict[str, Any], model_dir: Path) -> None:
    """Check that the embeddings beside a model are the files that its run wrote, to the byte.

    Raises:
        InputError: a file is another one.
    """
    for file in output_files(path):
        expected = stats[_HASHES].get(file.name)
        if expected is not None and file_sha256(file) != expected:
            raise InputError(
                f"{file} is not the file that was written with the model in {model_dir}: its "
                f"SHA-256 is not that of {STATS_FILE}. If you saved it again yourself, name it "
                "with embeddings (--embeddings)"
            )


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
