"""The output of a process while it works: lines, the timer thread, the live line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from clinical_drug_discovery.system import log
from clinical_drug_discovery.system.log import LOGGER, Part, part

NAME = "clinical_drug_discovery"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, NAME)
    return caplog


def wait_for_line(lines: pytest.LogCaptureFixture, start: str) -> str:
    """Wait until the timer thread has written a line that starts with `start`."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for text in lines.messages:
            if text.startswith(start):
                return text
        time.sleep(0.01)
    raise AssertionError(f"no line starts with {start!r}: {lines.messages}")


def test_the_timer_writes_a_line_about_the_innermost_part(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_MOST_SILENT", 0.02)
    with part("Outer"):
        wait_for_line(lines, "Outer, 0 s so far")
        with part("Training", total=4, unit="epoch") as advance:
            assert ", about " not in wait_for_line(lines, "Training: epoch 1/4, ")
            advance("loss 0.5")
            assert wait_for_line(lines, "Training: epoch 2/4, loss 0.5, ").endswith(" left")
        lines.clear()
        wait_for_line(lines, "Outer, ")
    assert log._parts == []
    # Threads of other tests may end meanwhile: only the timer's own count.
    timers = [thread for thread in threading.enumerate() if thread.name == "progress"]
    for timer in timers:
        timer.join(60)
    assert not any(timer.is_alive() for timer in timers)


def test_lines_of_milestones_keep_the_timer_silent(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_MOST_SILENT", 1e6)
    with part("Reading", announce=True):
        log.milestone("50 % read")
        log.detail("Layer 1/3...")
        log.warning("collapsed")
    assert lines.messages == ["Reading", "50 % read", "Layer 1/3...", "collapsed"]
    assert [r.levelno for r in lines.records][-2:] == [logging.INFO, logging.WARNING]


def test_a_part_tells_its_step_note_time_and_remaining_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(log, "time", clock)
    this = Part("Training", 100, "epoch", start=now)
    now += 50
    assert this.describe() == "Training: epoch 1/100, 50 s so far"
    for _ in range(9):
        now += 10
        this.advance("loss 0.25")
    now += 4
    expected = "Training: epoch 10/100, loss 0.25, 2 min 24 s so far, about 15 min 6 s left"
    assert this.describe() == expected
    short = f"Training: ━{'─' * 11} epoch 10/100, loss 0.25, 2 min 24 s, 15 min 6 s left"
    assert this.describe(live=True) == short
    now += 10_000
    assert this.describe().endswith("2 h 49 min so far, about 0 s left")


def test_the_remaining_time_follows_a_machine_that_slows_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now))
    this = Part("Training", 200, "epoch", start=now, done=50, before=50)
    left = []
    for seconds in [2.0] * 50 + [20.0] * 5:
        now += seconds
        this.advance()
        left.append(this.describe().rpartition("about ")[2])
    assert left[0] == "4 min 58 s left"  # 149 epochs of 2 s
    assert left[49] == "3 min 20 s left"  # 100 of 2 s
    # The mean of the last five steps: 5.6 s after one slow step, then up to 20 s.
    assert left[50:53] == ["9 min 14 s left", "15 min 2 s left", "20 min 42 s left"]
    assert left[54] == "31 min 40 s left"  # 95 of 20 s


def test_a_part_that_fails_is_closed() -> None:
    with pytest.raises(KeyboardInterrupt), part("Outer"), part("Inner"):
        raise KeyboardInterrupt
    assert log._parts == []


@pytest.mark.parametrize(
    ("configuration", "shown"),
    [
        ("pass", ["reading", "warning: collapsed"]),
        ("logging.basicConfig(format='%(message)s')", ["collapsed"]),
        ("logging.basicConfig(format='%(message)s', level='INFO')", ["reading", "collapsed"]),
        (f"logging.getLogger('{NAME}').setLevel('WARNING')", ["warning: collapsed"]),
        (f"logging.getLogger('{NAME}').addHandler(logging.NullHandler())", []),
        ("logging.disable()", []),
    ],
)
def test_a_script_without_configuration_shows_lines_and_a_configuration_decides(
    configuration: str, shown: list[str]
) -> None:
    script = (
        "import logging, sys\n"
        f"{configuration}\n"
        "from clinical_drug_discovery.system import log\n"
        "assert 'torch' not in sys.modules\n"
        "log.milestone('reading')\n"
        "log.warning('collapsed')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = done.stderr.splitlines()
    assert len(found) == len(shown)
    assert all(line.endswith(text) for line, text in zip(found, shown, strict=True))
    assert done.stdout == ""


def test_the_command_line_keeps_a_configuration_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(LOGGER, "level", logging.NOTSET)
    log.log_to_stderr()
    log.log_to_stderr()
    assert len(LOGGER.handlers) == 1
    assert LOGGER.level == logging.INFO
    LOGGER.setLevel(logging.NOTSET)  # also clears the cache of the logger


def test_a_notebook_is_recognized_without_importing_ipython(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace()
    notebook = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert log._display() == "lines"  # IPython in a terminal that is not one
    shell.kernel = object()
    assert log._display() == "jupyter"
    LOGGER.setLevel(logging.WARNING)
    assert log._display() == "lines"
    LOGGER.setLevel(logging.NOTSET)
    monkeypatch.setitem(log._REFRESH, "terminal", 0.01)
    monkeypatch.setitem(log._REFRESH, "jupyter", 0.01)
    shown = ""
    with part("Training", total=2, unit="epoch"):
        end = time.monotonic() + 60
        while "epoch 1/2" not in shown and time.monotonic() < end:
            shown += capsys.readouterr().err
    log.milestone("done")
    shown += capsys.readouterr().err
    assert f"\rTraining: {'─' * 12} epoch 1/2, 0 s" in shown
    assert shown.endswith("\r✓ done\n")
    assert "\x1b" not in shown


def test_a_terminal_gets_a_live_line_that_disappears() -> None:
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    ours, theirs = pty.openpty()
    script = (
        "import sys, time\n"
        "from clinical_drug_discovery.system import log\n"
        "log._REFRESH['terminal'] = 0.01\n"
        "with log.part('Training', 3, 'epoch') as advance:\n"
        "    advance('loss ' + 'x' * 200)\n"
        "    sys.stdin.read()\n"  # until the test has seen the line
        "log.milestone('done ' * 14 + 'to /' + 'x' * 70)\n"
        "log.milestone('done')\n"
    )
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while b"epoch 2/3" not in shown:
            shown += os.read(ours, 65536)
        assert process.stdin is not None
        process.stdin.close()
        try:
            while part_read := os.read(ours, 65536):
                shown += part_read
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    text = shown.decode()
    assert f"\rTraining: {'━' * 4}{'─' * 8} epoch 2/3, loss xxx" in text
    mark = "\x1b[32m✓ \x1b[0m"
    lines = f"{'done ' * 10}done\r\n  done done done to\r\n  /{'x' * 70}\r\n"
    assert text.endswith(f"\r{' ' * 59}\r{mark}{lines}{mark}done\r\n")
