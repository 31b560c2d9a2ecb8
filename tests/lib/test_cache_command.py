"""The cache is listed and cleared; what is not a cached graph stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.lib.cache import manage_cache
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.limits.cache import cache_directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two cached graphs, and files that are none."""
    for name, size, used in (("a.1.graph", 1000, 100), ("b.2.graph", 2000, 200)):
        (tmp_path / name).write_bytes(b"x" * size)
        os.utime(tmp_path / name, (used, used))
    (tmp_path / "notes.txt").write_text("of the user")
    (tmp_path / "folder.graph").mkdir()
    (tmp_path / "link.graph").symlink_to(tmp_path / "notes.txt")
    return tmp_path


def test_graphs_are_listed_and_cleared(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDD_CACHE_DIR", str(directory))
    monkeypatch.setenv("CDD_CACHE_SIZE", "20GB")
    found = manage_cache()
    assert [one["name"] for one in found["graphs"]] == ["b.2.graph", "a.1.graph"]
    assert found["graphs"][0]["last_used"] == "1970-01-01 00:03:20+00:00"
    assert (found["total_bytes"], found["limit_bytes"]) == (3000, 20 * 10**9)
    assert manage_cache(cache_dir=directory / "none")["graphs"] == []
    cleared = manage_cache(clear=True)
    assert (cleared["num_removed"], cleared["bytes_removed"]) == (2, 3000)
    assert cleared["graphs"] == []
    left = {path.name for path in directory.iterdir()}
    assert left == {"notes.txt", "folder.graph", "link.graph"}
    monkeypatch.setenv("CDD_CACHE_SIZE", "0")
    with pytest.raises(InputError, match="CDD_CACHE_SIZE"):
        manage_cache()


def test_the_command_prints_text_or_json(directory: Path) -> None:
    runner, app, flags = CliRunner(), make_app(), ["--cache-dir", str(directory)]
    done = runner.invoke(app, ["cache", *flags])
    assert done.exit_code == 0
    assert "b.2.graph" in done.stdout
    assert "of at most" in done.stdout
    done = runner.invoke(app, ["cache", "--clear", "--json", *flags])
    assert json.loads(done.stdout)["num_removed"] == 2


def test_the_default_is_the_directory_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDD_CACHE_DIR", raising=False)
    assert cache_directory().name == "clinical-drug-discovery"
    assert cache_directory().is_absolute()
