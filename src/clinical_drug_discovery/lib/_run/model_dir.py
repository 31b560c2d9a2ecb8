"""A model directory: a trained model, the graph, and the drug ranker fitted on both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from ...graph.knowledge_graph import KnowledgeGraph
from ...graph.stored.graph_file import load_graph, save_graph
from ...models.embeddings_file import RUN, run_of_embeddings
from ...system import disk
from ...system.errors import InputError
from ...system.files import (
    Array,
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    checksum,
    save_arrays,
    save_record,
    stored_checksum,
)
from ...system.progress import Run
from ...system.run_directory import settle
from ...system.untrusted.inputs import read_json

if TYPE_CHECKING:
    from ...ranking.drug_ranker import DrugRanker
    from ...training.train import Trained

GRAPH_FILE, RANKER_FILE, WEIGHTS_FILE = (
    f"{name}.safetensors" for name in ("graph", "ranker", "weights")
)
CHECKPOINT_FILE = "checkpoint.safetensors"  # the end of the training, for a longer training
LOG_SUMS_FILE = "log_sums.safetensors"  #: written by questions about drugs, not by a run
CONFIG_FILE, STATS_FILE = "config.json", "stats.json"
MODEL_FILES = (
    WEIGHTS_FILE, "nodes.parquet", "history.csv", CONFIG_FILE, STATS_FILE, GRAPH_FILE, RANKER_FILE,
    CHECKPOINT_FILE,
)  # fmt: skip
# Increase it whenever this package would read an existing file differently.
MODEL_VERSION = 2  #: format version of config.json
_ID_DIGITS, _SHOWN = 32, 12  # digits of the id of a run: in files, in messages
_Content = TypeVar("_Content")


def model_dir_of(output: str | Path) -> Path:
    """Return the default model directory: `<name>_model` beside the embeddings file `<name>.*`."""
    path = Path(output)
    return path.with_name(f"{path.stem}_model")


def read_model_graph(model_dir: Path, sha256: str | None = None) -> KnowledgeGraph:
    """Read the graph from a model directory.

    Args:
        model_dir: directory of the model.
        sha256: required checksum of the graph's file; None accepts any checksum.

    Raises:
        InputError: the file is missing or damaged, or has another checksum.
    """
    graph, about = _read(model_dir, GRAPH_FILE, load_graph)
    check_same_run(model_dir, {GRAPH_FILE: about.get(RUN)})
    if sha256 is not None and stored_checksum(model_dir / GRAPH_FILE) != sha256:
        raise InputError(
            f"model_dir (got {model_dir}) has a ranker that was fitted on another graph than the "
            f"graph in {GRAPH_FILE}; run cdd embed again"
        )
    return graph


def read_model_ranker(model_dir: Path) -> tuple[DrugRanker, str]:
    """Read the ranker from a model directory, and the checksum of the graph it was fitted on.

    Raises:
        InputError: the file is missing or damaged, or another version of the package wrote it.
    """
    # Not at the top: this imports scipy's sparse matrices, which a question to embeddings alone
    # does not need.
    from ...ranking.stored.ranker_file import load_ranker

    ranker, sha256, run = _read(model_dir, RANKER_FILE, load_ranker)
    check_same_run(model_dir, {RANKER_FILE: run})
    return ranker, sha256


def run_of_model(model_dir: Path) -> str | None:
    """Return the id of the run that wrote a model directory; None before version 2 of its format.

    Raises:
        InputError: config.json is missing or damaged.
    """
    path = model_dir / CONFIG_FILE
    try:
        config = read_json(path)
        run, version = config.get(RUN), int(config["format_version"])
    except FileNotFoundError:
        raise InputError(f"model_dir (got {model_dir}) must hold {CONFIG_FILE}") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}; run cdd embed again") from None
    if version > MODEL_VERSION:
        raise InputError(
            f"{path} has format version {version}, and this version of the package reads up to "
            f"{MODEL_VERSION}: use the version that wrote it"
        )
    return None if run is None else str(run)


def check_same_run(model_dir: Path, runs: Mapping[str, str | None]) -> None:
    """Check that files are of the run that wrote a model directory.

    Args:
        model_dir: directory of the model.
        runs: id of the run in each file, by name.

    Raises:
        InputError: a file is of another run.
    """
    expected = run_of_model(model_dir)
    for name, run in runs.items():
        if run != expected:
            first, second = (
                f"run {str(one)[:_SHOWN]}" if one else "an unnamed run" for one in (run, expected)
            )
            raise InputError(
                f"model_dir (got {model_dir}) mixes two runs: {name} is of {first}, and "
                f"{CONFIG_FILE} is of {second}; take all files of one run, or run cdd embed again"
            )


def check_embeddings_of(embeddings: Path, model_dir: Path) -> None:
    """Check that embeddings, if they carry the id of a run, are of the run of a model.

    Raises:
        InputError: they are of another run.
    """
    found, run = run_of_embeddings(embeddings), run_of_model(model_dir)
    if None not in (found, run) and found != run:
        raise InputError(
            f"embeddings (got {embeddings}) are of another run than the model in {model_dir}; "
            "model_dir must be the directory that was written with the embeddings"
        )


def _read(model_dir: Path, name: str, load: Callable[[Path], _Content]) -> _Content:
    settle(model_dir)
    if not model_dir.is_dir():
        raise InputError(f"model_dir (got {model_dir}) must be a directory")
    path, hint, again = model_dir / name, "", "run cdd embed again"
    if name == RANKER_FILE:  # needs no training
        again = f"cdd fit-ranker --model-dir {model_dir} fits it"
        hint = f"; {again}" if (model_dir / GRAPH_FILE).exists() else ""
    try:
        return load(path)
    except FileNotFoundError:
        raise InputError(f"model_dir (got {model_dir}) must hold {name}{hint}") from None
    except OtherVersionError as error:
        raise InputError(f"{path} has {error}; {again}") from None
    except DamagedFileError as error:
        raise InputError(f"{path} is damaged: {error}; {again}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def add_ranker(model_dir: Path, ranker: DrugRanker, run: str | None) -> None:
    """Write a ranker to the directory of its model, in place of an earlier ranker."""
    from ...ranking.stored.ranker_file import save_ranker

    sha256 = stored_checksum(model_dir / GRAPH_FILE)
    with atomic_path(model_dir / RANKER_FILE) as path:
        save_ranker(path, ranker, sha256, run)


def check_not_input(output: Path, model_dir: Path | None, *inputs: str | Path | None) -> None:
    """Check that the answer to a question overwrites neither the model nor another input.

    Args:
        output: the file to write.
        model_dir: the model directory that is asked, if one is.
        inputs: other input files, or None.

    Raises:
        InputError: a file would be overwritten.
    """
    taken = [Path(path) for path in inputs if path is not None]
    taken += [] if model_dir is None else [model_dir / name for name in MODEL_FILES]
    if output.resolve() in [path.resolve() for path in taken]:
        raise InputError(f"output (got {output}) would overwrite an input of this command")
    # If the output is a symbolic link, the file behind it would be replaced.
    of_output = [model_dir_of(path).resolve() for path in (output, output.resolve())]
    if model_dir is not None and model_dir.resolve() in of_output:
        raise InputError(f"output (got {output}) would overwrite the model's embeddings")


def check_targets(sources: Mapping[str, Path], output: Sequence[Path], model_dir: Path) -> None:
    """Check that a run overwrites neither input files nor other outputs of the same run.

    Args:
        sources: input files and cached files; the keys are their names in error messages.
        output: the embeddings files to write.
        model_dir: the model directory to write.

    Raises:
        InputError: a file would be overwritten, or its path is a directory.
    """
    taken = {path.resolve(): name for name, path in sources.items()}
    for path in (*output, model_dir, *(model_dir / name for name in MODEL_FILES)):
        if path.resolve() in taken:
            raise InputError(f"{path} would be written, but it is {taken[path.resolve()]}")
        taken[path.resolve()] = "another output"
        if path != model_dir and path.is_dir():
            raise InputError(f"{path} would be written, but it is a directory")


def save_model(
    run: Run,
    directory: Path,
    graph: KnowledgeGraph,
    trained: Trained,
    parameters: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> str:
    """Write a trained model and its graph to a directory; make the directory if it is missing.

    The files are weights.safetensors, nodes.parquet (row i describes row i of the model's node
    embedding), history.csv (one row per epoch), graph.safetensors and config.json.

    Args:
        run: provides the names and the hash of the graph's files.
        directory: directory to write to.
        graph: the graph that the model was trained on.
        trained: the model.
        parameters: settings of the run, for config.json.
        arguments: parameters that repeat the run, for `cdd embed --config`.

    Returns:
        The id of the run. It is computed from the weights and the configuration, so that two runs
        with the same results have the same id, and their files the same bytes.

    Raises:
        WriteError: a file cannot be written.
    """
    weights: dict[str, Array] = {
        f"{name}.{key}": tensor.detach().cpu().contiguous().numpy()
        for name, module in (("model", trained.model), ("decoder", trained.decoder))
        for key, tensor in module.state_dict().items()
    }
    config = {
        "format_version": MODEL_VERSION,
        **parameters,
        "num_nodes": graph.num_nodes,
        "node_types": graph.node_type_names,
        "type_ptr": graph.arrays.type_ptr.tolist(),
        "relations": graph.relations,
        "edge_types": graph.edge_types,
    }
    # Without the files of the graph: the same graph in another order gives the same run.
    name = checksum(json.dumps(config), weights)[:_ID_DIGITS]
    # Names and a hash instead of paths: a model may be published.
    files = [path.name for path in run.edges]
    config |= {"edges_files": files, "edges_sha256": next(iter(run.edges_sha256), None)}
    config |= {"finished_epochs": len(trained.history), "arguments": dict(arguments)}
    with atomic_path(directory / WEIGHTS_FILE) as path:
        save_arrays(path, weights, {RUN: name})
    with atomic_path(directory / "nodes.parquet") as path, disk.create(path) as file:
        graph.nodes.write_parquet(file, metadata={RUN: name})
    with atomic_path(directory / "history.csv") as path, disk.create(path) as file:
        pl.DataFrame(trained.history, infer_schema_length=None).write_csv(file)
    with atomic_path(directory / GRAPH_FILE) as path:
        save_graph(path, graph, {RUN: name})
    save_record(directory / CONFIG_FILE, {RUN: name, **config})
    return name
