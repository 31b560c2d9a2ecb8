"""A stopped command: one line, no traceback, the exit code of the signal, no unfinished files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.system.interrupts import finishing_steps

EMBED = ["embed", "graphsage", "--edges", "kg.csv", "--output", "out/e.parquet"]
EMBED += ["--embedding-dim", "8", "--hidden-dim", "8", "--num-layers", "2", "--device", "cpu"]
USUAL: tuple[Any, Any] = (signal.default_int_handler, signal.SIG_DFL)  # of SIGINT and SIGTERM
SECONDS = 120  # until a waiting test fails

#: A script that runs the command line, stops in one part of the run and reports this in a file.
WAITING = """
import contextlib, pathlib, sys, time
from clinical_drug_discovery.system import log, progress
log._MOST_SILENT = 0.05
real = progress.Run.timed
@contextlib.contextmanager
def timed(run, name):
    with real(run, name):
        if name == {part!r}:
            pathlib.Path("reached").touch()
            time.sleep(600)
        yield
progress.Run.timed = timed
assert "torch" not in sys.modules
from clinical_drug_discovery.__main__ import main
main()
"""

#: A script that gets a signal in a place that `Stopped` must not leave, or cannot leave.
HARD_PLACE = """
import signal, time, weakref
from clinical_drug_discovery import cli
from clinical_drug_discovery.system.interrupts import end_loading
def run():
    end_loading()
{place}
    print("left", flush=True)
    time.sleep(60)
cli.make_app = lambda words: run
cli.main()
"""
#: The part of an import that holds a lock of the interpreter.
IMPORTING = """
    code = "signal.raise_signal(signal.SIGTERM); time.monotonic()"
    exec(compile(code, "<frozen importlib._bootstrap>", "exec"))
"""
#: A function that runs when an object is freed: Python ignores what it raises.
FREEING = """
    class Object: pass
    one = Object()
    weakref.finalize(one, signal.raise_signal, signal.SIGTERM)
    del one
"""

#: A script that runs the command line with a step that does not end.
LONG_STEP = """
import pathlib, time
from clinical_drug_discovery.training.history import TrainingRecord
def wait(record):
    pathlib.Path("reached").touch()
    time.sleep(600)
TrainingRecord.after_backward = wait
from clinical_drug_discovery.__main__ import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path, facts: list[Fact]) -> Iterator[Path]:
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    yield tmp_path
    assert not list(tmp_path.rglob(".part-*"))


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def start(
    folder: Path, *command: str, path: str = "", stderr: Any = subprocess.PIPE
) -> subprocess.Popen[str]:
    before = [path, os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, before))},
    )


def end(process: subprocess.Popen[str], how: signal.Signals) -> list[str]:
    """Send a signal; return the lines on stderr."""
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + how, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    return stderr.splitlines()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_signal_while_torch_is_imported(folder: Path, how: signal.Signals) -> None:
    (folder / "fake").mkdir()
    slow = "import pathlib, time\npathlib.Path('reached').touch()\n"
    # An import may swallow what a signal handler raises.
    slow += (
        "while True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass\n"
    )
    (folder / "fake" / "torch.py").write_text(slow)
    process = start(folder, "-m", "clinical_drug_discovery", *EMBED, path=str(folder / "fake"))
    wait_until((folder / "reached").exists, process)
    first, last = end(process, how)
    assert first.endswith(" Loading the libraries")  # written before torch was imported
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[how]
    assert last == f"stopped by {name} while the program was loading; nothing was written"
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("part", "how", "text"),
    [
        ("read", signal.SIGINT, "Reading the graph"),
        ("train", signal.SIGTERM, "Preparing the training"),
    ],
)
def test_a_signal_in_a_part_of_the_run(
    folder: Path, part: str, how: signal.Signals, text: str
) -> None:
    command = [*EMBED, "--num-epochs", "2", "--no-cache"]
    process = start(folder, "-c", WAITING.format(part=part), *command)
    wait_until((folder / "reached").exists, process)
    assert process.stderr is not None
    while f" {text}, " not in process.stderr.readline():  # a line of the timer thread
        assert process.poll() is None
    last = end(process, how)[-1]
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[how]
    assert last.startswith(f"stopped by {name} ({text}, ")
    assert last.endswith("so far); nothing was written")
    assert not (folder / "out").exists()


def test_a_signal_in_the_fit_of_the_ranker_keeps_the_model(folder: Path) -> None:
    command = [*EMBED, "--num-epochs", "2", "--no-cache"]
    process = start(folder, "-c", WAITING.format(part="rank_fit"), *command)
    wait_until((folder / "reached").exists, process)
    last = end(process, signal.SIGINT)[-1]
    kept = f"{Path('out', 'e_model')}, {Path('out', 'e.parquet')}"
    assert last.endswith(f" before all results were written; kept, complete: {kept}")
    assert (folder / "out" / "e_model" / "history.csv").read_text().count("\n") == 3
    assert sorted(os.listdir(folder / "out")) == ["e.parquet", "e_model"]


def test_a_signal_in_an_epoch_while_the_history_grows(folder: Path) -> None:
    process = start(
        folder, "-m", "clinical_drug_discovery", *EMBED, "--num-epochs", "1000000", "--no-cache"
    )
    history = folder / "out" / "e_model.run" / "history.csv"
    wait_until(history.exists, process)
    sizes: set[int] = set()
    end_of_wait = time.monotonic() + SECONDS
    while len(sizes) < 5 and time.monotonic() < end_of_wait:
        text = history.read_text()
        header, *rows = text.splitlines()
        assert header.startswith("epoch,loss,link_loss,")
        assert [int(row.split(",")[0]) for row in rows] == list(range(1, len(rows) + 1))
        sizes.add(len(rows))
    assert len(sizes) == 5
    lines = end(process, signal.SIGTERM)
    epoch = history.read_text().splitlines()[-1].split(",")[0]
    assert lines[-2].startswith("SIGTERM: stopping after this step, with a checkpoint; ")
    assert lines[-1].startswith("stopped by SIGTERM (Training: epoch ")
    assert f" left); a checkpoint of epoch {epoch} is in {history.parent}; to co" in lines[-1]
    for milestone in ("Device: cpu", "Full-batch training with edge sampling"):
        assert any(f" {milestone}" in line for line in lines)
    (checkpoint,) = history.parent.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{int(epoch):09}.safetensors"


