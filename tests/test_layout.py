"""The house rules: small files, one-way imports, no side effects, no prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import clinical_drug_discovery

PACKAGE = Path(clinical_drug_discovery.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
#: A module may import from its own layer and from those below.
LAYERS = (
    ("errors", "progress", "stats", "chunks"),
    ("runtime", "device_memory"),
    (
        "edge_kernels",
        "graph",
        "sealed_file",
        "graph_file",
        "numbering",
        "sorting",
        "diagnose",
        "checkpoint",
        "op_table",
    ),
    (
        "wording",
        "tables",
        "cache",
        "facts",
        "outputs",
        "edge_chunks",
        "blocks",
        "synthetic",
        "witnesses",
    ),
    ("ops", "typed"),
    (
        "pairs",
        "areas",
        "split",
        "curves",
        "metrics",
        "baselines",
        "ranking",
        "relations",
        "rankers",
        "optimizer",
        "rowwise",
        "sampling",
        "similarity",
        "contrast",
        "losses",
        "subgraph",
        "views",
        "learner",
        "initial",
        "norm",
        "structure",
        "sage",
        "hgt",
        "hgt_update",
        "memory",
        "inference",
        "collapse",
        "repurpose",
        "kernels",
        "paths",
        "treatments",
        "fellows",
        "lists",
        "network",
        "boosting",
        "ranker",
        "calibrate",
        "propagation",
        "treatment_decoder",
        "embedding_score",
        "decoder_fit",
        "blend",
        "network_scores",
        "drug_ranker",
        "ranker_file",
        "model_dir",
        "fit_memory",
        "halves",
        "explain",
        "warmup",
    ),
    ("audit_paths", "audit"),
    ("run", "results"),
    ("sage_training", "hgt_training"),
    ("lib", "rank"),
    ("demo", "doctor", "evaluate"),
    ("cli",),
    ("entry",),
)


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if module.split(".")[0] in names)


def imported(path: Path) -> set[str]:
    prefix = "clinical_drug_discovery."
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(prefix):
            found.add((node.module or "").removeprefix(prefix))
        if isinstance(node, ast.ImportFrom) and node.module == prefix[:-1]:
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    if name == "__init__":
        assert not imported(path)
        return
    for other in imported(path):
        assert layer(other) <= layer(name), f"{name} imports {other}"


def test_files_are_small_and_say_what_they_hold() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert max(sizes.values()) <= 400, max(sizes, key=lambda path: sizes[path])
    assert median(sizes.values()) <= 150
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_importing_changes_nothing_of_the_process() -> None:
    script = (
        "import os, sys, warnings\n"
        "import clinical_drug_discovery\n"
        "assert not {'torch', 'numba', 'polars'} & set(sys.modules)\n"
        "import torch, numba, polars, scipy.sparse, sklearn.metrics, typer\n"
        # Those may do what they like.
        "state = lambda: (torch.initial_seed(), dict(os.environ), list(warnings.filters))\n"
        "before = state()\n"
        "import clinical_drug_discovery.cli\n"
        "assert state() == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
