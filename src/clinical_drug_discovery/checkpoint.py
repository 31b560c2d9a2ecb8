"""Files that are whole or absent: atomic writes, and the model directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save_file

from clinical_drug_discovery.errors import InputError

FORMAT_VERSION = 1
MODEL_FILES = (
    "weights.safetensors", "nodes.parquet", "history.csv", "config.json", "stats.json",
    "graph.safetensors", "ranker.safetensors",
)  # fmt: skip


def check_targets(sources: Mapping[str, Path], output: Sequence[Path], model_dir: Path) -> None:
    """Refuse files that would take each other's place, or that of a file that is read.

    Args:
        sources: files that are read, or kept for reading, by what to call them.
        output: the files of embeddings that will be written.
        model_dir: where the model's files will be written.
    """
    taken = {path.resolve(): name for name, path in sources.items()}
    for path in (*output, model_dir, *(model_dir / name for name in MODEL_FILES)):
        if path.resolve() in taken:
            raise InputError(f"{path} would be written, but it is {taken[path.resolve()]} as well")
        taken[path.resolve()] = "another output"
        if path != model_dir and path.is_dir():
            raise InputError(f"{path} would be written, but it is a directory")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on success it takes the name, else it goes.

    Args:
        path: where the finished file is to stand; missing directories are made. Of a symbolic link
            the target is replaced, and the link stays.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files for the owner alone; the finished one gets what open() would give.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(name: str, directory: Path) -> None:
    """Refuse a directory that could not be made or written to, before anything expensive starts.

    Nothing is made yet, so a run that fails later leaves nothing behind.

    Args:
        name: the parameter that it comes from, for the error.
        directory: where files are to be written; missing parents will be made then.
    """
    try:
        places = (directory, *directory.absolute().parents)
        existing = next(path for path in places if path.exists())
    except OSError as error:
        raise InputError(
            f"{name} (got {directory}) cannot be written to: {error.strerror}"
        ) from None
    if not existing.is_dir():
        raise InputError(f"{name} (got {directory}) cannot be a directory: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"{name} (got {directory}) cannot be written to: no permission in {existing}"
        )


def save_model(
    model_dir: Path,
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    nodes: pl.DataFrame,
    history: Sequence[Mapping[str, float | None]],
) -> None:
    """Write all that a trained model is: no pickles, every file readable by common tools.

    Args:
        model_dir: a directory, made if missing; files of other names in it are left alone.
        weights: to weights.safetensors.
        config: to config.json: the model's kind, its sizes, the names of types and relations.
        nodes: to nodes.parquet: row i describes row i of the model's node embedding.
        history: to history.csv, one row per epoch.
    """
    with atomic_path(model_dir / "weights.safetensors") as path:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    with atomic_path(model_dir / "nodes.parquet") as path:
        nodes.write_parquet(path)
    with atomic_path(model_dir / "history.csv") as path:
        pl.DataFrame(list(history), infer_schema_length=None).write_csv(path)
    save_record(model_dir / "config.json", {"format_version": FORMAT_VERSION, **config})


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
