"""Read the flags of a command from the source of its function, without importing it.

Importing a function of `lib` imports torch and takes seconds; parsing its file takes milliseconds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

#: Type of a flag, by the annotation of its parameter.
TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "int | None": int | None,
    "float": float,
    "float | None": float | None,
    "str": str,
    "str | None": str | None,
    "str | int | None": str | None,
    "str | Path": Path,
    "str | Path | None": Path | None,
    "Sequence[str] | None": list[str] | None,
}


@dataclass(frozen=True)
class Flag:
    """A parameter of a function, or a field of a dataclass, as its source states it."""

    name: str
    annotation: str
    default: Any  #: `...` if it has none
    help: str


def read_flags(module: str, name: str) -> tuple[str, list[Flag]]:
    """Read the flags of a function or dataclass from its source.

    Args:
        module: dotted name within the package, such as "lib.rank".
        name: name of the function or the dataclass.

    Returns:
        The summary (first paragraph of the docstring), and one flag for each parameter or field.
        The help texts are those of the section `Args` (or `Attributes`) of the docstring.
    """
    path = files("clinical_drug_discovery") / f"{module.replace('.', '/')}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    (found,) = (
        node
        for node in body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
    )
    docstring = ast.get_docstring(found) or ""
    helps = _argument_help(docstring)
    given = _fields(found) if isinstance(found, ast.ClassDef) else _parameters(found.args)
    flags = [
        Flag(
            name=name,
            annotation=ast.unparse(annotation) if annotation is not None else "",
            default=... if default is None else ast.literal_eval(default),
            help=helps.get(name, ""),
        )
        for name, annotation, default in given
    ]
    return docstring.split("\n\n")[0], flags


#: Name, annotation and default.
Given = tuple[str, ast.expr | None, ast.expr | None]


def _parameters(arguments: ast.arguments) -> Iterator[Given]:
    required = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*required, *arguments.defaults, *arguments.kw_defaults]
    for one, default in zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True):
        yield one.arg, one.annotation, default


def _fields(dataclass: ast.ClassDef) -> Iterator[Given]:
    for node in dataclass.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and not ast.unparse(node.annotation).startswith("ClassVar")
        ):
            yield node.target.id, node.annotation, node.value


def _argument_help(docstring: str) -> dict[str, str]:
    """Return the entries of `Args` or `Attributes` of a Google docstring, by name."""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.findall(
        r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", section[1] if section else "", re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}
