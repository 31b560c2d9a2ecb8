"""The sizes of a graph that decide how much memory a run takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..graph.adjacency import MOST_MEAN_DEGREE
from ..graph.knowledge_graph import EdgeType, KnowledgeGraph
from ..graph.reading.room import FILES_BUFFERS, NODE
from ..models.initialisation import LINKED
from .edge_sampler import NUM_CANDIDATES
from .objective.sizes import ComparedSizes

_NAMES = 60  # bytes of ids and names for each node; 46 in synthetic graphs, 59 in a real one
# Bytes for each edge while the rows are read and made distinct, for each edge of the relation that
# `build_graph` sorts, and for other edges meanwhile. A Parquet file of 16.2 million rows took 23
# bytes for each row that was read, and 33 at most afterwards, with the graph.
_ROWS, _SORTING, _SORTED = 32, 28, 14
_BUFFERS = 64 * 2**20  # of the reader of text; that of Parquet took 1 GiB, whatever the size was
_ALMOST_ALL = 1 - 1e-9  # largest share of edges to sample, as log(0) is infinite


@dataclass(frozen=True)
class GraphSizes:
    """The sizes of a graph that decide how much memory a run takes."""

    node_type_counts: Mapping[str, int]
    edge_type_counts: Mapping[EdgeType, int]
    drug_type: str = ""
    disease_type: str = ""
    #: number of edges into each node of the target type, for each edge type; None: not known
    degrees: Mapping[EdgeType, npt.NDArray[np.int32]] | None = field(
        default=None, compare=False, repr=False
    )

    @staticmethod
    def of(graph: KnowledgeGraph) -> GraphSizes:
        """Return the sizes of `graph`."""
        nodes = dict(zip(graph.node_type_names, graph.type_ptr.diff().tolist(), strict=True))
        edges = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        words = graph.vocabulary
        degrees = {
            kind: graph.host.indptr_of(r).diff().numpy().astype(np.int32)
            for r, kind in enumerate(graph.edge_types)
        }
        return GraphSizes(nodes, edges, words.drug_type, words.disease_type, degrees)

    @property
    def num_drugs(self) -> int:
        """Number of nodes of the drug type."""
        return self.node_type_counts.get(self.drug_type, 0)

    @property
    def num_diseases(self) -> int:
        """Number of nodes of the disease type."""
        return self.node_type_counts.get(self.disease_type, 0)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return sum(self.node_type_counts.values())

    @property
    def num_edges(self) -> int:
        """Number of directed edges E."""
        return sum(self.edge_type_counts.values())

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the graph's tensors: sources, pointers, and the types of nodes."""
        ends = sum(self.node_type_counts[kind.dst_type] + 1 for kind in self.edge_type_counts)
        return 4 * self.num_edges + 8 * ends + 4 * self.num_nodes

    @property
    def names_bytes(self) -> int:
        """Predicted bytes of the table of nodes."""
        return _NAMES * self.num_nodes

    @property
    def reading_bytes(self) -> int:
        """Predicted bytes that reading takes at its peak: the graph, and the sorting of edges."""
        of_relation: dict[str, int] = {}
        for kind, count in self.edge_type_counts.items():
            of_relation[kind.relation] = of_relation.get(kind.relation, 0) + count
        sorting = _SORTING * max(of_relation.values()) + _SORTED * self.num_edges
        most = max(_ROWS * self.num_edges, sorting)
        return self.tensor_bytes + self.names_bytes + most + _BUFFERS

    @property
    def reading_in_files_bytes(self) -> int:
        """Predicted bytes that reading takes at its peak if the rows lie in files."""
        return FILES_BUFFERS + NODE * self.num_nodes

    @property
    def largest_type(self) -> int:
        """Number of nodes n of the largest type."""
        return max(self.node_type_counts.values())

    @property
    def largest_hierarchy(self) -> int:
        """Number of nodes of the largest type with a hierarchy; an upper bound without degrees.

        See `models.initialisation.structural_vectors`.
        """
        found = 0
        for kind, count in self.edge_type_counts.items():
            nodes = self.node_type_counts[kind.src_type]
            linked = nodes if self.degrees is None else np.count_nonzero(self.degrees[kind])
            is_wide = linked >= max(LINKED * nodes, 1)
            if kind.src_type == kind.dst_type and is_wide and count <= MOST_MEAN_DEGREE * linked:
                found = max(found, nodes if count else 0)
        return found

    def expected_rows(
        self, positives: Mapping[EdgeType, int], compared: ComparedSizes | None = None
    ) -> int:
        """Return the expected number of distinct nodes of a batch.

        Without degrees, endpoints are assumed to be uniform over the nodes of a type. This gives an
        upper estimate, because many edges lead to the same few nodes.

        Args:
            positives: number of positives of each edge type.
            compared: sizes of the terms beside link prediction; None: no such terms.
        """
        logs = {kind: np.zeros(1) for kind in self.node_type_counts}  # log probability to be missed
        others = {kind: max(n - NUM_CANDIDATES, 0) for kind, n in self.node_type_counts.items()}
        for kind, size in positives.items():
            for name, one in ((kind.src_type, kind.reverse), (kind.dst_type, kind)):
                logs[name] = logs[name] + self._log_missed(one, size)
        if compared is not None:
            for name, drawn, distinct in (
                (self.drug_type, compared.drug_ends, compared.candidates),
                (self.disease_type, compared.disease_ends, compared.voters),
            ):
                if name in logs:
                    count = max(self.node_type_counts[name], 1)
                    logs[name] = logs[name] - drawn / count
                    others[name] = math.ceil(others[name] * (1 - distinct / count))
        return sum(
            count - math.floor(others[kind] * np.exp(logs[kind]).mean())
            for kind, count in self.node_type_counts.items()
        )

    def _log_missed(self, kind: EdgeType, size: int) -> npt.NDArray[np.float64]:
        """Return log of a lower bound of the probability that no sampled edge leads to a node.

        Args:
            kind: a type of edges, of which `size` distinct ones are sampled.
            size: at most the number of these edges.

        Returns:
            A number for each node of the target type, or one number for all.
        """
        if self.degrees is None:
            # All k ends miss a node with the probability exp(-k / count).
            return np.array([-size / max(self.node_type_counts[kind.dst_type], 1)])
        degree = self.degrees[kind]
        # The d edges of a node are missed one after the other, among fewer and fewer edges.
        left = self.edge_type_counts[kind] - degree + 1
        return np.asarray(degree * np.log1p(-np.minimum(size / left, _ALMOST_ALL)))
