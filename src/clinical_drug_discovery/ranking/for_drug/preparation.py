"""The preparation of questions about drugs: by a search, or by the sums over all drugs."""

from __future__ import annotations

from pathlib import Path

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import KnowledgeGraph
from ...system.processes import let_others
from ..drug_ranker import DrugRanker
from ..metapath_features import MetapathFeatures
from .best_diseases import BestDiseases
from .disease_side import DiseaseSide
from .log_sums import compute_log_sums, fingerprint, read_log_sums, save_log_sums

_FEW_DISEASES = 512  # their sums are computed at once, and not kept in a file


class ForDrugs:
    """Answers questions about drugs; makes each part when it is first needed.

    A search is ready soon, and its answers take seconds. The sums take minutes, and the answers a
    fraction of a second. So a single question is answered by a search, unless the sums are there.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        features: MetapathFeatures,
        ranker: DrugRanker,
        kept: Path | None,
    ) -> None:
        """Take what the answers depend on.

        Args:
            graph: of the model.
            features: of the graph.
            ranker: of the model.
            kept: file of the sums; None for a model that is not saved, which always searches.
        """
        self._graph, self._features, self._ranker, self._kept = graph, features, ranker, kept
        self._ready: dict[bool, BestDiseases] = {}
        self._side: DiseaseSide | None = None
        self._sums: Floats | None = None
        self._is_busy = False

    def get(self, popularity: bool, *, often: bool) -> BestDiseases:
        """Return what answers questions about one drug; the first call takes long.

        Other threads may ask meanwhile. They get the search if it is ready, and wait otherwise.

        Args:
            popularity: see `DrugRanker.scores`.
            often: many questions will follow, which are worth the sums.
        """
        while True:
            found = self._ready.get(popularity)
            is_enough = found is not None and (found.rivals is None or not often or not self._kept)
            if found is not None and (is_enough or self._is_busy):
                return found
            if not self._is_busy:
                break
            let_others()
        self._is_busy = True
        try:
            self._ready[popularity] = self._prepare(popularity, often)
        finally:
            self._is_busy = False
        return self._ready[popularity]

    def _prepare(self, popularity: bool, often: bool) -> BestDiseases:
        if self._side is None:
            self._side = DiseaseSide.of(self._features)
        if self._sums is None:
            self._sums = self._find_sums(often)
        sums = None if self._sums is None else self._sums[int(popularity)]
        return BestDiseases.of(self._ranker, self._side, popularity, sums)

    def _find_sums(self, often: bool) -> Floats | None:
        paths, features = self._ranker.paths, self._features
        if features.num_diseases <= _FEW_DISEASES:
            return compute_log_sums(paths, features)
        if self._kept is None:
            return None
        of = fingerprint(paths, self._graph)
        sums = read_log_sums(self._kept, of, (2, len(paths.mlps), features.num_diseases))
        if sums is None and often:
            sums = compute_log_sums(paths, features)
            save_log_sums(self._kept, of, sums)
        return sums
