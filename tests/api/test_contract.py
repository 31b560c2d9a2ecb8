"""The public names: each has a docstring with types, errors and an example, which runs."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clinical_drug_discovery as cdd
from clinical_drug_discovery.api import optional

SAMPLE = Path(cdd.__file__).parent / "data" / "sample_kg.csv"
WITHOUT_ERRORS = {"sample_graph", "to_frames"}
NEEDED = {"to_anndata": "anndata"}  # the other optional packages are there for the tests


def members() -> Iterator[tuple[str, Any]]:
    """Yield each public name with its object, each method of a model, and each kind of picture."""
    for name in cdd.__all__:
        if name != "plot":
            yield name, getattr(cdd, name)
    for name in cdd.plot.__all__:
        yield f"plot.{name}", getattr(cdd.plot, name)
    for name, method in vars(cdd.Model).items():
        if not name.startswith("_") and inspect.isfunction(method):
            yield f"Model.{name}", method


NAMES = [name for name, _ in members()]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_says_what_it_takes_returns_and_refuses(name: str) -> None:
    member = dict(members())[name]
    text = inspect.getdoc(member) or ""
    assert "\nExample:\n" in text
    if inspect.isclass(member):
        return
    signature = inspect.signature(member)
    assert signature.return_annotation is not signature.empty
    assert "\nReturns:\n" in text
    assert ("\nRaises:\n" in text) == (name not in WITHOUT_ERRORS)
    for parameter in signature.parameters.values():
        if parameter.name != "self":
            assert parameter.annotation is not parameter.empty, parameter
            assert f"\n    {parameter.name}: " in text, parameter


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(
    name: str, model: cdd.Model, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    member = dict(members())[name]
    (tmp_path / "approvals.csv").write_text("drug_name,disease_name\nFluoxetine,fibromyalgia\n")
    given = {"cdd": cdd, "model": model, "model_dir": model_dir, "path": SAMPLE}
    text = inspect.getdoc(member) or ""
    test = doctest.DocTestParser().get_doctest(text, given, name, None, None)
    # An example that is skipped would not show anything.
    assert test.examples
    assert not any(doctest.SKIP in example.options for example in test.examples)
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    report: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not failed.failed, "".join(report)


def test_names_are_imported_when_they_are_used() -> None:
    script = (
        "import sys\n"
        "import clinical_drug_discovery as cdd\n"
        "assert set(cdd.__all__) | {'__version__'} <= set(dir(cdd))\n"
        "heavy = {'torch', 'numpy', 'polars', 'numba', 'scipy', 'importlib.metadata'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert cdd.__version__.count('.') == 2\n"
        "assert not hasattr(cdd, 'no_such_name')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_table_of_names_has_all_of_them() -> None:
    assert sorted(cdd._MODULES) == sorted(cdd.__all__)
    methods = ("rank", "rank_many", "rank_diseases", "similar", "score", "explain", "embed")
    wanted = {"Model", "load_model", "read_graph", "evaluate_model", "evaluate_model_dir"}
    assert wanted | {f"Model.{name}" for name in (*methods, "embeddings", "add_facts")} <= {*NAMES}


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("networkx", lambda model: cdd.to_networkx(model.graph, "Warfarin")),
        ("torch_geometric.data", lambda model: cdd.to_hetero_data(model.graph)),
        ("anndata", lambda model: cdd.to_anndata(model.embeddings("drug"))),
        ("matplotlib", lambda _: cdd.plot.history({"epoch": [1], "loss": [2.0]})),
    ],
)
def test_a_missing_package_is_named_with_the_command(
    package: str, call: Any, model: cdd.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(ImportError, match=f"pip install {package.split('.')[0]}") as error:
        call(model)
    assert isinstance(error.value, cdd.InputError)  # one line and exit code 2 in a command
