from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest
import torch
from graphs import Fact, random_facts, read_facts

import clinical_drug_discovery as cdd
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.system.processes import set_library_defaults

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# As on the command line. The main process does this before it starts the workers, so their
# libraries find the variables when they are loaded.
set_library_defaults()

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def facts(rng: np.random.Generator) -> list[Fact]:
    return random_facts(rng)


@pytest.fixture
def graph(tmp_path: Path, facts: list[Fact]) -> KnowledgeGraph:
    return read_facts(tmp_path, facts)


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for cached graphs, also in other processes, instead of that of the user."""
    directory = tmp_path_factory.mktemp("cache")
    before = os.environ.get("CDD_CACHE_DIR")
    os.environ["CDD_CACHE_DIR"] = str(directory)
    yield directory
    if before is None:
        del os.environ["CDD_CACHE_DIR"]
    else:
        os.environ["CDD_CACHE_DIR"] = before


@pytest.fixture(scope="session", autouse=True)
def disk_that_is_not_waited_for() -> Iterator[None]:
    """Let `os.fsync` return at once: each run waits for the disk 30 times, for 0.3 s in all.

    Only after a power cut would a test see the difference. Other processes wait as always.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the sample graph, for the tests of the library."""
    output = tmp_path_factory.mktemp("model") / "e.parquet"
    sizes: dict[str, Any] = {"embedding_dim": 32, "hidden_dim": 32, "num_epochs": 3}
    edges = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
    return Path(cdd.generate_gnn_embeddings(edges, output, cache=False, **sizes)["model_dir"])


@pytest.fixture(scope="session")
def model(model_dir: Path) -> cdd.Model:
    return cdd.load_model(model_dir)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser, for the tests with the mark `browser`."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # Chromium cannot use its sandbox as root, the usual user of containers.
        started = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


# One thread for each worker of pytest-xdist: more would wait for those of the other worker. Tests
# of threads ask for more, or start a process of their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    numba.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker whole files; see `workers`."""
    from workers import WholeFiles

    return WholeFiles(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with the longest files, so that all end at about the same time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from workers import place

        items.sort(key=lambda item: place(item.nodeid))
