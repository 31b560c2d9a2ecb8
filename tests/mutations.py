"""Random changes of the files of a model directory and of checkpoints, with right checksums."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinical_drug_discovery.graph.stored.graph_file import FORMAT_VERSION
from clinical_drug_discovery.lib._run.model_dir import GRAPH_FILE, RANKER_FILE
from clinical_drug_discovery.ranking.stored.ranker_file import RANKER_VERSION
from clinical_drug_discovery.system.files import load_checksummed, save_checksummed, stored_checksum
from clinical_drug_discovery.training.checkpoint import VERSION as CHECKPOINT_VERSION
from clinical_drug_discovery.training.checkpoint import Checkpoints

_NUMBERS: tuple[Any, ...] = (0, 1, -1, 2, 2**31 - 1, -(2**31), 2**63 - 1, 1e300, -0.5)
_VALUES: tuple[Any, ...] = (None, True, "", "x", "\x00", "\x1b[2J", [], {}, [[]], [None], *_NUMBERS)
_FLOATS = (float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0)


def mutate(model_dir: Path, target: Path, seed: int) -> str:
    """Copy a model directory with one to three changes; return the name of what was changed."""
    chosen = random.Random(seed)
    shutil.copytree(model_dir, target, dirs_exist_ok=True)
    files = {GRAPH_FILE: FORMAT_VERSION, RANKER_FILE: RANKER_VERSION}
    changed = chosen.choice(list(files))
    text = _change(target / changed, files[changed], chosen)
    if changed == GRAPH_FILE:
        reseal_ranker(target)
    return f"{changed}: {text}"


def mutate_checkpoint(path: Path, seed: int) -> str:
    """Change one to three values of a checkpoint; return the names of what was changed."""
    return _change(path, CHECKPOINT_VERSION, random.Random(seed))


def stopped_run(directory: Path, generate: Callable[..., Any], settings: dict[str, Any]) -> Path:
    """Run in a directory with a graph `kg.csv` until one checkpoint is saved; return its path."""
    save = Checkpoints.save

    def saving(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    # mypy does not allow another function in place of a method.
    Checkpoints.save = saving  # type: ignore[method-assign, assignment]
    try:
        generate(directory / "kg.csv", directory / "e.npy", checkpoint_minutes=0, **settings)
    except KeyboardInterrupt:
        pass
    finally:
        Checkpoints.save = save  # type: ignore[method-assign]
    (path,) = (directory / "e_model.run").glob("checkpoint-*")
    return path


def _change(path: Path, version: int, chosen: random.Random) -> str:
    """Change one to three values of a checksummed file."""
    record, tensors = load_checksummed(path, version)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    texts = []
    for _ in range(chosen.choice((1, 1, 2, 3))):
        if chosen.random() < 0.7:
            texts.append(_change_tensor(tensors, chosen))
        else:
            texts.append(_change_record(record, chosen))
    rewrite(path, version, record, tensors)
    return "; ".join(texts)


def rewrite(path: Path, version: int, record: Any, tensors: dict[str, Tensor]) -> None:
    """Replace a file; the old one may still be mapped."""
    path.unlink()
    save_checksummed(path, version, record, tensors)


def reseal_ranker(model_dir: Path) -> None:
    """Write the checksum of the graph into the ranker, so that they belong together."""
    path = model_dir / RANKER_FILE
    record, tensors = load_checksummed(path, RANKER_VERSION)
    record["graph_sha256"] = stored_checksum(model_dir / GRAPH_FILE)
    rewrite(path, RANKER_VERSION, record, {name: t.clone() for name, t in tensors.items()})


def _change_tensor(tensors: dict[str, Tensor], chosen: random.Random) -> str:
    name = chosen.choice(sorted(tensors))
    tensor, kind = tensors[name], chosen.random()
    if kind < 0.7 and tensor.numel():
        at = chosen.randrange(tensor.numel())
        flat = tensor.view(-1)
        if tensor.dtype.is_floating_point:
            flat[at] = chosen.choice(_FLOATS)
        else:
            limits = torch.iinfo(tensor.dtype)
            new = chosen.choice((int(flat[at]) + 1, int(flat[at]) - 1, *map(int, _NUMBERS)))
            flat[at] = min(max(new, limits.min), limits.max)
        return f"{name}[{at}] = {flat[at]}"
    if kind < 0.75:
        del tensors[name]
        return f"{name} is missing"
    many = tensor if tensor.dim() else tensor[None]
    changed = chosen.choice(
        (
            many[:-1],
            torch.cat([many, many]),
            tensor.double(),
            tensor[None],
            tensor.flatten(),
            many[:0],
            many.flip(0),
        )
    )
    tensors[name] = changed.clone().contiguous()
    return f"{name} has shape {list(changed.shape)} and type {changed.dtype}"


def _change_record(record: Any, chosen: random.Random) -> str:
    """Change one value of a JSON record in place."""
    place, path = record, []
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = chosen.choice(keys)
        path.append(str(key))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chosen.random() < 0.8:
            place = inner
            continue
        if isinstance(place, dict) and chosen.random() < 0.1:
            del place[key]
            return f"{'.'.join(path)} is missing"
        place[key] = chosen.choice(_VALUES)
        return f"{'.'.join(path)} = {json.dumps(place[key])}"
