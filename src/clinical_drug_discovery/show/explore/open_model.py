"""A model behind the page: its nodes by number, their descriptions and their facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ...api.model import Model
from ...api.pending_model import PendingModel
from ...graph.adjacency import neighbors_of
from ...graph.knowledge_graph import EdgeType, IntArray, node_range_of
from ...graph.node_lookup import Synonym
from ...lib.similar import cosines
from ...ranking.evidence.sentences import phrase, spoken
from ...system.errors import InputError
from ...system.log import part
from ...system.processes import alone, cached_property
from ..report.links import Link, links_of
from .suggestions import Suggestion, Suggestions

_SUGGESTED = 12  # nodes that a search shows
_NODE = ("node_index", "node_id", "node_type", "node_name", "node_source")


class OpenModel:
    """A model that the page asks. In the page, a node has the number of its node_index.

    Questions about names and facts need the graph alone. Others wait for a model that is pending.

    Args:
        model: the model.
        synonyms: other names of nodes.
        before: the model without the new nodes of `model`; the names of its nodes are known.
    """

    def __init__(
        self,
        model: Model | PendingModel,
        synonyms: Sequence[Synonym] = (),
        before: OpenModel | None = None,
    ) -> None:
        self.source, self.graph = model, model.graph
        self._synonyms, self._before = synonyms, before
        self._numbers = self.graph.nodes["node_index"].to_numpy()
        self._order = np.argsort(self._numbers)
        self._degree = self.graph.degree.numpy()
        #: why the model cannot rank drugs; "" if it can, or is not prepared
        self.no_ranks: str = "" if before is None else before.no_ranks

    @property
    def model(self) -> Model:
        """The model, for which a thread waits while it is pending."""
        return self.source if isinstance(self.source, Model) else self.source.get()

    @property
    def is_ready(self) -> bool:
        """True if the model has its embeddings."""
        return isinstance(self.source, Model) or self.source.is_ready

    def prepare(self) -> None:
        """Compute all that the first questions need, so that they do not wait for it."""
        with part("Preparing the answers"):
            self.suggest("a")
            try:
                for disease, _ in self.most_treated(1):
                    asked = self.query(disease)
                    best = self.model.rank(asked, 1)["drug_index"]
                    if len(best):
                        self.model.explain(self.query(self.row(best[0])), asked)
            except InputError as error:
                self.no_ranks = str(error)

    def prepare_diseases(self) -> None:
        """Prepare the lists of diseases; other questions are answered meanwhile.

        A search comes first. Its lists take seconds, but they need not wait for the sums.
        """
        if not self.no_ranks:
            with alone(), part("Preparing the lists of diseases"):
                for often in (False, True):
                    self.model.ranking.for_drugs.get(True, often=often)

    def suggest(self, text: str, types: Sequence[str] | None = None) -> list[Suggestion]:
        """Return the nodes that a text may mean; see `Suggestions.find`."""
        found = self._suggestions.find(text, _SUGGESTED, types, similar=self._before is None)
        if self._before is None:
            return found
        own = {one.node for one in found}
        older = [one for one in self._before.suggest(text, types) if one.node not in own]
        return [*found, *older][:_SUGGESTED]

    @cached_property
    def _suggestions(self) -> Suggestions:
        """The names of the new nodes, or of all; the latter takes a second for 130,000 nodes."""
        words = self.graph.vocabulary
        rows = np.arange(self.graph.num_nodes)
        if self._before is not None:
            rows = np.array(self.rows(self.source.new_nodes["node_index"].to_list()), np.int64)
        synonyms = self._synonyms if self._before is None else ()
        nodes, first = self.graph.nodes[rows], (words.drug_type, words.disease_type)
        return Suggestions(nodes, self._degree[rows], first, synonyms)

    def row(self, number: int) -> int:
        """Return the row of the node with a node_index.

        Raises:
            InputError: the graph does not have this node.
        """
        at = np.searchsorted(self._numbers, number, sorter=self._order)
        if at < len(self._order) and self._numbers[self._order[at]] == number:
            return int(self._order[at])
        raise InputError(f"node (got {number}) must be the node_index of a node in the graph")

    def rows(self, numbers: Sequence[int]) -> list[int]:
        """Return the rows of several nodes; see `row`."""
        return [self.row(number) for number in numbers]

    def type_of(self, row: int) -> str:
        """Return the node type of a row."""
        return str(self.graph.nodes["node_type"][row])

    def query(self, row: int) -> str:
        """Return a text that names the node in a question to the model: source:id, or type:id."""
        node = self.graph.nodes.row(row, named=True)
        alike = self.graph.nodes.filter(
            (pl.col("node_id") == node["node_id"]) & (pl.col("node_source") == node["node_source"])
        )
        kind = "node_source" if alike.height == 1 and node["node_source"] else "node_type"
        return f"{node[kind]}:{node['node_id']}"

    def describe(self, rows: Sequence[int] | IntArray) -> list[dict[str, Any]]:
        """Return number, name, type, identifier and number of facts of each node."""
        found = self.graph.nodes.select(_NODE)[np.asarray(rows, np.int64)].to_dicts()
        return [
            {
                "node": one["node_index"],
                "name": one["node_name"],
                "type": one["node_type"],
                "id": _shown(links_of(one)),
                "facts": int(self._degree[row]),
            }
            for one, row in zip(found, rows, strict=True)
        ]

    def facts_of(self, row: int) -> dict[EdgeType, IntArray]:
        """Return the rows of a node's neighbors, by the edge type out of the node."""
        return {
            kind: others.astype(np.int64) for kind, others in neighbors_of(self.graph, row).items()
        }

    def nearest_first(self, row: int, others: IntArray) -> IntArray:
        """Return rows in the order of falling cosine with the embedding of a node."""
        return others[np.argsort(-self.cosines(row, others), kind="stable")]

    def cosines(self, row: int, others: IntArray) -> npt.NDArray[np.float64]:
        """Return the cosine of a node's embedding with those of other nodes."""
        graph = self.graph
        own, first = self._vectors(self.type_of(row))
        vector = own[row - first]
        result = np.empty(len(others))
        types = graph.node_type.numpy()[others]
        for one in np.unique(types).tolist():
            at = np.flatnonzero(types == one)
            values, first = self._vectors(graph.node_type_names[one])
            result[at] = cosines(values, others[at] - first, vector)
        return result

    def _vectors(self, node_type: str) -> tuple[npt.NDArray[np.float32], int]:
        """Return the embeddings of a type, and the row of its first node."""
        first, _ = node_range_of(self.graph, node_type)
        return self.model.embeddings(node_type).values, first

    def phrase(self, kind: EdgeType) -> str:
        """Return the words between the two ends of an edge, such as "treats"."""
        return phrase(spoken(self.graph.vocabulary, kind))

    def best_known(self, node_type: str, top: int) -> list[dict[str, Any]]:
        """Return the nodes of a type that have the most facts."""
        first, stop = node_range_of(self.graph, node_type)
        best = np.argsort(-self._degree[first:stop], kind="stable")[:top]
        return self.describe(first + best)

    def most_treated(self, top: int) -> list[tuple[int, int]]:
        """Return the rows of the diseases with the most treatments, and how many these are."""
        graph, words = self.graph, self.graph.vocabulary
        known = np.zeros(graph.num_nodes, np.int64)
        for r, kind in enumerate(graph.edge_types):
            if kind.relation in words.treats and kind.dst_type == words.disease_type:
                first, stop = graph.node_range(graph.endpoint_types[r][1])
                known[first:stop] += np.diff(graph.indptr_of(r).numpy())
        best = np.argsort(-known, kind="stable")[:top]
        return [(row, int(known[row])) for row in best.tolist() if known[row]]


def _shown(links: list[Link]) -> str:
    """Return the first identifier of a node, and how many more a group of diseases has."""
    more = f" and {len(links) - 1} more" if len(links) > 1 else ""
    return f"{links[0]['text']}{more}"
