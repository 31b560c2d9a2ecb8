"""A device is the one that was named, or an error that says why; nothing is set behind the user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import clinical_drug_discovery
from clinical_drug_discovery import entry
from clinical_drug_discovery.lib.evaluate import evaluate_model
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system import machine
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.machine import (
    PeakMemory,
    available_devices,
    limit_memory,
    resolve_device,
)

RUNS: dict[str, Callable[..., Any]] = {
    "graphsage": generate_gnn_embeddings,
    "hgt": generate_hgt_embeddings,
    "evaluate": partial(evaluate_model, model="hgt", split="pair"),
}
SOURCES = sorted(Path(clinical_drug_discovery.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("found", [["mps", "cpu"], ["cuda", "cpu"], ["cpu"]])
def test_none_takes_the_best_that_is_there(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    monkeypatch.setattr(machine, "available_devices", lambda: found)
    assert resolve_device(None).type == found[0]


def test_a_name_that_is_no_device() -> None:
    with pytest.raises(InputError, match=r"device \(got 'gpu'\) must be one of mps, cuda, cpu"):
        resolve_device("gpu")


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
    monkeypatch.setattr(machine, "available_devices", lambda: ["cpu"])
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: macos_15)
    with pytest.raises(InputError, match=rf"'mps'.*{why}.*available: cpu$"):
        resolve_device("mps")


@pytest.mark.parametrize(("built", "why"), [(True, "driver"), (False, "built without CUDA")])
def test_why_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch, built: bool, why: str) -> None:
    monkeypatch.setattr(machine, "available_devices", lambda: ["cpu"])
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    with pytest.raises(InputError, match=why):
        resolve_device("cuda")


@pytest.mark.parametrize("named", ["mps", None])
@pytest.mark.parametrize("value", ["1", "true"])
def test_no_mps_while_operations_may_fall_back(
    monkeypatch: pytest.MonkeyPatch, named: str | None, value: str
) -> None:
    monkeypatch.setattr(machine, "available_devices", lambda: ["mps", "cpu"])
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", value)
    with pytest.raises(InputError, match="PYTORCH_ENABLE_MPS_FALLBACK"):
        resolve_device(named)
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    assert resolve_device(named).type == "mps"


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
@pytest.mark.parametrize("run", RUNS)
def test_where_bfloat16_is_no_choice(
    tmp_path: Path, run: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the edges are looked at, of which there are none."""
    monkeypatch.setattr(machine, "available_devices", lambda: ["mps", "cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    why = {"cpu": "without being asked", "mps": "nobody has measured it", "cuda": "no instructions"}
    rule = rf"^bfloat16 \(got True\) must be left out with device '{device}': .*{why[device]}"
    with pytest.raises(InputError, match=rule):
        RUNS[run]("none.csv", tmp_path / "e.csv", device=device, bfloat16=True)
    assert os.listdir(tmp_path) == []


def test_the_package_sets_no_environment_variable() -> None:
    setting = re.compile(r"environ\[[^\]]*\]\s*=[^=]|environ\.(update|setdefault|pop)|putenv")
    assert [path.name for path in SOURCES if setting.search(path.read_text())] == []


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
        "sys.modules.update(dict.fromkeys(['numba', 'polars', 'scipy']))\n"
        f"sys.argv[1:] = ['embed', {model!r}, '--edges', 'x', '--output', 'y', *{flag}]\n"
        "from clinical_drug_discovery.entry import main\n"
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


def test_the_entry_point_looks_at_nothing_else() -> None:
    for arguments in (["doctor"], ["embed", "hgt", "--device"], ["--device", "mps", "--help"]):
        assert entry._named_device(arguments) is None


class FakeMemory:
    """Stands for torch.mps or torch.cuda."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.total_memory = 8_000
        self.held = 0

    def recommended_max_memory(self) -> int:
        return self.total_memory

    def get_device_properties(self, device: torch.device) -> FakeMemory:
        return self

    def set_per_process_memory_fraction(self, share: float, *device: torch.device) -> None:
        self.shares.append(share)

    def current_allocated_memory(self) -> int:
        return self.held


@pytest.mark.parametrize(("name", "most"), [("mps", 2.0), ("cuda", 1.0), ("cpu", None)])
def test_a_budget_limits_the_allocator(
    monkeypatch: pytest.MonkeyPatch, name: str, most: float | None
) -> None:
    fake = FakeMemory()
    monkeypatch.setattr(torch, name, fake)
    for budget in (4_000, 10**9):
        limit_memory(torch.device(name), budget)
    assert fake.shares == ([] if most is None else [0.5, most])


def test_the_peak_is_reported_or_sampled_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PeakMemory(torch.device("cpu")).num_bytes() is None
    fake, mps = FakeMemory(), torch.device("mps")
    monkeypatch.setattr(torch, "mps", fake)

    def missing(device: torch.device) -> None:
        raise NotImplementedError

    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", missing)
    peak = PeakMemory(mps)
    for fake.held in (5, 9, 3):
        peak.sample()
    assert (peak.source, peak.num_bytes()) == ("samples", 9)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 12)
    peak = PeakMemory(mps)
    assert (peak.source, peak.num_bytes()) == ("reported", 12)
