"""The sizes of a graph that decide how much memory a run takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..graph.knowledge_graph import EdgeType, KnowledgeGraph
from .edge_sampler import NUM_CANDIDATES
from .objective.sizes import ComparedSizes


@dataclass(frozen=True)
class GraphSizes:
    """The sizes of a graph that decide how much memory a run takes."""

    node_type_counts: Mapping[str, int]
    edge_type_counts: Mapping[EdgeType, int]
    drug_type: str = ""
    disease_type: str = ""

    @staticmethod
    def of(graph: KnowledgeGraph) -> GraphSizes:
        """Return the sizes of `graph`."""
        nodes = dict(zip(graph.node_type_names, graph.type_ptr.diff().tolist(), strict=True))
        edges = dict(zip(graph.edge_types, graph.edge_type_counts.tolist(), strict=True))
        words = graph.vocabulary
        return GraphSizes(nodes, edges, words.drug_type, words.disease_type)

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
    def largest_type(self) -> int:
        """Number of nodes n of the largest type."""
        return max(self.node_type_counts.values())

    def expected_rows(
        self, positives: Mapping[EdgeType, int], compared: ComparedSizes | None = None
    ) -> int:
        """Return the expected number of distinct nodes of a batch.

        Endpoints are assumed to be uniform over the nodes of a type, which gives an upper estimate.

        Args:
            positives: number of positives of each edge type.
            compared: sizes of the terms beside link prediction; None: no such terms.
        """
        ends = dict.fromkeys(self.node_type_counts, 0)
        others = {kind: max(n - NUM_CANDIDATES, 0) for kind, n in self.node_type_counts.items()}
        for kind, size in positives.items():
            ends[kind.src_type] += size
            ends[kind.dst_type] += size
        if compared is not None:
            for name, drawn, distinct in (
                (self.drug_type, compared.drug_ends, compared.candidates),
                (self.disease_type, compared.disease_ends, compared.voters),
            ):
                if name in ends:
                    ends[name] += drawn
                    share = distinct / max(self.node_type_counts[name], 1)
                    others[name] = math.ceil(others[name] * (1 - share))
        # The probability that k uniformly drawn endpoints miss a node is exp(-k / count).
        return sum(
            count - math.floor(others[kind] * math.exp(-ends[kind] / count))
            for kind, count in self.node_type_counts.items()
        )
