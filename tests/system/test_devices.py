"""The device is the named one, or an error says why; no environment variable is set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clinical_drug_discovery
from clinical_drug_discovery.system import devices
from clinical_drug_discovery.system.devices import available_devices, check_device, choose_device
from clinical_drug_discovery.system.errors import InputError

SOURCES = sorted(Path(clinical_drug_discovery.__file__).parent.rglob("*.py"))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The devices that passed `cdd doctor --try`; a test may change them."""
    names = {"mps"}
    monkeypatch.setattr(devices, "has_passed_trial", lambda name: name in names)
    return names


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch, tried: set[str]) -> set[str]:
    """The devices that are said to be here; a test may change them."""
    names = {"cpu"}
    monkeypatch.setattr(devices, "_why_missing", lambda name: None if name in names else "gone")
    return names


@pytest.mark.parametrize(
    ("found", "best", "why"),
    [
        ({"mps", "cuda"}, "cuda", "a GPU was found"),
        ({"mps"}, "mps", "a GPU was found, and it passed `cdd doctor --try mps`"),
        (set(), "cpu", "no GPU was found"),
    ],
)
def test_none_takes_the_best_that_is_there(
    present: set[str], found: set[str], best: str, why: str
) -> None:
    present |= found
    assert choose_device(None) == (torch.device(best), why)
    assert choose_device("cpu") == (torch.device("cpu"), "as asked")


def test_mps_is_the_default_only_after_its_trial(present: set[str], tried: set[str]) -> None:
    present.add("mps")
    tried.clear()
    device, reason = choose_device(None)
    assert device.type == "cpu"
    assert "cdd doctor --try mps" in reason
    assert choose_device("mps").device.type == "mps"
    present.add("cuda")
    assert choose_device(None).device.type == "cuda"


def test_a_name_that_is_no_device() -> None:
    with pytest.raises(InputError, match=r"device \(got 'gpu'\) must be one of cuda, mps, cpu"):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("platform", "built", "macos_15", "why"),
    [
        ("linux", False, False, "only a Mac has"),
        ("darwin", False, False, "built without MPS"),
        ("darwin", True, False, "macOS 15 or newer"),
        ("darwin", True, True, "no GPU that Metal can use"),
    ],
)
def test_why_there_is_no_mps(
    monkeypatch: pytest.MonkeyPatch, platform: str, built: bool, macos_15: bool, why: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(devices, "_has_cuda_driver", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: macos_15)
    with pytest.raises(InputError, match=rf"'mps'.*{why}.*available: cpu$"):
        check_device("mps")


@pytest.mark.parametrize(
    ("driver", "built", "why"),
    [
        (False, True, "no NVIDIA GPU or driver"),
        (True, False, "built without CUDA"),
        (True, True, "no NVIDIA GPU or driver"),
    ],
)
def test_why_there_is_no_cuda(
    monkeypatch: pytest.MonkeyPatch, driver: bool, built: bool, why: str
) -> None:
    monkeypatch.setattr(devices, "_has_cuda_driver", lambda: driver)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=rf"'cuda'.*{why}"):
        check_device("cuda")


@pytest.mark.parametrize("named", ["mps", None])
@pytest.mark.parametrize("value", ["1", "true"])
def test_no_mps_while_operations_may_fall_back(
    monkeypatch: pytest.MonkeyPatch, present: set[str], named: str | None, value: str
) -> None:
    present.add("mps")
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", value)
    with pytest.raises(InputError, match="PYTORCH_ENABLE_MPS_FALLBACK"):
        choose_device(named)
    assert choose_device("cpu").device.type == "cpu"
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    assert choose_device(named).device.type == "mps"


def test_only_the_command_line_sets_environment_variables() -> None:
    """Two functions set variables of libraries; nothing but the command line calls them."""
    setting = re.compile(r"environ\[[^\]]*\]\s*=[^=]|environ\.(update|setdefault|pop)|putenv")
    found = {path.name: len(setting.findall(path.read_text())) for path in SOURCES}
    assert {name: count for name, count in found.items() if count} == {"processes.py": 3}
    for function in ("be_nice()", "set_library_defaults()"):
        calling = [path.name for path in SOURCES if function in path.read_text()]
        assert sorted(calling) == ["cli.py", "processes.py"]


@pytest.mark.parametrize("model", ["graphsage", "hgt"])
@pytest.mark.parametrize("flag", [["--device", "mps"], ["--device=cuda"]])
def test_a_missing_device_is_said_before_anything_else(
    tmp_path: Path, model: str, flag: list[str]
) -> None:
    named = flag[-1].removeprefix("--device=")
    if named in available_devices():
        pytest.skip(f"{named} is here")
    # Slow imports are forbidden, so that the message cannot have waited for them.
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['numba', 'polars', 'scipy', 'torch']))\n"
        f"sys.argv[1:] = ['embed', {model!r}, '--edges', 'x', '--output', 'y', *{flag}]\n"
        "from clinical_drug_discovery.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: device (got '{named}') is not available here: ")
    assert "available: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert os.listdir(tmp_path) == []
