"""Closed standard streams and a full disk behind them end in results or in one line."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest


def shell(tmp_path: Path, rest: str) -> subprocess.CompletedProcess[str]:
    """Run a command that prints a table or JSON, with redirections of the shell."""
    words = [sys.executable, "-m", "clinical_drug_discovery", "cache", "--cache-dir", str(tmp_path)]
    return subprocess.run(
        ["sh", "-c", f"{shlex.join(words)} {rest}"], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "--json >&-"])
def test_a_closed_stream_does_not_matter(tmp_path: Path, closed: str) -> None:
    done = shell(tmp_path, closed)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_a_mistake_exits_with_2_although_the_message_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDD_CACHE_SIZE", "much")
    assert shell(tmp_path, "2>&-").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
@pytest.mark.parametrize("flag", ["", "--json"])
def test_a_full_disk_behind_the_output_is_one_line(tmp_path: Path, flag: str) -> None:
    done = shell(tmp_path, f"{flag} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: the result cannot be printed on the standard output: No space left on device"
    )
    assert "Traceback" not in done.stderr
