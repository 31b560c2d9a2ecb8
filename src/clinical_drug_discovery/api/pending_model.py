"""A model with added facts, which a thread computes while its graph can be asked."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress

from ..graph.frames.added_facts import ExtendedGraph
from ..system.errors import InputError
from ..system.log import part
from ..system.processes import alone
from .model import Model

# One model is computed at a time, because each needs 1 GiB for its results.
_TURN = threading.Lock()


class PendingModel:
    """A model whose graph is there at once; `get` waits for the rest.

    Args:
        before: the model without the facts, which may be pending, too.
        extended: its graph with the facts.
    """

    def __init__(self, before: Model | PendingModel, extended: ExtendedGraph) -> None:
        self.graph, self.new_nodes = extended.graph, extended.new_nodes
        self._found: Future[Model] = Future()
        work = threading.Thread(target=self._compute, args=(before, extended), daemon=True)
        work.start()

    @property
    def is_ready(self) -> bool:
        """True if `get` returns the model without waiting."""
        return self._found.done() and self._found.exception() is None

    def get(self) -> Model:
        """Return the model.

        Raises:
            InputError: it cannot be computed.
        """
        return self._found.result()

    def _compute(self, before: Model | PendingModel, extended: ExtendedGraph) -> None:
        """Embed all nodes and prepare the ranking; short questions are answered in between."""
        try:
            known = before if isinstance(before, Model) else before.get()
            with _TURN:
                model = known._on(extended)
                # Without a ranker, each question about ranks says so.
                with alone(), part("Preparing the ranks"), suppress(InputError):
                    _ = model.ranking
            self._found.set_result(model)
        except BaseException as error:  # whoever asks for the model gets it
            self._found.set_exception(error)
