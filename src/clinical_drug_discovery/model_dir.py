"""What a model directory holds for questions: the graph and, fitted on it, a ranker of drugs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clinical_drug_discovery.graph.cache import load_graph, save_graph
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.ranker_file import load_ranker, save_ranker
from clinical_drug_discovery.ranking.drug_ranker import DrugRanker
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    sealed_checksum,
)

GRAPH_FILE, RANKER_FILE = "graph.safetensors", "ranker.safetensors"
_Content = TypeVar("_Content")


def model_dir_of(output: str | Path) -> Path:
    """Where the model of a file of embeddings stands, if nothing else was said."""
    path = Path(output)
    return path.with_name(f"{path.stem}_model")


def write_ranker(model_dir: Path, graph: KnowledgeGraph, ranker: DrugRanker | None) -> None:
    """Write the graph and the ranker to a model directory; a ranker of an earlier run goes."""
    (model_dir / RANKER_FILE).unlink(missing_ok=True)
    with atomic_path(model_dir / GRAPH_FILE) as path:
        save_graph(path, graph, {})
        sha256 = sealed_checksum(path)
    if ranker is not None:
        with atomic_path(model_dir / RANKER_FILE) as path:
            save_ranker(path, ranker, sha256)


def read_model_graph(model_dir: Path, sha256: str | None = None) -> KnowledgeGraph:
    """Read the graph of a model.

    Args:
        model_dir: where it stands.
        sha256: the checksum that it must have.

    Raises:
        InputError: it is missing, damaged, or another one.
    """
    graph, _ = _read(model_dir, GRAPH_FILE, load_graph)
    if sha256 is not None and sealed_checksum(model_dir / GRAPH_FILE) != sha256:
        raise InputError(
            f"model_dir (got {model_dir}) holds a ranker of another graph than "
            f"{GRAPH_FILE}; run cdd embed anew"
        )
    return graph


def read_model_ranker(model_dir: Path) -> tuple[DrugRanker, str]:
    """Read the ranker of a model, and the checksum of the graph that it belongs to.

    Raises:
        InputError: it is missing or damaged.
    """
    return _read(model_dir, RANKER_FILE, load_ranker)


def _read(model_dir: Path, name: str, load: Callable[[Path], _Content]) -> _Content:
    if not model_dir.is_dir():
        raise InputError(f"model_dir (got {model_dir}) is no directory")
    path = model_dir / name
    try:
        return load(path)
    except FileNotFoundError:
        why = "has none"
        if name == RANKER_FILE:
            why = "has none: cdd embed fits one, unless --no-ranker or its warnings say otherwise"
        raise InputError(f"model_dir (got {model_dir}) must hold {name}, it {why}") from None
    except OtherVersionError as error:
        raise InputError(f"{path} is of {error}; run cdd embed anew") from None
    except DamagedFileError as error:
        raise InputError(f"{path} is damaged: {error}; run cdd embed anew") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
