"""The locked files are those of the pinned versions, and each has hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"(?m)^([\w.-]+)==([^\s;\\]+)")


def name_of(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def pins(path: Path) -> dict[str, str]:
    return {name_of(name): version for name, version in _PIN.findall(path.read_text())}


def test_the_lock_has_the_pinned_versions() -> None:
    pinned, locked = pins(ROOT / "constraints.txt"), pins(ROOT / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in (*extras["fuzz"], *extras["examples"]):  # no other target needs them
        del pinned[name_of(re.split(r"[>;]", requirement)[0])]
    assert pinned.keys() <= locked.keys(), "run make lock"
    assert {name: locked[name] for name in pinned} == pinned, "run make lock"


def test_every_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"(?m)^(?=[\w.-]+==)", text)[1:]
    hashes = {
        p.split("==")[0]: len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", p)) for p in packages
    }
    assert min(hashes.values()) > 0
    assert hashes["torch"] > 5  # of several systems and versions of Python
