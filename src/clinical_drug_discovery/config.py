"""The file of --config: the model and the parameters of a run, as TOML or JSON.

A file that a user writes has the parameters by name, and `model`. The file config.json that a run
leaves in its model directory describes the model; its key `arguments` has the parameters.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .flags import FLAG_NAMES, Flag, flag_of
from .system.errors import InputError, shown
from .system.limits.parameters import check_value
from .system.untrusted.inputs import check_regular, parse_json, repeated

ARGUMENTS, MODEL = "arguments", "model"
_WRITTEN = "format_version"  # a key of every config.json that a run has written
_MOST_BYTES = 2**24  # a graph with thousands of edge types has a config.json of less than 1 MiB
_TOML_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*=""")  # at the start of a line


@dataclass(frozen=True)
class Config:
    """The content of a file."""

    path: Path
    model: str | None
    values: dict[str, Any]  #: parameters by the names that the file uses, without null
    note: str = ""  #: why a run with this file is not the run that wrote it

    def checked(self, flags: Sequence[Flag], model: str) -> dict[str, Any]:
        """Return the values by the names of the flags' parameters.

        Args:
            flags: of the command.
            model: of the command.

        Raises:
            InputError: the file is for another model, or a parameter is unknown or invalid.
        """
        if self.model not in (None, model):
            raise InputError(
                f"{self.path}: model (got {shown(self.model)}) is not the model of the command, "
                f"{model}"
            )
        known = {flag.name: flag for flag in flags}
        names = {FLAG_NAMES.get(name, name): name for name in known}
        found: dict[str, Any] = {}
        for key, value in self.values.items():
            name = names.get(key, key)
            if name not in known:
                near = difflib.get_close_matches(key, [*known, *names], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"{self.path}: {key!r} (got {shown(value)}) is not a parameter of cdd embed "
                    f"{model}{hint}"
                )
            if name in found:
                raise InputError(f"{self.path}: {key!r} is given twice, also as another name")
            try:
                check_value(name, known[name].annotation, value)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from None
            several = known[name].annotation.startswith("EdgesPath")
            found[name] = [value] if several and isinstance(value, str) else value
        return found

    def describe(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> str:
        """Return a line that names the file, and the flags that replace its values.

        Args:
            values: what `checked` returned.
            given: values of the flags on the command line, by the names of their parameters.
        """
        replaced = [
            f"{flag_of(name)} {given[name]} (in the file: {value})"
            for name, value in values.items()
            if name in given
        ]
        flags = f"; the command line replaces {', '.join(replaced)}" if replaced else ""
        return f"Parameters from {self.path}{flags}{self.note}"


def read_config(path: Path) -> Config:
    """Read a file of parameters.

    Raises:
        InputError: the file cannot be read, is not TOML or JSON, or does not have parameters.
    """
    check_regular("config", path)
    if path.suffix.lower() not in (".toml", ".json"):
        raise InputError(f"config (got {path}) must be a file named .toml or .json")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it must have at most {_MOST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        content = _toml(text) if path.suffix.lower() == ".toml" else parse_json(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"config (got {path}) cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"config (got {path}) must have parameters by name")
    model = content.get(MODEL)
    if model is not None and not isinstance(model, str):
        raise InputError(f"{path}: model (got {shown(model)}) must be text")
    values, note = {name: value for name, value in content.items() if name != MODEL}, ""
    if _WRITTEN in content:
        values, note = _arguments(path, content), _note(content)
    return Config(path, model, {k: v for k, v in values.items() if v is not None}, note)


def _toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: the text is not TOML. Python's message on a repeated key lacks the key.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        keys: set[str] = set()
        for line in text.splitlines() if "Cannot overwrite a value" in str(error) else ():
            key = _TOML_KEY.match(line)
            if key is not None and key[1] in keys:
                raise ValueError(repeated(key[1])) from None
            keys = set() if line.startswith("[") else keys | ({key[1]} if key else set())
        raise


def _arguments(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the run that wrote a file.

    Raises:
        InputError: it lacks them, or a value beside them was changed, which would be
            without effect.
    """
    arguments = content.get(ARGUMENTS)
    if not isinstance(arguments, dict):
        raise InputError(
            f"config (got {path}) lacks the key {ARGUMENTS!r}: an earlier version of the package "
            "wrote it; write the parameters of the run into a file of your own"
        )
    for name, value in arguments.items():
        if name in content and content[name] != value:
            raise InputError(
                f"{path}: {name} (got {shown(content[name])}) differs from {name} in {ARGUMENTS} "
                f"({shown(value)}): change it only there, or give {flag_of(name)}"
            )
    return arguments


def _note(content: Mapping[str, Any]) -> str:
    """Say why a run with these parameters is not the run that wrote them; usually nothing."""
    origin = "; that run started from an earlier model, and this run does so only with --init-from"
    return (origin if content.get("init_from") else "") + _note_on_epochs(content)


def _note_on_epochs(content: Mapping[str, Any]) -> str:
    """Say why another number of epochs makes a run differ; usually nothing."""
    cycles = content.get("learning_rate_cycles")
    if isinstance(cycles, list) and len(cycles) > 1:
        return "; the training of that run was made longer later, so this run differs from it"
    if content.get("finished_epochs") != content.get("num_epochs"):
        return (
            f"; the training of that run ended after {content.get('finished_epochs')} epochs, and "
            "this run has all epochs"
        )
    return ""
