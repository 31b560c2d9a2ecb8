"""Check the files of a wheel, then install it in an environment of its own and use it.

    python .ci/try_wheel.py dist/*.whl

Only the standard library is needed. The environment is made in a temporary directory, with the
versions of constraints.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "clinical_drug_discovery"
_ABOUT = re.compile(
    rf"{PACKAGE}-[\w.]+\.dist-info/(?:METADATA|WHEEL|RECORD|entry_points\.txt|top_level\.txt"
    r"|licenses/LICENSE)"
)
_USE = f"""
from importlib.resources import files
import {PACKAGE}
from {PACKAGE}.lib.gnn_embeddings import generate_gnn_embeddings
assert (files({PACKAGE!r}) / "py.typed").is_file()
with open("edges.csv", "w") as file:
    file.write((files({PACKAGE!r}) / "data" / "sample_kg.csv").read_text())
stats = generate_gnn_embeddings("edges.csv", "e.npy", 8, 8, num_epochs=2, ranker=False)
assert stats["saved_nodes"] == 820, stats["saved_nodes"]
"""


def problems(names: set[str], sources: set[str]) -> list[str]:
    """Return what is wrong with the files of a wheel.

    Args:
        names: paths in the wheel.
        sources: paths of the package's files below src/ that must be in the wheel.
    """
    # A file that the package had once may still lie in build/, from which wheels are made.
    unwanted = {name for name in names - sources if not _ABOUT.fullmatch(name)}
    return [
        *(f"missing: {name}" for name in sorted(sources - names)),
        *(f"unwanted: {name}" for name in sorted(unwanted)),
    ]


def package_files() -> set[str]:
    """Return the files of the package that a wheel must have."""
    home = ROOT / "src" / PACKAGE
    files = [*home.rglob("*.py"), home / "py.typed", *(home / "data").iterdir()]
    files += (home / "show" / "report" / "templates").glob("*")
    files += (home / "show" / "map" / "static").iterdir()
    files += (path for path in (home / "show" / "explore" / "static").rglob("*") if path.is_file())
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def main(wheel: Path) -> None:
    """Check and try one wheel."""
    with zipfile.ZipFile(wheel) as archive:
        if found := problems(set(archive.namelist()), package_files()):
            sys.exit(f"{wheel}:\n" + "\n".join(found))
    print(
        f"{wheel.name}: {len(package_files())} files of the package, {wheel.stat().st_size:,} bytes"
    )
    with tempfile.TemporaryDirectory(prefix="cdd-wheel-") as folder:
        venv.create(f"{folder}/env", with_pip=True)
        programs = Path(folder, "env", "bin")
        pins = ["--constraint", str(ROOT / "constraints.txt")]
        pip = [programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        for command in (
            [*pip, "install", *pins, str(wheel.resolve())],
            [*pip, "check"],
            *([programs / name, "--version"] for name in ("cdd", "clinical-drug-discovery")),
            [programs / "python", "-c", _USE],
            [programs / "cdd", "demo", "--num-epochs", "2"],
        ):
            print("+", *map(str, command[:4]), flush=True)
            output = subprocess.PIPE if "demo" in command else None
            subprocess.run(list(map(str, command)), check=True, cwd=folder, stdout=output)
    print("The wheel works.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
