"""Closed standard streams and a full disk behind them end in results or in one line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CDD = [sys.executable, "-m", "clinical_drug_discovery"]
FULL = "error: the standard output cannot be written: No space left on device"
on_linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")


def run(line: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with redirections of the shell."""
    return subprocess.run(
        ["sh", "-c", f"{shlex.join(CDD)} {line}"], capture_output=True, text=True, check=False
    )


def shell(tmp_path: Path, rest: str) -> subprocess.CompletedProcess[str]:
    """Run a command that prints a table or JSON."""
    return run(f"cache --cache-dir {shlex.quote(str(tmp_path))} {rest}")


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


@on_linux
@pytest.mark.parametrize("flag", ["", "--json"])
def test_a_full_disk_behind_the_output_is_one_line(tmp_path: Path, flag: str) -> None:
    done = shell(tmp_path, f"{flag} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == FULL
    assert "Traceback" not in done.stderr


@on_linux
@pytest.mark.parametrize(
    "line", ["--help", "--version", "", "cache --help", "embed", "embed hgt --help", "fetch --help"]
)
def test_a_full_disk_behind_a_help_text_is_one_line(line: str) -> None:
    done = run(f"{line} > /dev/full")
    assert (done.returncode, done.stderr.splitlines()) == (2, [FULL])


@on_linux
def test_a_full_disk_behind_the_errors_keeps_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = shell(tmp_path, "2> /dev/full")
    assert (done.returncode, bool(done.stdout)) == (0, True)
    assert shell(tmp_path, "> /dev/full 2> /dev/full").returncode == 2
    for wrong in ("cache --unknown", "embed --unknown", "unknown"):
        assert run(f"{wrong} 2> /dev/full").returncode == 2
    monkeypatch.setenv("CDD_CACHE_SIZE", "much")
    assert shell(tmp_path, "2> /dev/full").returncode == 2


@pytest.mark.parametrize(("words", "code"), [("--help", 1), ("--unknown", 2)])
def test_the_end_of_a_pipe_is_silent(words: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*CDD, words], stdout=writer, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False)
    assert bool(done.stderr) == (words == "--unknown")
    done = subprocess.run([*CDD, words], stdout=writer, stderr=writer, check=False)
    assert done.returncode == 1
    os.close(writer)