def test_a_second_signal_stops_a_long_step_at_once(folder: Path) -> None:
    process = start(folder, "-c", LONG_STEP, *EMBED, "--num-epochs", "2", "--no-cache")
    wait_until((folder / "reached").exists, process)
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    while not process.stderr.readline().startswith("Ctrl-C: stopping after this step"):
        assert process.poll() is None
    last = end(process, signal.SIGTERM)[-1]
    assert last.startswith("stopped by SIGTERM at once; ")
    assert not list(folder.rglob("checkpoint-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
def test_signals_act_although_stderr_is_full(folder: Path) -> None:
    command = [*EMBED, "--num-epochs", "2", "--no-cache"]
    with open("/dev/full", "w") as full:
        process = start(folder, "-c", LONG_STEP, *command, stderr=full)
    wait_until((folder / "reached").exists, process)
    while process.poll() is None:  # the first is noted, the second stops
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("place", [IMPORTING, FREEING], ids=["importing", "freeing"])
def test_a_signal_is_not_lost(tmp_path: Path, place: str) -> None:
    process = start(tmp_path, "-c", HARD_PLACE.format(place=place))
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stdout) == (128 + signal.SIGTERM, "left\n"), stderr
    assert stderr == "stopped by SIGTERM; nothing was written\n"


def test_a_signal_after_the_end_does_not_change_the_exit_code(tmp_path: Path) -> None:
    script = (
        "import atexit, signal\n"
        "atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        "from clinical_drug_discovery.__main__ import main\n"
        "main()\n"
    )
    process = start(tmp_path, "-c", script, "--version")
    _, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stderr) == (0, "")


def test_a_signal_does_not_keep_a_context_manager_from_cleaning_up(folder: Path) -> None:
    place = (
        "    from pathlib import Path\n"
        "    from clinical_drug_discovery.system.files import atomic_path\n"
        "    def profile(frame, event, arg):\n"
        "        if frame.f_code.co_name == '__exit__':\n"
        "            sys.setprofile(None)\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "    with atomic_path(Path('half.csv')):\n"
        "        sys.setprofile(profile)\n"
        "        raise KeyboardInterrupt\n"  # as polars does when it gets Ctrl-C
    )
    script = HARD_PLACE.format(place=place).replace("import signal,", "import signal, sys,")
    process = start(folder, "-c", script)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stdout) == (128 + signal.SIGTERM, ""), stderr
    assert [path.name for path in folder.iterdir()] == ["kg.csv"]


def test_native_code_does_not_turn_a_signal_into_an_error(folder: Path) -> None:
    script = (
        "import signal\n"
        "from clinical_drug_discovery.models import read_embeddings as module\n"
        "from clinical_drug_discovery.system.interrupts import Stopped\n"
        "def read(*args):\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    except Stopped: raise ValueError('a panic')\n"
        "module._read_csv = read\n"
        "from clinical_drug_discovery.__main__ import main\n"
        "main()\n"
    )
    process = start(folder, "-c", script, "similar", "--embeddings", "kg.csv", "--node", "x")
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stdout) == (128 + signal.SIGTERM, ""), stderr
    assert stderr.splitlines()[-1] == "stopped by SIGTERM; nothing was written"


def test_python_gets_a_keyboard_interrupt(folder: Path) -> None:
    script = (
        "import signal\n"
        "from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings\n"
        "try:\n"
        "    generate_gnn_embeddings('kg.csv', 'out/e.csv', 8, 8, 2, 10**6, device='cpu')\n"
        "except KeyboardInterrupt as stop:\n"
        "    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "    print(str(stop).split('; ')[1])\n"
    )
    process = start(folder, "-c", script)
    run_dir = folder / "out" / "e_model.run"
    wait_until((run_dir / "history.csv").exists, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=SECONDS)
    how = "to continue, call the function again with resume=True\n"
    assert (process.returncode, stdout) == (0, how), stderr
    assert len(list(run_dir.glob("checkpoint-*"))) == 1


def test_an_ignored_signal_stays_ignored() -> None:
    script = (
        "import signal\n"
        "from clinical_drug_discovery.system.interrupts import catch_signals\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "catch_signals()\n"
        "signal.raise_signal(signal.SIGINT)\n"  # as in a job that a shell runs in the background
        "print('alive', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "alive\n"
    assert done.returncode == 143
    assert done.stderr.startswith("stopped by SIGTERM ")


def test_handlers_change_only_in_the_main_thread_and_only_within_the_block() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, default) for number, default in zip(numbers, USUAL, strict=True)
    ]
    try:
        with ThreadPoolExecutor(1) as pool, finishing_steps() as stop:
            inside = [signal.getsignal(number) for number in numbers]
            assert inside == [stop.note, stop.note]

            def seen_by_a_thread() -> list[object]:
                with finishing_steps():
                    return [signal.getsignal(number) for number in numbers]

            assert pool.submit(seen_by_a_thread).result() == inside
        assert tuple(signal.getsignal(number) for number in numbers) == USUAL
        own = lambda number, frame: None  # noqa: E731  # a handler of the caller
        signal.signal(signal.SIGTERM, own)
        with finishing_steps():
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
