"""Packages that only some functions need, and that a user installs for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..system.errors import MissingPackageError


def optional_package(name: str, *, install: str | None = None) -> Any:
    """Import a package, or say how to install it.

    Args:
        name: name of the module.
        install: name of the package for pip, if it differs.

    Raises:
        MissingPackageError: the package is not installed; the message has the command.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise  # the package is there, but one that it needs is not
        command = f"pip install {install or name}"
        text = f"this needs the package {install or name}, which is not installed: {command}"
        raise MissingPackageError(text) from error
