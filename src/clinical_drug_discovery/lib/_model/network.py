"""The trained network of a model directory, for the nodes of its graph or of another graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...graph.knowledge_graph import IntArray, KnowledgeGraph
from ...models.inference import embed_all
from ...models.kinds.interface import Settings, TrainableModel
from ...models.kinds.table import MODELS, kind_of
from ...models.layers import DistMult
from ...models.new_nodes import vectors_with_new_nodes
from ...models.warm_start import VECTORS
from ...ops.backend import Backend, choose_backend
from ...ops.blocks import Block
from ...system import log
from ...system.errors import InputError, shown
from ...system.machine import one_thread
from ...system.processes import let_others
from ...system.untrusted.inputs import read_json
from ...training.history import is_finite
from ...training.memory_plan import CHUNK_SIZES
from ...training.objective.treatment_votes import without_treatments
from .._run.model_dir import CONFIG_FILE, WEIGHTS_FILE, check_same_run

_RELATION = "decoder.relation"


@dataclass(frozen=True)
class Network:
    """A trained GNN on the CPU, apart from the input vectors of the nodes, which belong to a graph.

    It has the interface `models.inference.LayeredModel`.
    """

    model: TrainableModel  #: its own `node_embedding` is empty
    decoder: DistMult
    node_embedding: Tensor  #: shape (N, C), input vectors in the order of the graph

    @property
    def stages(self) -> Sequence[tuple[str, int]]:
        """See `LayeredModel`."""
        return self.model.stages

    def begin_stage(self, index: int, x: Tensor, backend: Backend) -> Any:
        """See `LayeredModel`."""
        _let_others(backend)
        return self.model.begin_stage(index, x, backend)

    def apply_stage(self, index: int, x: Tensor, begun: Any, block: Block) -> Tensor:
        """See `LayeredModel`."""
        _let_others(block.backend)
        return self.model.apply_stage(index, x, begun, block)

    def embed(self, graph: KnowledgeGraph) -> Tensor:
        """Compute the embeddings of all nodes, shape (N, D); see `embed_all`.

        Known treatments are left out, as in the training.

        Raises:
            InputError: an embedding contains NaN or infinity.
        """
        return self._embed(without_treatments(graph)[0], graph.num_edges)

    def transferred(self, graph: KnowledgeGraph, number: IntArray) -> tuple[Network, Tensor]:
        """Return the network for another graph with the same types, and the embeddings.

        New nodes get input vectors; see `vectors_with_new_nodes`.

        Args:
            graph: on the CPU.
            number: shape (K,), the number in this graph of each node that has a vector.

        Raises:
            InputError: an embedding contains NaN or infinity.
        """
        read = without_treatments(graph)[0]
        vectors, alone = vectors_with_new_nodes(read, self.node_embedding, number)
        if len(alone):
            names = ", ".join(graph.nodes["node_name"][alone[:10]])
            log.warning(
                "the embeddings of these new nodes say nothing, because no facts but treatments "
                f"join them to known nodes ({len(alone):,}): {names}"
            )
        network = replace(self, node_embedding=vectors)
        return network, network._embed(read, graph.num_edges)

    def _embed(self, read: KnowledgeGraph, num_edges: int) -> Tensor:
        """Compute the embeddings from the edges that the model reads; the graph has more."""
        backend = choose_backend(torch.device("cpu"), num_edges)
        with log.part("Embedding all nodes"), one_thread(not backend.kernels):
            found = embed_all(self, read, CHUNK_SIZES[0], backend)
        if not is_finite(found):
            raise InputError("the embeddings hold NaN or infinity; run cdd embed again")
        return found


def _let_others(backend: Backend) -> None:
    """Let other threads ask a loaded model between two blocks of a large graph.

    A small graph takes milliseconds, and `one_thread` is set meanwhile for the whole process.
    """
    if backend.kernels:
        let_others()


def read_decoder(directory: Path, graph: KnowledgeGraph, dim: int) -> DistMult:
    """Read the decoder of a model.

    Raises:
        InputError: the file is missing or damaged, of another run, or does not fit the graph.
    """
    weights = _read_weights(directory, only=_RELATION)[_RELATION]
    shape = (len(graph.relations), dim)
    if tuple(weights.shape) != shape:
        path = directory / WEIGHTS_FILE
        raise InputError(f"{path} is damaged: {_RELATION} must have shape {shape} in float32")
    decoder = DistMult(*shape, torch.Generator())
    decoder.load_state_dict({"relation": weights})
    return decoder


def read_network(directory: Path, graph: KnowledgeGraph) -> Network:
    """Read the network of a model directory.

    Args:
        directory: model directory.
        graph: the graph of the model.

    Raises:
        InputError: a file is missing or damaged, of another run, or does not fit the graph.
    """
    path = directory / WEIGHTS_FILE
    with log.part("Reading the network"):
        weights = _read_weights(directory)
        settings = read_settings(directory)
        hidden = settings.hidden_dim
        vectors = weights.pop(VECTORS, torch.zeros(0))
        # The sizes come first: the modules take memory before their weights are compared.
        of_model = [w for name, w in weights.items() if name.startswith("model.") and w.dim() > 1]
        fits = vectors.shape == (graph.num_nodes, hidden)
        if not fits or not any(weight.shape[-1] == hidden for weight in of_model):
            raise InputError(f"{path} is damaged: its sizes differ from {CONFIG_FILE} or the graph")
        decoder = read_decoder(directory, graph, settings.embedding_dim)
        try:
            model = _make_model(graph, settings)
            named = {
                name.removeprefix("model."): tensor
                for name, tensor in weights.items()
                if name.startswith("model.")
            }
            model.load_state_dict({**named, "node_embedding": model.node_embedding})
        except (RuntimeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is damaged: {reason}; run cdd embed again") from None
    return Network(model.eval(), decoder, vectors)


def _make_model(graph: KnowledgeGraph, settings: Settings) -> TrainableModel:
    no_nodes = (0,) * len(graph.type_offsets)
    kind = kind_of(settings.model)
    return kind.make(no_nodes, len(graph.edge_types), settings, torch.Generator())


def read_settings(directory: Path) -> Settings:
    """Return the settings of the model from config.json.

    Raises:
        InputError: the file is missing or damaged, or the table of models lacks the model.
    """
    path = directory / CONFIG_FILE
    try:
        config = read_json(path)
        name = str(config["model"])
        if name in MODELS:
            kind = kind_of(name)
            settings: Settings = kind.settings(
                **{f.name: config[f.name] for f in fields(kind.settings) if f.name in config}
            )
            settings.check()
            return settings
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}; run cdd embed again") from None
    raise InputError(
        f"{path} is of model {shown(name)}, which is not among {', '.join(MODELS)}. If a file of "
        "yours adds this model, import it first, or run it in the place of cdd"
    )


def _read_weights(directory: Path, only: str | None = None) -> dict[str, Tensor]:
    """Return the weights of a model, or one of them.

    Raises:
        InputError: the file is missing or damaged, or of another run.
    """
    path = directory / WEIGHTS_FILE
    try:
        with safe_open(path, "pt") as file:
            run = (file.metadata() or {}).get("run")
            names = file.keys() if only is None else [only]
            weights = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"model_dir (got {directory}) must hold {WEIGHTS_FILE}") from None
    except (OSError, SafetensorError) as error:
        first_line = str(error).split("\n")[0]
        raise InputError(f"{path} is damaged: {first_line}; run cdd embed again") from None
    check_same_run(directory, {WEIGHTS_FILE: run})
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or not is_finite(tensor):
            raise InputError(f"{path} is damaged: {name} must be finite numbers in float32")
    return weights
