"""The table of all models. This file imports nothing slow, because the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ...system.errors import InputError, shown

if TYPE_CHECKING:
    from .interface import ModelKind

_KINDS = "clinical_drug_discovery.models.kinds"


@dataclass(frozen=True)
class Entry:
    """A row of the table of models."""

    title: str  #: name in texts for people
    module: str  #: has the `ModelKind` of the model under the name KIND, and the settings
    settings: str  #: name of the class of the settings, for the flags of the command line
    #: Module in the package and name of the model's own public function, whose signature has the
    #: defaults of the settings. None: `lib.embed_model` trains it, and its settings have defaults.
    function: tuple[str, str] | None = None


#: All models by the name that users type.
MODELS: dict[str, Entry] = {
    "graphsage": Entry(
        "GraphSAGE", f"{_KINDS}.graphsage", "SageSettings",
        ("lib.gnn_embeddings", "generate_gnn_embeddings"),
    ),
    "hgt": Entry(
        "HGT", f"{_KINDS}.hgt", "HgtSettings", ("lib.gnn_hgt", "generate_hgt_embeddings")
    ),
}  # fmt: skip


def entry_of(model: str) -> Entry:
    """Return the entry of a model.

    Raises:
        InputError: the table does not have this model.
    """
    if model not in MODELS:
        raise InputError(f"model (got {shown(model)}) must be one of {', '.join(MODELS)}")
    return MODELS[model]


def kind_of(model: str) -> ModelKind:
    """Return what a run needs to know of a model; this imports torch.

    Raises:
        InputError: the table does not have this model.
    """
    kind: ModelKind = import_module(entry_of(model).module).KIND
    return kind
