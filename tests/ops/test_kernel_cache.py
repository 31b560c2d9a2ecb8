"""A run works if the cache of kernels is damaged, is another user's or cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching

from clinical_drug_discovery.ops.cpu import kernel

SOURCE = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A function that makes a small kernel as a new process would, with its cache in tmp_path."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel, "_problems", {})
    monkeypatch.setattr(kernel, "_without", [])
    path = tmp_path / "source.py"
    path.write_text(SOURCE)

    def make() -> Any:
        names: dict[str, Any] = {"__name__": "source"}
        exec(compile(SOURCE, str(path), "exec"), names)
        return kernel.kernel()(names["add"])

    return make


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.nb?"))


def test_damaged_files_are_compiled_again(load: Callable[[], Any], tmp_path: Path) -> None:
    first = load()
    assert not kernel.is_cached(first)
    assert first(1, 2) == 3
    assert kernel.is_cached(load())
    index, data = sorted(files(tmp_path), key=lambda path: path.suffix == ".nbc")
    whole = {path: path.read_bytes() for path in (index, data)}
    assert kernel.take_problems() == []
    for path in (index, data):
        for damaged in (b"", whole[path][:10], whole[path][:-1], b"\x80" * 100, b"\xff" * 300):
            path.write_bytes(damaged)
            again = load()
            assert not kernel.is_cached(again)
            (problem,) = kernel.take_problems()
            assert str(path.parent) in problem
            assert not index.exists()  # so that the next process compiles it
            assert again(1, 2) == 3
            assert kernel.is_cached(load())
    data.write_bytes(b"")  # damaged after it was looked at
    assert load()(2, 2) == 4
    assert len(kernel.take_problems()) == 1
    data.unlink()
    assert not kernel.is_cached(load())


def test_a_kernel_is_compiled_again_after_another_file_has_changed(
    load: Callable[[], Any], tmp_path: Path
) -> None:
    """Kernels inline the functions of other files of their directory."""
    load()(1, 2)
    assert kernel.is_cached(load())
    (tmp_path / "other.py").write_text("")
    assert not kernel.is_cached(load())
    load()(1, 2)
    assert kernel.is_cached(load())


def test_a_full_disk_is_a_message(load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", fail)
    assert load()(1, 2) == 3
    (problem,) = kernel.take_problems()
    assert "No space left on device" in problem


def test_files_of_another_user_are_not_loaded(
    load: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()(1, 2)
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        os.chown(files(tmp_path)[0], 12345, -1)
    monkeypatch.setattr("pickle.loads", None)  # nothing is unpickled
    again = load()
    assert "belongs to another user" in str(kernel.why_no_cache())
    assert not kernel.is_cached(again)


def test_nowhere_to_write_is_a_message(
    load: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", fail)
    again = load()
    assert again(1, 2) == 3
    assert "NUMBA_CACHE_DIR" in str(kernel.why_no_cache())
    assert not kernel.is_cached(again)


def test_kernels_of_the_installation_are_read(
    load: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner compiles beside the source; a user who cannot write there compiles the rest."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("numba.misc.appdirs.system", "linux")
    installed = tmp_path / "__pycache__"
    assert load()(1, 2) == 3
    assert {path.parent for path in files(tmp_path)} == {installed}
    of_owner = files(installed)

    ensure = caching._CacheLocator.ensure_cache_path

    def only_of_the_user(self: Any) -> None:
        if Path(self.get_cache_path()) == installed:
            raise OSError(30, "Read-only file system")
        ensure(self)  # type: ignore[no-untyped-call]  # numba's

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", only_of_the_user)
    read = load()
    assert kernel.is_cached(read)
    assert read(1, 2) == 3
    assert files(tmp_path) == of_owner
    assert read(1.5, 2.0) == 3.5
    assert files(installed) == of_owner
    assert len(files(tmp_path / "user")) == 2
    for path in of_owner:
        path.write_bytes(b"damaged")
    assert load()(1, 2) == 3  # compiled again, into the user's cache
    (problem,) = kernel.take_problems()
    assert str(installed) in problem
    assert kernel.is_cached(load())


def test_help_needs_neither_home_nor_numba(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from clinical_drug_discovery.cli import make_app\n"
        "try:\n"
        "    make_app()(['embed', 'hgt', '--help'])\n"
        "finally:\n"
        "    assert 'numba' not in sys.modules\n"
    )
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), "/proc/none")
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("CDD_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "--num-heads" in done.stdout
