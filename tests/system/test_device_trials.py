"""A passed trial counts on this machine until the device, torch or the package changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_drug_discovery.system import devices
from clinical_drug_discovery.system.devices import (
    device_name,
    has_passed_trial,
    record_passed_trial,
    trials_file,
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(devices, "device_name", lambda device: f"model 1 of {device}")


def test_a_passed_trial_is_remembered(tmp_path: Path) -> None:
    assert not has_passed_trial("mps")
    assert record_passed_trial("mps") == trials_file()
    assert tmp_path in trials_file().parents
    assert has_passed_trial("mps")
    assert not has_passed_trial("cuda")
    record_passed_trial("cuda")
    assert has_passed_trial("mps")
    assert has_passed_trial("cuda")


def test_a_changed_machine_needs_a_new_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    record_passed_trial("mps")
    for name, changed in (("torch.__version__", "99.0"), ("platform.mac_ver", lambda: ["26.1"])):
        with monkeypatch.context() as context:
            context.setattr(name, changed)
            assert not has_passed_trial("mps")
    with monkeypatch.context() as context:
        context.setattr("importlib.metadata.version", lambda package: "99.0")
        assert not has_passed_trial("mps")
    with monkeypatch.context() as context:
        context.setattr(devices, "device_name", lambda device: "model 2")
        assert not has_passed_trial("mps")
    assert has_passed_trial("mps")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mps": 1}', "\xff"])
def test_an_unreadable_record_counts_as_none(text: str) -> None:
    trials_file().parent.mkdir(parents=True)
    trials_file().write_bytes(text.encode("latin-1"))
    assert not has_passed_trial("mps")
    record_passed_trial("mps")
    assert has_passed_trial("mps")


def test_the_cpu_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert device_name("cpu")
