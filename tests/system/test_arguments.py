"""Arguments from numpy, pandas, polars and torch become plain Python values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from clinical_drug_discovery.system.arguments import plain, plain_arguments
from clinical_drug_discovery.system.errors import InputError


class Word(str, Enum):  # noqa: UP042  # its str() is not its text
    DRUG = "drug"


@dataclass(frozen=True)
class Settings:
    number: Any
    names: Any


class Index:
    """A stand-in for the Index and Series of pandas, which is not a dependency."""

    dtype = "object"

    def tolist(self) -> list[Any]:
        return [np.str_("drug"), np.int64(3)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(16), 16),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("drug"), "drug"),
        (Word.DRUG, "drug"),
        (np.array(16), 16),
        (torch.tensor(16), 16),
        (np.array(["drug", "disease"]), ["drug", "disease"]),
        (np.array(["drug"], dtype=object), ["drug"]),
        (pl.Series(["drug", "disease"]), ["drug", "disease"]),
        (Index(), ["drug", 3]),
        (("drug", np.str_("disease")), ["drug", "disease"]),
        ({"drug", "disease"}, ["disease", "drug"]),
        ({"drug": 1}.keys(), ["drug"]),
        ({"num_epochs": np.int32(5)}, {"num_epochs": 5}),
        (Settings(np.int8(1), np.array(["a"])), Settings(1, ["a"])),
        (Path("kg.csv"), Path("kg.csv")),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,  # the same name in each worker process
)
def test_a_value_becomes_plain(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    if not isinstance(found, Path | Settings):
        json.dumps(found)  # fails for numpy's numbers
    if isinstance(found, Settings):
        assert type(found.number) is int


def test_a_callable_object_is_not_copied() -> None:
    @dataclass
    class Hook:
        rows: list[int]

        def __call__(self, row: int) -> None:
            self.rows.append(row)

    hook = Hook([])
    assert plain(hook) is hook


def test_a_decorated_function_keeps_its_signature_and_gets_plain_arguments() -> None:
    def function(top: int, *, treats: Sequence[str] | None = None) -> tuple[Any, Any]:
        """Return both arguments."""
        return top, treats

    decorated = plain_arguments(function)
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated.__doc__ == function.__doc__
    top, treats = decorated(np.int64(2), treats=np.array(["x"]))  # type: ignore[arg-type]  # plain
    assert (type(top), treats) == (int, ["x"])
    with pytest.raises(InputError, match=r"top \(got 0\) must be a whole number of at least 1"):
        decorated(0)
    with pytest.raises(TypeError, match=r"^function\(\) missing a required argument: 'top'"):
        decorated()  # type: ignore[call-arg]  # refused
