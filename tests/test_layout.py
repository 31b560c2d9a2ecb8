"""The architecture: ten rooms in one order, small files, imports without side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

import clinical_drug_discovery

#: An import may only go to the right. Files outside the rooms, such as cli, are left of all rooms.
ROOMS = (
    "show", "api", "lib", "evaluation", "ranking", "training", "models", "ops", "graph", "system"
)  # fmt: skip
PACKAGE = Path(clinical_drug_discovery.__file__).parent
PREFIX = "clinical_drug_discovery."
MOST_FILES_OF_A_FOLDER, MOST_LINES_OF_A_FILE, MEDIAN_LINES = 12, 400, 180
MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 80, 20
PUBLIC_FUNCTIONS = {"embed_model", "generate_gnn_embeddings", "generate_hgt_embeddings"}


def sources() -> dict[str, str]:
    """Return the source of each module, by its dotted name within the package."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text()
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(texts: dict[str, str]) -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, also inside functions."""
    found: dict[str, set[str]] = {}
    for module, text in texts.items():
        found[module] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                origin = origin_of(module, node)
                names = {".".join([*origin, alias.name]) for alias in node.names}
                found[module] |= names & texts.keys() or {".".join(origin)} & texts.keys()
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names if alias.name.startswith(PREFIX)}
                found[module] |= {name.removeprefix(PREFIX) for name in names}
    return found


def origin_of(module: str, node: ast.ImportFrom) -> list[str]:
    """Return the parts of the name, within the package, that a module imports from."""
    parts = node.module.split(".") if node.module else []
    if node.level:
        return module.split(".")[: -node.level] + parts
    return parts[1:] if f"{node.module}.".startswith(PREFIX) else ["elsewhere"]


def arrows_to_the_left(texts: dict[str, str]) -> list[str]:
    def place(module: str) -> int:
        room = module.split(".")[0]
        return ROOMS.index(room) if room in ROOMS else -1

    return [
        f"{module} imports {other}"
        for module, others in imports(texts).items()
        for other in others
        if place(other) < place(module)
    ]


def circle(texts: dict[str, str]) -> list[str]:
    try:
        TopologicalSorter(imports(texts)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_folders_of_the_package_are_the_rooms() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders - {"data", "__pycache__"} == set(ROOMS)


def test_imports_point_to_the_right_and_in_no_circle() -> None:
    assert arrows_to_the_left(sources()) == []
    assert circle(sources()) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("graph.read", "from clinical_drug_discovery.ops.blocks import Block"),
        ("graph.cache", "from ..models import hgt"),
        ("system.files", "from clinical_drug_discovery.graph import knowledge_graph"),
        ("models.hgt", "import clinical_drug_discovery.training.objective.link_loss"),
        ("lib.rank", "def late():\n    from clinical_drug_discovery import cli"),
        ("lib.demo", "from ..show.terminal.console import make_console"),
    ],
)
def test_a_planted_arrow_to_the_left_is_found(module: str, statement: str) -> None:
    texts = sources()
    texts[module] += f"\n{statement}\n"
    assert [arrow.split()[0] for arrow in arrows_to_the_left(texts)] == [module]


def test_a_planted_circle_is_found() -> None:
    texts = sources()
    texts["graph.read_errors"] += "\nfrom .read import read_graph\n"
    assert {"graph.read", "graph.read_errors"} <= set(circle(texts))


def test_files_and_functions_are_small_and_say_what_they_hold() -> None:
    texts = sources()
    modules = {name: text for name, text in texts.items() if not name.endswith("__init__")}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    assert max(lines.values()) <= MOST_LINES_OF_A_FILE, max(lines, key=lambda name: lines[name])
    assert median(lines[name] for name in modules) <= MEDIAN_LINES
    folders = [name.rpartition(".")[0] for name in modules]
    assert max(map(folders.count, folders)) <= MOST_FILES_OF_A_FOLDER
    for name, text in texts.items():
        tree = ast.parse(text)
        assert ast.get_docstring(tree), name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name not in PUBLIC_FUNCTIONS:
                where, given = f"{name}.{node.name}", node.args
                assert (node.end_lineno or 0) - node.lineno < MOST_LINES_OF_A_FUNCTION, where
                count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
                assert count <= MOST_PARAMETERS, where


def test_importing_changes_nothing_of_the_process() -> None:
    commands = [f"{PREFIX}lib.{path.stem}" for path in (PACKAGE / "lib").glob("*.py")]
    script = (
        "import os, sys, warnings\n"
        "import clinical_drug_discovery.cli\n"
        "assert not {'torch', 'numba', 'numpy', 'polars', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "import torch, numba, polars, scipy.sparse, sklearn.metrics, typer\n"
        # Other packages may change the process when they are imported.
        "state = lambda: (torch.initial_seed(), dict(os.environ), list(warnings.filters))\n"
        "before = state()\n"
        f"import {', '.join(commands)}\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
