"""Read the flags of a command from the source code of a function, without importing its module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Parameters whose flags have another name: name of the parameter, name of the flag.
FLAG_NAMES = {
    "edges_csv": "edges",
    "exclude_relations": "exclude_relation",
    "output_csv": "output",
    "output_dir": "output",
    "rankers": "ranker",
    "try_device": "try",
}


def flag_of(name: str) -> str:
    """Return the flag of a parameter, such as --edges for edges_csv."""
    return f"--{FLAG_NAMES.get(name, name).replace('_', '-')}"


#: Name, annotation and default of a parameter or a field.
_Given = tuple[str, ast.expr | None, ast.expr | None]


@dataclass(frozen=True)
class Flag:
    """A parameter of a function, or a field of a dataclass, as written in the source code."""

    name: str
    annotation: str
    default: Any  #: `...` for a required flag
    help: str


def read_flags(module: str, name: str) -> tuple[str, list[Flag]]:
    """Read the flags of a function or dataclass from the source code.

    Args:
        module: dotted name within the package, such as "lib.rank", or the full name of a module.
        name: name of the function or the dataclass.

    Returns:
        The summary (first paragraph of the docstring), and one flag for each parameter or field,
        with the help text from the docstring's section `Args` or `Attributes`.
    """
    body = ast.parse(_source(module)).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    (found,) = (node for node in body if isinstance(node, kinds) and node.name == name)
    docstring = ast.get_docstring(found) or ""
    helps = _argument_help(docstring)
    given = _fields(found) if isinstance(found, ast.ClassDef) else _parameters(found.args)
    flags = [
        Flag(
            name,
            "" if annotation is None else ast.unparse(annotation),
            ... if default is None else ast.literal_eval(default),
            helps.get(name, ""),
        )
        for name, annotation, default in given
    ]
    return docstring.split("\n\n")[0], flags


def _source(module: str) -> str:
    """Return the source code of a module without importing it."""
    inside = module.removeprefix("clinical_drug_discovery.")
    path: Any = files("clinical_drug_discovery") / f"{inside.replace('.', '/')}.py"
    if not path.is_file():  # a model outside of the package
        found = find_spec(module)
        path = Path(found.origin if found and found.origin else module)
    text: str = path.read_text(encoding="utf-8")
    return text


def _parameters(arguments: ast.arguments) -> Iterator[_Given]:
    required = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*required, *arguments.defaults, *arguments.kw_defaults]
    for one, default in zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True):
        yield one.arg, one.annotation, default


def _fields(dataclass: ast.ClassDef) -> Iterator[_Given]:
    for node in dataclass.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and not ast.unparse(node.annotation).startswith("ClassVar")
        ):
            yield node.target.id, node.annotation, node.value


def _argument_help(docstring: str) -> dict[str, str]:
    """Return the help text of each name in the section `Args` or `Attributes` of a docstring."""
    section = re.search(r"(?m)^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring)
    text = section[1] if section else ""
    entries = re.findall(r"(?m)^    (\w+): ((?:.|\n(?!    \w+: ))+)", text)
    return {name: " ".join(text.split()) for name, text in entries}
