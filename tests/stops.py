"""A process that dies after some checkpoints, and the results that must not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clinical_drug_discovery.training.checkpoint import Checkpoints


class Killed(BaseException):
    """Ends a run at a moment that the test chooses."""


def kill_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process die after it has saved so many checkpoints."""
    save, saved = Checkpoints.save, []

    def saving(*given: Any) -> None:
        save(*given)
        saved.append(1)
        if len(saved) == number:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", saving)


def results(output: Path) -> list[bytes]:
    """Return the bytes that must not depend on a stop, and the history without its times."""
    model_dir = output.with_name(f"{output.stem}_model")
    history = pl.read_csv(model_dir / "history.csv").drop("seconds").write_csv().encode()
    names = ("weights.safetensors", "config.json")
    return [output.read_bytes(), *((model_dir / name).read_bytes() for name in names), history]
