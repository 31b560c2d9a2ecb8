"""Arguments of the public functions: plain Python values instead of those of numpy and others.

People read settings from tables, so numbers arrive as `np.int64(16)` and lists as arrays, pandas
Index objects or polars Series. The checks, the arithmetic and the JSON files expect plain values.
"""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import fields, is_dataclass, replace
from typing import Any, ParamSpec, TypeVar

from .limits.parameters import check_arguments

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def plain_arguments(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return a function that makes every argument plain, checks it and calls `function`.

    See `plain` and `limits.parameters.check_arguments`. A call with a missing or unknown parameter
    raises Python's TypeError.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        bound.arguments.update((name, plain(v)) for name, v in bound.arguments.items())
        check_arguments(function, bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call


def plain(value: Any) -> Any:
    """Return a value as plain Python.

    Numbers and arrays of other packages are recognized by their attribute `dtype`, so that no
    package is imported. They become numbers and lists. Other collections also become lists, and a
    set becomes a sorted list. Dataclasses and mappings keep their names and get plain values. Any
    other value, such as a path, a function or a data frame, is returned unchanged. A dataclass
    that holds data, such as a graph, says so by a class attribute `is_data`.
    """
    if callable(value):  # an object of the user, which must not be copied
        return value
    if hasattr(value, "columns") or getattr(value, "is_data", False):
        return value
    if hasattr(value, "dtype"):
        to_list = getattr(value, "to_list", None) or getattr(value, "tolist", None)
        value = value if to_list is None else to_list()
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, also of a member of an Enum
    if isinstance(value, numbers.Real) and not isinstance(value, int | float):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: plain(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Collection) and not isinstance(value, bytes):
        items = [plain(item) for item in value]
        return sorted(items, key=str) if isinstance(value, Set) else items
    return value
