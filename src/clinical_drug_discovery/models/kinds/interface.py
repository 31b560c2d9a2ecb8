"""The parts of a kind of model that a run needs: its settings, its maker, and its size.

Each model's file in this folder has one `ModelKind` named KIND, and `table.MODELS` one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...ops.blocks import Block
from ...system.errors import InputError
from ...system.limits.parameters import check_fields
from ..inference import LayeredModel

FULL, SAMPLED = "full", "sampled"  #: the two values of `training`
SUBGRAPH_SIZE = 20_000  #: default number of nodes in a subgraph


class Positives(NamedTuple):
    """The number of positives in an epoch."""

    name: str  #: of the setting
    number: int
    of_each_type: bool  #: True: of each edge type; False: of all edge types together


class Contrast(NamedTuple):
    """The contrastive loss on pairs of similar diseases."""

    weight: float  #: w; the loss is (1 - w) link + w contrastive
    num_pairs: int  #: pairs in an epoch
    similarity_threshold: float  #: least Jaccard index of the genes of two similar diseases
    temperature: float


class Settings(Protocol):
    """The settings of a model: a frozen dataclass, whose fields are parameters."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    model: ClassVar[str]  #: key in `table.MODELS`

    @property
    def embedding_dim(self) -> int:
        """Number of dimensions D of an embedding."""

    @property
    def hidden_dim(self) -> int:
        """Width C of the layers and of the input vectors."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""

    @property
    def num_epochs(self) -> int:
        """Number of epochs."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first step."""

    @property
    def training(self) -> str:
        """`FULL` or `SAMPLED`."""

    @property
    def subgraph_size(self) -> int | None:
        """Number of nodes in a subgraph."""

    @property
    def subgraphs_per_step(self) -> int | None:
        """Number of subgraphs in a step; None: one for each process."""

    @property
    def hidden_unit(self) -> int:
        """A number of which `hidden_dim` must be a multiple."""

    @property
    def positives(self) -> Positives:
        """The number of positives in an epoch."""

    @property
    def contrast(self) -> Contrast | None:
        """The contrastive loss; None: the model is trained without."""

    def check(self) -> None:
        """Check every setting; raise `InputError` if one is invalid."""


class TrainableModel(LayeredModel[Any], Protocol):
    """A model: an `nn.Module` with a learned vector per node, and with stages for inference."""

    def __call__(self, hidden: Block, target: Block, vectors: Tensor | None = None) -> Tensor:
        """Embed the target rows of a block.

        Args:
            hidden: block of all nodes, for all layers except the last.
            target: block of the M rows to embed, for the last layer.
            vectors: shape (N, C), input vectors of the graph's nodes; None: `node_embedding`.

        Returns:
            shape (M, D).
        """

    def to(self, device: torch.device) -> Any:
        """Move the model to a device, as `nn.Module.to` does."""

    def eval(self) -> Any:
        """Return the model, for inference only."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the weights by name."""

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name, for files."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take weights by name."""


@dataclass(frozen=True)
class Sizes:
    """The numbers that decide how much memory a model takes, and that do not depend on it."""

    num_nodes: int  #: N, of the graph
    num_edges: int
    num_node_types: int
    num_edge_types: int
    largest_type: int  #: nodes n of the largest type
    largest_edge_type: int  #: edges of the largest edge type
    step_nodes: int  #: nodes in the graph or subgraph of a step
    step_rows: int  #: M, nodes in the batch of a step
    loss_bytes: int  #: peak of the loss and its gradient, beside the embeddings of the batch
    is_sampled: bool  #: a step sees a subgraph
    stored: int  #: bytes per number in the copy of the node vectors that edges read
    edge_chunk: int  #: edges that torch's operations process at a time; 0 with the CPU kernels
    chunk_nodes: int  #: nodes that inference embeds at a time


class Needs(NamedTuple):
    """The bytes that a model takes, beside those that every model takes.

    Every model takes: input vectors and two moments of Adam for them; weights, gradients and two
    moments; the positives, the subgraph and the graph; in inference, a stage's input and output.
    """

    weights: int  #: weights of all layers
    step: int  #: peak within a training step: activations, gradients, buffers
    inference: int  #: in inference: buffers of a chunk, with its output, and what all chunks share
    fixed: int = 0  #: compiled kernels and other things that any graph needs


class Times(NamedTuple):
    """Seconds per million directed edges, for the estimates of `cdd doctor --plan`.

    They are of `benchmarks/README.md`, "Models at their defaults": default settings, a synthetic
    graph of PrimeKG's size (63 edges per node), 2 cores of an Intel Xeon with AVX512_BF16. It is
    neither the fastest nor the slowest of the measured machines.
    """

    epoch: float
    inference: float


@dataclass(frozen=True)
class ModelKind:
    """A kind of model."""

    settings: type[Any]  #: class of the settings; see `Settings`
    #: Makes a model from the number of nodes before each type (T + 1 numbers), the number of edge
    #: types, the settings and the generator of the initial weights.
    make: Callable[[tuple[int, ...], int, Any, torch.Generator], TrainableModel]
    needs: Callable[[Sizes, Any], Needs]  #: returns the memory of a run with some settings
    #: Sizes of a model whose training of one step compiles all of its CPU kernels. None: the model
    #: does not have kernels that the others lack.
    tiny: Mapping[str, int] | None = None
    #: modules of `ops.cpu` whose kernels the model runs; empty: those of all other models
    kernels: tuple[ModuleType, ...] = ()
    times: Times | None = None  #: None: not measured
    #: learning rate of the input vectors in a training of 100 steps, as a multiple of learning_rate
    vector_rate: float = 1.0


def check_common(settings: Settings) -> None:
    """Check the settings that all models have.

    Raises:
        InputError: a setting is invalid; the message names the setting.
    """
    check_fields(settings)
    for name in ("subgraph_size", "subgraphs_per_step"):
        value = getattr(settings, name)
        if value is not None and settings.training == FULL:
            raise InputError(f"{name} (got {value}) needs training {SAMPLED!r} (got {FULL!r})")
