"""The compilation of the kernels: what is missing in the cache, and the process that compiles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.system.machine import PeakMemory
from clinical_drug_discovery.system.progress import Run
from clinical_drug_discovery.training import compile_kernels

CPU = torch.device("cpu")
KERNELS = Backend(CPU, kernels=True)
PAIRS, SINGLE = {"_map_pairs", "_outer_pairs"}, {"_map", "_outer"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run((tmp_path,), tmp_path, tmp_path, CPU, 0.1, PeakMemory(CPU))


@pytest.mark.parametrize("products", [False, True])
def test_only_kernels_that_this_cpu_uses_can_be_missing(
    products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_kernels, "has_bfloat16_products", lambda: products)
    monkeypatch.setattr(compile_kernels, "is_cached", lambda kernel: False)
    of_edges = {"_attend", "_backward_by_target", "_backward_by_source"}
    of_heads = PAIRS if products else SINGLE
    of_rows = {"_normalize", "_normalize_backward"}
    gates = {"_head_dots", "_mix_and_normalize", "_mix_and_normalize_backward"}
    of_hgt, of_sage = of_edges | of_heads | gates | of_rows, {"_add_neighbors"} | of_rows
    assert set(compile_kernels.missing_kernels("hgt")) == of_hgt
    assert set(compile_kernels.missing_kernels("graphsage")) == of_sage
    assert set(compile_kernels.missing_kernels("of the user")) == of_hgt | of_sage


def test_a_file_in_the_working_directory_cannot_break_the_compilation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "numpy", "clinical_drug_discovery"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    first, second = iter([["_map"], []]), iter([["_map"], ["_map", "_outer"]])
    monkeypatch.setattr(compile_kernels, "missing_kernels", lambda _: next(first))
    compile_kernels.compile_kernels(run, KERNELS, "graphsage")
    assert run.warnings == []
    assert run.seconds["seconds_compile"] > 0
    # The same process fails if it looks for modules in this directory.
    monkeypatch.setattr(compile_kernels, "missing_kernels", lambda _: next(second))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    compile_kernels.compile_kernels(run, KERNELS, "graphsage")
    (warning,) = run.warnings
    assert warning.startswith("2 CPU kernels are not in numba's cache (a file of the user)")


def test_nothing_is_compiled_without_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_kernels, "subprocess", None)
    compile_kernels.compile_kernels(run, Backend(CPU, kernels=False), "hgt")
    monkeypatch.setattr(compile_kernels, "missing_kernels", lambda _: [])
    compile_kernels.compile_kernels(run, KERNELS, "graphsage")
    assert run.seconds == {"seconds_compile": 0.0}


def test_a_compilation_begins_before_a_large_file_is_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for it, or ends it if the graph needs no kernels."""
    begin, finish = compile_kernels.begin_compilation, compile_kernels.compile_kernels
    (path := tmp_path / "kg.csv").write_bytes(bytes(2**20 - 1))
    missing = iter([["_map"], [], ["_map"]])
    monkeypatch.setattr(compile_kernels, "missing_kernels", lambda _: next(missing))
    assert begin(run, "graphsage", Source.of(path)) is None
    path.write_bytes(bytes(2**20))
    begun = begin(run, "graphsage", Source.of(path))
    assert begun is not None
    finish(run, KERNELS, "graphsage", begun)
    assert run.warnings == []
    assert run.seconds["seconds_compile"] > 0
    assert {one.returncode for one in begun._processes} == {0}
    begun = begin(run, "graphsage", Source.of(path))
    assert begun is not None
    finish(run, Backend(CPU, kernels=False), "graphsage", begun)
    assert run.seconds["seconds_compile"] == 0
    assert {one.returncode for one in begun._processes} == {-signal.SIGKILL}


def test_compilers_end_with_a_killed_run(tmp_path: Path) -> None:
    """Their standard input is closed when the process that has started them is gone."""
    module = compile_kernels.__name__
    script = f"from {module} import end_with_the_run; import time; end_with_the_run(); "
    compiler = [sys.executable, "-c", f"{script}print('ready', flush=True); time.sleep(600)"]
    run = (
        "import subprocess, time\n"
        f"one = subprocess.Popen({compiler!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "one.stdout.readline()\nprint(one.pid, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", run], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + 60
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.05)


#: The variables of `make test-avx2`.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "models"),
    [({}, ("hgt", "graphsage")), (AVX2, ("graphsage",))],
    ids=["this CPU", "AVX2"],
)
def test_later_runs_compile_nothing(
    tmp_path: Path, variables: dict[str, str], models: tuple[str, ...]
) -> None:
    if variables and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs an x86-64 CPU with AVX2")
    synthesize_graph(tmp_path / "kg.csv", scale=0.01)
    cache = tmp_path / "numba"
    environment = {**os.environ, **variables, "NUMBA_CACHE_DIR": str(cache)}
    compiled: set[Path] = set()
    for training in ("full", "sampled"):
        for model in models:
            flags = f"--edges kg.csv --output {model}-{training}.npy --device cpu --num-epochs 1"
            flags += f" --no-ranker --json --training {training}"
            done = subprocess.run(
                [sys.executable, "-m", "clinical_drug_discovery", "embed", model, *flags.split()],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            stats = json.loads(done.stdout)
            now = {path.relative_to(cache) for path in cache.rglob("*.nbc")}
            is_first = training == "full"
            assert stats["warnings"] == []
            assert ("Compiling" in done.stderr) == is_first
            assert (stats["seconds_compile"] > 0) == is_first
            assert now > compiled if is_first else now == compiled
            compiled = now
