"""The declaration of all parameters: type and default in the signature, range in the tables below.

`check_arguments` reads the signature of a public function and checks each argument before anything
else happens. `check_fields` does the same for a dataclass of settings. Rules about two parameters,
or about a parameter and a graph, stand where both are known.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

from ..errors import InputError, check_at_least, check_between, shown
from .memory import parse_memory

_MOST = 2**63 - 1  # the largest whole number of numpy, polars and torch

_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes, of Linux and of most file systems


@dataclass(frozen=True)
class Range:
    """The allowed numbers, from `low` to `high`."""

    low: float
    high: float
    low_allowed: bool = True


ONLY_AT_END = 1_000_000  #: `checkpoint_minutes` that saves no checkpoint before the end
_COUNT = Range(1, _MOST)
_SHARE = Range(0, 1)
_ANY = Range(-_MOST, _MOST)  # of a number that the table lacks; a test finds such parameters
# Adam moves each weight by about the learning rate, and float32 cannot hold the squares of more.
_MOST_FLOAT32 = 1e18
#: The range of each number, by the name of its parameter.
RANGES: dict[str, Range] = {
    # At least 2 numbers per vector: layer normalization would turn a single number into 0.
    "embedding_dim": Range(2, 2**20),
    "hidden_dim": Range(2, 2**20),
    "num_layers": Range(1, 100),
    "num_heads": Range(1, 2**20),
    "num_epochs": Range(1, 10**6),
    "learning_rate": Range(0, _MOST_FLOAT32, low_allowed=False),
    "edge_batch_size": _COUNT,
    "edge_sample_size": _COUNT,
    "contrastive_weight": _SHARE,
    "similarity_threshold": Range(0, 1, low_allowed=False),
    "temperature": Range(0.001, _MOST_FLOAT32),
    "subgraph_size": _COUNT,
    "subgraphs_per_step": _COUNT,
    "limit_nodes": _COUNT,
    "num_nodes": Range(1, 2**31 - 1),  # node and edge numbers are int32
    "num_edges": Range(2, 2**31 - 1),
    "chunk_size": _COUNT,
    "num_steps": Range(1, 100),
    "max_nodes": _COUNT,
    "seed": Range(0, _MOST),
    "top": _COUNT,
    "share": Range(0, 1, low_allowed=False),
    "num_diseases": _COUNT,
    "num_areas": _COUNT,
    "min_drugs": _COUNT,
    "max_drugs": _COUNT,
    "relation_share": _SHARE,
    "validation_share": _SHARE,
    "folds": Range(2, _MOST),
    "checkpoint_minutes": Range(0, ONLY_AT_END, low_allowed=True),
    "scale": Range(0, 64, low_allowed=False),
    "workers": Range(1, 1024),
    "port": Range(0, 65535),
    "max_unpacked_gib": Range(0, 2**20, low_allowed=False),
}
#: The words that a parameter allows, where no other table lists them.
CHOICES: dict[str, tuple[str, ...]] = {
    "training": ("full", "sampled"),
    "tracker": ("tensorboard", "mlflow", "wandb"),
    "on_conflict": ("error", "first"),
    "on_missing": ("error", "drop"),
    "color_by": ("class", "area", "degree", "cluster", "type"),
    "method": ("umap", "pca"),
}
#: Names in messages that differ from the name of the parameter.
_SHOWN_NAMES = {"edges_csv": "edges file"}


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check arguments of a function against its signature and the tables of this module.

    Args:
        function: its annotations are the types; a dataclass is checked by `check_fields`.
        arguments: some or all arguments by name, as plain Python values.

    Raises:
        InputError: an argument is invalid; the message names it, its value and the rule.
    """
    declared = inspect.signature(function).parameters
    known = getattr(inspect.unwrap(function), "__globals__", {})
    for name, value in arguments.items():
        check_value(name, declared[name].annotation, value, known)


def check_fields(settings: Any) -> None:
    """Check the fields of a dataclass as `check_arguments` checks arguments."""
    known = vars(sys.modules[type(settings).__module__])
    for field in fields(settings):
        check_value(field.name, field.type, getattr(settings, field.name), known)


