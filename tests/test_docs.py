"""The pages name commands, flags, modules and files that exist, and keep to their limits."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import clinical_drug_discovery
from clinical_drug_discovery.cli import make_app

ROOT = Path(__file__).parents[1]
PACKAGE = Path(clinical_drug_discovery.__file__).parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: The changelog also names what was removed.
NAMING_PAGES = [path for path in PAGES if path.name != "CHANGELOG.md"]
COMMAND = re.compile(r"(?:^|`)(?:\.venv/bin/)?(cdd [^`\n#]*)", re.MULTILINE)
MODULE = re.compile(r"\bclinical_drug_discovery(?:\.\w+)+")
FILE = re.compile(r"`((?:\w+/)*\w+\.py)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def commands_of(page: str) -> list[list[str]]:
    """Find the complete command lines, without those that end in an ellipsis."""
    page = page.replace("\\\n", " ")
    found = (shlex.split(match.strip()) for match in COMMAND.findall(page))
    return [words for words in found if "..." not in words]


@cache
def program() -> Any:
    return typer.main.get_command(make_app())


def mistakes(words: list[str]) -> list[str]:
    """Return the words of a command line that are neither a command nor one of its flags."""
    command = program()
    arguments = words[1:]
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            return arguments[:1]
        command, *arguments = command.commands[arguments[0]], *arguments[1:]
    if "--config" in arguments and hasattr(command, "commands"):  # the file names the model
        command = next(iter(command.commands.values()))
    flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    return [word for word in arguments if word.startswith("-") and word not in {*flags, "--help"}]


def outside_of_tables_and_code(page: str) -> list[str]:
    lines, code = [], False
    for line in page.splitlines():
        code ^= line.lstrip().startswith("```")
        if not code and not line.startswith("|"):
            lines.append(line)
    return lines


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            return False
    return True


@pytest.mark.parametrize("path", NAMING_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_what_exists(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    for words in commands_of(page):
        assert mistakes(words) == [], words
    assert [name for name in set(MODULE.findall(page)) if not resolves(name)] == []
    homes = (ROOT, PACKAGE, ROOT / "benchmarks")
    files = {
        name for name in FILE.findall(page) if not any((home / name).is_file() for home in homes)
    }
    assert files == set()
    links = {link for link in LINK.findall(page) if not (path.parent / link).exists()}
    assert links == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    lines = outside_of_tables_and_code(path.read_text(encoding="utf-8"))
    assert [line for line in lines if len(line) > 120] == []


def test_the_picture_of_the_rooms_names_files_that_exist() -> None:
    picture = (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")
    found = re.findall(r'data-room="(\w+)">([^<]*)<', picture)
    named = {f"{room}/{name}.py" for room, names in found for name in re.findall(r"[\w/]+", names)}
    assert len(named) > 30
    assert {name for name in named if not (PACKAGE / name).is_file()} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_planted_mistakes_are_found() -> None:
    assert commands_of("```\n.venv/bin/cdd embed hgt \\\n  --edges a.csv  # reads\n```") == [
        ["cdd", "embed", "hgt", "--edges", "a.csv"]
    ]
    assert mistakes(["cdd", "embd", "hgt"]) == ["embd"]
    assert mistakes(["cdd", "embed", "hgt", "--edge", "a.csv"]) == ["--edge"]
    assert not resolves("clinical_drug_discovery.graph.nowhere")
