"""Processes are counted only if a launcher has said all that they need to find each other."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from clinical_drug_discovery.cli import make_app
from clinical_drug_discovery.system.group import launch

ALL = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
ALL |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}


@pytest.mark.parametrize("missing", [None, "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_places_of_processes(missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    if missing is not None:
        monkeypatch.delenv(missing)
    functions = (launch.rank, launch.num_processes, launch.local_rank, launch.local_size)
    found = tuple(function() for function in functions)
    assert found == ((1, 4, 1, 2) if missing is None else (0, 1, 0, 1))
    assert not launch.is_restart()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert launch.is_restart()


def test_a_command_that_cannot_be_divided_is_refused_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    for rank, message in (("0", "error: torchrun is for cdd embed: run this "), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        done = CliRunner().invoke(make_app(), ["cache"])
        assert done.exit_code == 2
        assert done.stderr.startswith(message)
        assert bool(done.stderr) == bool(message)
