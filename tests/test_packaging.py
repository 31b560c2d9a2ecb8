"""The published package: the files of a wheel, two names of the program, one version."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheels() -> Any:
    spec = importlib.util.spec_from_file_location("try_wheel", ROOT / ".ci" / "try_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_missing_and_unwanted_files_of_a_wheel_are_found(wheels: Any) -> None:
    sources = wheels.package_files()
    assert {f"{wheels.PACKAGE}/{name}" for name in ("py.typed", "data/sample_kg.csv")} <= sources
    info = f"{wheels.PACKAGE}-0.1.0.dist-info"
    complete = sources | {f"{info}/{name}" for name in ("METADATA", "RECORD", "licenses/LICENSE")}
    assert wheels.problems(complete, sources) == []
    for extra in ("tests/test_cli.py", f"{wheels.PACKAGE}/data/kg.csv", f"{wheels.PACKAGE}/old.py"):
        assert wheels.problems(complete | {extra}, sources) == [f"unwanted: {extra}"]
    for name in (f"{wheels.PACKAGE}/py.typed", f"{wheels.PACKAGE}/models/kinds/table.py"):
        assert wheels.problems(complete - {name}, sources) == [f"missing: {name}"]


def test_the_program_has_two_names() -> None:
    assert set(PROJECT["scripts"]) == {"cdd", "clinical-drug-discovery"}
    assert len(set(PROJECT["scripts"].values())) == 1


def test_the_citation_has_the_version() -> None:
    version = re.search(r"(?m)^version: (\S+)$", (ROOT / "CITATION.cff").read_text())
    assert version is not None
    assert version[1] == PROJECT["version"]


def test_a_release_is_made_by_hand_only() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    triggers = text.split("\non:\n")[1].split("\njobs:")[0]
    assert triggers.split() == ["workflow_dispatch:"]


def test_the_image_has_the_pinned_torch() -> None:
    pin = re.search(r"(?m)^torch==\S+$", (ROOT / "constraints.txt").read_text())
    assert pin is not None
    assert pin[0] in (ROOT / "Dockerfile").read_text()
