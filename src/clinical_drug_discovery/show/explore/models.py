"""The models that the page can ask: the one that was loaded, and those with a new node."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from ...system.errors import InputError
from .answers import Answers
from .map import Maps
from .new_node import add_new_node
from .open_model import OpenModel

FIRST = "m0"  #: name of the model that was loaded
_KEPT = 2  # models with new nodes; each holds a graph, embeddings and features of its own


class Asked:
    """A model with its answers and maps."""

    def __init__(self, opened: OpenModel) -> None:
        self.opened, self.answers, self.maps = opened, Answers(opened), Maps(opened)
        self.new: list[dict[str, Any]] = []  #: the new nodes, as `OpenModel.describe` tells them


class Models:
    """The models by name. The oldest model with a new node is dropped if there are too many."""

    def __init__(self, first: OpenModel) -> None:
        self._first = Asked(first)
        self._extended: OrderedDict[str, Asked] = OrderedDict()
        self._count, self._lock = 0, Lock()

    def get(self, name: str) -> Asked:
        """Return a model.

        Raises:
            InputError: the model does not exist, or it was dropped.
        """
        with self._lock:
            found = self._first if name == FIRST else self._extended.get(name)
        if found is None:
            raise InputError(
                f"the page keeps the last {_KEPT} models with a new node; model {name!r} is not "
                "among them. Add the node again."
            )
        return found

    def add(self, name: str, new_node: Any) -> dict[str, Any]:
        """Add a new node to a model; return the name of the larger model and the node.

        Raises:
            InputError: the model does not exist, or the node is invalid; see `add_new_node`.
        """
        old = self.get(name)
        opened, number = add_new_node(old.opened, new_node)
        larger = Asked(opened)
        numbers = [*(one["node"] for one in old.new), number]
        larger.new = opened.describe(opened.rows(numbers))
        with self._lock:
            self._count += 1
            added = f"m{self._count}"
            self._extended[added] = larger
            while len(self._extended) > _KEPT:
                self._extended.popitem(last=False)
        return {"model": added, "node": number}