def check_value(
    name: str, annotation: Any, value: Any, known: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Check one value.

    Args:
        name: of the parameter.
        annotation: its type, as written in the signature.
        value: as a plain Python value.
        known: classes of settings by their names in annotations.

    Raises:
        InputError: the value is invalid.
    """
    kind = str(annotation)
    required = kind.removesuffix(" | None")
    if value is None:
        if required == kind:
            raise InputError(f"{_SHOWN_NAMES.get(name, name)} (got None) must be given")
    elif required in KINDS:
        KINDS[required](name, value)
    elif is_dataclass(cls := known.get(required)):
        if not isinstance(value, cls):  # type: ignore[arg-type]  # a class, not an instance
            raise InputError(f"{name} (got {shown(value)}) must be a {required}")
        check_fields(value)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} (got {shown(value)}) must be True or False")


def _check_whole(name: str, value: Any) -> None:
    allowed = RANGES.get(name, _ANY)
    check_at_least(name, value, int(allowed.low), int(allowed.high))


def _check_number(name: str, value: Any) -> None:
    allowed = RANGES.get(name, _ANY)
    check_between(name, value, allowed.low, allowed.high, low_allowed=allowed.low_allowed)


def _check_text(name: str, value: Any) -> None:
    if not _is_name(value):
        raise InputError(f"{name} (got {shown(value)}) must be text, not empty and valid in UTF-8")
    choices = CHOICES.get(name)
    if choices is not None and value not in choices:
        rule = " or ".join(map(repr, choices))
        raise InputError(f"{name} (got {shown(value)}) must be {rule}")


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value or not all(map(_is_name, value)):
        raise InputError(f"{name} (got {shown(value)}) must be a list of at least one name")


def _check_path(name: str, value: Any) -> None:
    shown_name = _SHOWN_NAMES.get(name, name)
    if not isinstance(value, str | Path) or not (text := os.fspath(value)):
        raise InputError(f"{shown_name} (got {shown(value)}) must be a path")
    if "\0" in text:
        raise InputError(f"{shown_name} (got {shown(text)}) must be a path without a NUL byte")
    if not is_text(text):
        raise InputError(
            f"{shown_name} (got {shown(text)}) must be a path that UTF-8 can hold; in the C "
            "locale, set PYTHONUTF8=1"
        )
    if max(len(os.fsencode(part)) for part in text.split(os.sep)) > _LONGEST_NAME:
        rule = f"must be a path whose names have at most {_LONGEST_NAME} bytes"
        raise InputError(f"{shown_name} (got {shown(text)}) {rule}")
    if len(os.fsencode(text)) >= _LONGEST_PATH:
        rule = f"must be a path of fewer than {_LONGEST_PATH} bytes"
        raise InputError(f"{shown_name} (got {shown(text)}) {rule}")


def _check_paths(name: str, value: Any) -> None:
    several = isinstance(value, list | tuple)
    if several and not value:
        raise InputError(f"{_SHOWN_NAMES.get(name, name)} (got {shown(value)}) must be a path")
    for path in value if several else [value]:
        _check_path(name, path)


def _check_hook(name: str, value: Any) -> None:
    if not callable(value):
        raise InputError(f"{name} (got {shown(value)}) must be a function")


def _check_graph(name: str, value: Any) -> None:
    if not getattr(value, "is_data", False):  # a KnowledgeGraph
        _check_paths(name, value)


def _check_model(name: str, value: Any) -> None:
    if not getattr(value, "is_data", False):  # a Model
        _check_path(name, value)


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(map(is_text, value)):
        raise InputError(f"{name} (got {shown(value)}) must be a dict of settings by name")


def _is_name(value: Any) -> bool:
    return is_text(value) and value != ""


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether a value is text that UTF-8 can hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


#: Annotation without `| None`: the check of a value.
KINDS: dict[str, Callable[[str, Any], None]] = {
    "bool": _check_flag,
    "int": _check_whole,
    "float": _check_number,
    "str": _check_text,
    "str | int": lambda _, value: check_memory(value),
    "str | Path": _check_path,
    "EdgesPath": _check_paths,
    "EdgesPath | KnowledgeGraph": _check_graph,
    "str | Path | Model": _check_model,
    "Sequence[str]": _check_texts,
    "Mapping[str, Any]": _check_mapping,
    "EpochHook": _check_hook,
}


def check_memory(value: Any) -> None:
    """Check a memory budget; see `parse_memory`."""
    parse_memory(value)
