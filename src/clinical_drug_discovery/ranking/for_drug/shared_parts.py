"""Parts of a saved model that the same model with added facts uses, too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...system.processes import let_others
from ..metapath_features import MetapathFeatures
from ..path_scores import PathRanker
from .log_sums import compute_log_sums, fingerprint, read_log_sums, save_log_sums

if TYPE_CHECKING:
    from .best_diseases import BestDiseases


class SharedParts:
    """The log-sums of a saved model, of shape (2, M, S), and what it has prepared for questions.

    Attributes:
        graph: of the saved model.
        features: of this graph; None: not made yet.
        prepared: what has answered questions about drugs; None: nothing yet.

    Args:
        graph: of the saved model.
        paths: of the saved model.
        path: file of the sums.
    """

    def __init__(self, graph: KnowledgeGraph, paths: PathRanker, path: Path) -> None:
        self.graph = graph
        self.features: MetapathFeatures | None = None
        self.prepared: BestDiseases | None = None
        self._paths, self._path = paths, path
        self._sums: Floats | None = None
        self._is_busy = False

    def find_sums(self) -> Floats | None:
        """Return the sums if they were computed before; see `compute_log_sums`."""
        if self._sums is None:
            first, stop = node_range_of(self.graph, self.graph.vocabulary.disease_type)
            shape = 2, len(self._paths.mlps), stop - first
            self._sums = read_log_sums(self._path, self._fingerprint(), shape)
        return self._sums

    def sums(self, features: MetapathFeatures | None = None) -> Floats:
        """Return the sums. If they were not computed before, compute them and write the file.

        Args:
            features: of the graph; None: they are made if they are needed.
        """
        while self._is_busy:  # another thread computes them
            let_others()
        self._is_busy = True
        try:
            found = self.find_sums()
            if found is None:
                features = features or MetapathFeatures(self.graph)
                found = self._sums = compute_log_sums(self._paths, features)
                save_log_sums(self._path, self._fingerprint(), found)
            return found
        finally:
            self._is_busy = False

    def _fingerprint(self) -> str:
        return fingerprint(self._paths, self.graph)
