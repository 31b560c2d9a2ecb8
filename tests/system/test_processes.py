"""Forks get an error, nice processes leave a core free, answers share cores and let others in."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.system import processes
from clinical_drug_discovery.system.processes import (
    alone,
    cached_property,
    end_if_unwanted,
    for_each,
    in_order,
    let_others,
)

SCRIPT = """
import multiprocessing, sys
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.lib.synthesize import synthesize_graph

def embed(seed):
    return generate_gnn_embeddings("kg.csv", f"{seed}.csv", 8, 8, 2, 1, seed=seed, cache=False)

def work(number):
    calls = [
        lambda: embed(number),
        lambda: rank_drugs("0_model", disease="x"),
        lambda: similar_nodes("0.csv", "x"),
        lambda: synthesize_graph("made.csv", scale=0.001),
    ]
    try:
        return calls[number]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
    embed(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for number in range(4):
            print(pool.apply(work, [number]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_every_call_in_a_fork_says_to_use_spawn(tmp_path: Path, facts: list[Fact]) -> None:
    to_rows(facts).write_csv(tmp_path / "kg.csv")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line in lines:
        assert line.startswith("InputError: multiprocessing start method (got 'fork') must be")
        assert "get_context('spawn')" in line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_fork_of_a_process_that_only_imported_the_package_works() -> None:
    script = (
        "import os\n"
        "from clinical_drug_discovery.system.processes import use_threads\n"
        "child = os.fork()\n"
        "use_threads()\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7", "MKL_CBWR": "AUTO"}])
@pytest.mark.parametrize("is_intel", [False, True])
def test_the_command_line_sets_variables_that_the_user_has_not_set(
    given: dict[str, str], is_intel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "GOMP_SPINCOUNT", "MKL_CBWR"
    for name in (*names, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it, whatever happens below
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_is_intel", lambda: is_intel)
    processes.set_library_defaults()
    defaults = ["1000", "AUTO,STRICT" if is_intel else None]
    assert [os.environ.get(name) for name in names] == (list(given.values()) or defaults)


def in_nice_process(cores: int, script: str, **environment: str) -> list[int]:
    """Call `be_nice` in a process with so many cores; return the numbers that a script prints."""
    script = (
        "import os, sys\n"
        "os.nice(int(os.environ.get('BEFORE', 0)))\n"
        f"os.sched_getaffinity = lambda process: set(range({cores}))\n"
        "from clinical_drug_discovery.system.processes import be_nice, most_threads\n"
        "said = be_nice()\n"
        "assert 'numpy' not in sys.modules\n"
        "priority = os.getpriority(os.PRIO_PROCESS, 0)\n"
        f"assert said == f'Priority {{priority}}, {{most_threads()}} of {cores} cores'\n"
        f"{script}\n"
    )
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
    rest = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**rest, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


def test_a_nice_process_has_a_low_priority_and_leaves_one_core_free() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    script = (
        "import numba, numpy, polars, torch, threadpoolctl\n"
        "blas = max(one['num_threads'] for one in threadpoolctl.threadpool_info())\n"
        "print(priority, most_threads(), numba.config.NUMBA_NUM_THREADS, "
        "polars.thread_pool_size(), torch.get_num_threads(), blas)"
    )
    priority, *threads = in_nice_process(4, script)
    assert priority == max(10, before)
    assert threads[:3] == [3, 3, 3]
    assert max(threads[3:]) <= 3  # these do not start more threads than there really are cores
    assert in_nice_process(1, "print(most_threads())") == [1]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_the_user_has_set_lower_stays() -> None:
    script = "print(priority, *(os.environ[name] for name in given))"
    given = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "8", "POLARS_MAX_THREADS": ""}
    script = f"given = {list(given)}\n{script}"
    priority, *threads = in_nice_process(4, script, BEFORE="15", **given)
    assert priority >= 15
    assert threads == [2, 3, 3]


def test_a_long_answer_lets_others_in_between_its_steps() -> None:
    order: list[str] = []
    started = threading.Event()

    def short() -> None:
        started.set()
        with alone():
            order.append("short")

    let_others()  # outside, nothing happens
    with alone():
        waiting = threading.Thread(target=short)
        waiting.start()
        started.wait()
        with alone():  # within an answer that is part of another, the others still wait
            let_others()
        order.append("first step")
        while waiting.is_alive():
            let_others()
        order.append("second step")
    assert order == ["first step", "short", "second step"]


def test_an_interrupt_while_others_run_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", press)
    with pytest.raises(KeyboardInterrupt), alone():
        let_others()
    entered = threading.Event()

    def enter() -> None:
        with alone():
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    assert entered.wait(60)


def test_results_come_in_order_and_few_of_them_wait() -> None:
    started: list[int] = []
    second = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item == 1:
            second.wait()  # until a later item is done
        elif item == 2:
            second.set()
        return item * item

    results = in_order(work, range(20), 3)
    assert next(results) == 0
    assert started == [0]  # alone
    assert next(results) == 1
    assert len(started) <= 5
    assert list(results) == [n * n for n in range(2, 20)]
    assert sorted(started) == list(range(20))


def test_an_error_comes_at_its_place_and_drops_what_has_not_begun() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 4:
            raise ValueError("four")
        return item

    results = in_order(work, range(1000), 2)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="four"):
        next(results)
    assert len(started) < 10
    assert list(results) == []


def test_an_error_ends_long_work_that_is_not_wanted_any_more() -> None:
    begun = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert begun.wait(60)
            raise ValueError("zero")
        begun.set()
        while True:  # without an end, this test would run for ever
            end_if_unwanted()
            time.sleep(0.001)

    end_if_unwanted()  # outside of a thread of `in_order`, nothing happens
    with pytest.raises(ValueError, match="zero"):
        list(in_order(work, range(2), 2, first_alone=False))


@pytest.mark.parametrize("workers", [1, 3])
def test_work_without_results_is_done_to_the_end(workers: int) -> None:
    done: list[int] = []
    for_each(done.append, range(20), workers)
    assert sorted(done) == list(range(20))

    def fail(item: int) -> None:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        for_each(fail, range(20), workers)


def test_one_worker_is_the_own_thread() -> None:
    def work(item: int) -> tuple[int, threading.Thread]:
        return item, threading.current_thread()

    own = threading.current_thread()
    assert list(in_order(work, range(3), 1)) == [(n, own) for n in range(3)]


def test_a_property_that_lets_others_in_does_not_stop_them() -> None:
    """In Python 3.11, the property of functools waits for ever here: its lock is of the class."""

    class Slow:
        def __init__(self, *, is_long: bool) -> None:
            self.is_long = is_long

        @cached_property
        def value(self) -> int:
            if self.is_long:
                begun.set()
                while not asked.is_set():
                    let_others()
                let_others()
            return 1

    begun, asked = threading.Event(), threading.Event()

    def compute_long() -> None:
        with alone():
            assert Slow(is_long=True).value == 1

    long = threading.Thread(target=compute_long, daemon=True)
    long.start()
    begun.wait(60)
    with alone():
        asked.set()
        assert Slow(is_long=False).value == 1
    long.join(60)
    assert not long.is_alive()
