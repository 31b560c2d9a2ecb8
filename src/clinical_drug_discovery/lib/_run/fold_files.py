"""The files of the folds of an evaluation, so that a stopped evaluation can continue."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ...system import disk
from ...system.errors import InputError
from ...system.files import atomic_path, save_record
from ...system.log import milestone
from ...system.untrusted.inputs import read_json
from .evaluation import RANKS, REPORT

_AGAIN = "start again with overwrite (--overwrite)"


class FoldFiles(NamedTuple):
    """The files of finished folds: `fold_1.json`, `fold_1_ranks.parquet` and so on.

    Each record has the settings of its command. A later command continues only with the same
    settings, graph and version of the package.
    """

    directory: Path
    settings: Mapping[str, Any]  #: any JSON values

    def finished(self) -> list[int]:
        """Return the numbers of the finished folds.

        Raises:
            InputError: another command wrote a fold, or a file is damaged.
        """
        numbers = [int(path.stem.removeprefix("fold_")) for path in fold_paths(self.directory)]
        for number in numbers:
            self._check(number)
        return sorted(numbers)

    def write(self, number: int, report: Mapping[str, Any], ranks: pl.DataFrame) -> None:
        """Write the ranks of a fold, then its record, which marks the fold as finished."""
        with atomic_path(self._ranks(number)) as path, disk.create(path) as file:
            ranks.with_columns(fold=pl.lit(number, pl.Int64)).write_parquet(file)
        save_record(self._record(number), {"settings": self.settings, "report": report})
        milestone(f"Wrote {self._record(number).name} and {self._ranks(number).name}")

    def read(self, numbers: Sequence[int]) -> tuple[list[dict[str, Any]], pl.DataFrame]:
        """Return the reports and the ranks of finished folds."""
        reports = [self._load(number)["report"] for number in numbers]
        try:
            tables = [pl.read_parquet(self._ranks(number)) for number in numbers]
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(
                f"the ranks of a fold in {self.directory} cannot be read: {reason}; {_AGAIN}"
            ) from None
        return reports, pl.concat(tables)

    def _check(self, number: int) -> None:
        """Check that the same command wrote a fold."""
        path, settings = self._record(number), self._load(number)["settings"]
        for name, value in json.loads(json.dumps(self.settings)).items():
            if settings.get(name) != value:
                raise InputError(
                    f"{path} was written with {name} {settings.get(name)!r}, but this command has "
                    f"{value!r}: choose another output, or {_AGAIN}"
                )
        if not self._ranks(number).is_file():
            raise InputError(f"{self._ranks(number)} is missing; {_AGAIN}")

    def _load(self, number: int) -> dict[str, Any]:
        path = self._record(number)
        try:
            record = read_json(path)
            return {name: dict(record[name]) for name in ("settings", "report")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error}; {_AGAIN}") from None

    def _record(self, number: int) -> Path:
        return self.directory / f"fold_{number}.json"

    def _ranks(self, number: int) -> Path:
        return self.directory / f"fold_{number}_ranks.parquet"


def fold_paths(directory: Path) -> list[Path]:
    """Return the records of the finished folds in a directory, which may be missing."""
    pattern = re.compile(r"fold_[1-9]\d*\.json")
    return [path for path in directory.glob("fold_*.json") if pattern.fullmatch(path.name)]


def remove_folds(directory: Path) -> None:
    """Remove the files of the folds of an earlier evaluation."""
    for path in fold_paths(directory):
        path.unlink()
        path.with_name(f"{path.stem}_ranks.parquet").unlink(missing_ok=True)


def remove_evaluation(directory: Path) -> None:
    """Remove all files of an earlier evaluation."""
    for name in (REPORT, RANKS):
        (directory / name).unlink(missing_ok=True)
    remove_folds(directory)
