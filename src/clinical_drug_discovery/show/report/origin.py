"""The origin of a report: the graph, the model, the program and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...api.model import Model
from ...evaluation.folds import graph_fingerprint
from ...lib._run.model_dir import CONFIG_FILE, STATS_FILE
from ...models.kinds.table import MODELS
from ...system.errors import InputError, counted
from ...system.untrusted.inputs import read_json

Row = tuple[str, str]  #: name and value


def model_origin(model: Model) -> list[Row]:
    """Return the graph, the run and the settings of a model as rows of a table.

    Raises:
        InputError: a file of the model directory is damaged.
    """
    config, stats = (_read(model.directory / name) for name in (CONFIG_FILE, STATS_FILE))
    graph = model.graph
    rows = [
        ("graph", f"{graph.num_nodes:,} nodes, {graph.num_edges:,} directed edges, "
         f"{counted(len(graph.relations), 'relation')}"),
        ("files of the graph", ", ".join(map(str, config.get("edges_files") or []))),
        ("SHA-256 of the file", str(config.get("edges_sha256") or "")),
        ("hash of the content", graph_fingerprint(graph)),
        ("model", model_title(config.get("model"))),
        ("run", str(config.get("run") or "")),
        ("trained", _when(stats)),
        ("settings", _settings(config.get("arguments") or {})),
        ("added after training", ", ".join(model.new_nodes["node_name"].to_list())),
        ("warnings of the run", " ".join(map(str, stats.get("warnings") or []))),
    ]  # fmt: skip
    return [row for row in rows if row[1]]


def evaluation_origin(report: Mapping[str, Any]) -> list[Row]:
    """Return the graph and the settings of an evaluation as rows of a table."""
    rows = [
        ("hash of the graph", str(report.get("graph") or "")),
        ("evaluated", _when(report)),
        ("run of the model", str(report.get("run") or "")),
        ("device", str(report.get("device") or "")),
        ("seed", str(report.get("seed"))),
        ("settings", _settings(report.get("parameters") or {})),
        ("warnings", " ".join(map(str, report.get("warnings") or []))),
    ]  # fmt: skip
    return [row for row in rows if row[1]]


def model_title(name: object) -> str:
    """Return the name of a model as people write it; a model of another program keeps its name."""
    return MODELS[name].title if isinstance(name, str) and name in MODELS else str(name)


def program() -> str:
    """Return the name and the version of this program."""
    return f"clinical-drug-discovery {version('clinical-drug-discovery')}"


def _when(record: Mapping[str, Any]) -> str:
    """Return the date of a record and the version of the program that wrote it."""
    return " with version ".join(
        str(record[name]) for name in ("date", "version") if name in record
    )


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
