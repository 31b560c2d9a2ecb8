"""The preparation of questions about drugs: by a search, or by the sums over all drugs."""

from __future__ import annotations

from dataclasses import replace

from ...graph.adjacency import Floats
from ...graph.knowledge_graph import KnowledgeGraph
from ...system.processes import let_others
from ..drug_ranker import DrugRanker
from ..metapath_features import MetapathFeatures
from .best_diseases import BestDiseases
from .disease_side import DiseaseSide
from .log_sums import compute_log_sums
from .shared_parts import SharedParts
from .sums_after_facts import are_few, have_same_diseases, sums_after_facts

_FEW_DISEASES = 512  # their sums are computed at once, and not kept in a file


class ForDrugs:
    """Answers questions about drugs; makes each part when it is first needed.

    A search is ready soon, and its answers take seconds. The sums take minutes, and the answers a
    fraction of a second. So a single question is answered by a search, unless the sums are there.
    A model with added facts starts from the sums of the model before, which are computed if they
    are not there: a search without them would not end soon for a new drug.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        features: MetapathFeatures,
        ranker: DrugRanker,
        shared: SharedParts | None,
    ) -> None:
        """Take what the answers depend on.

        Args:
            graph: of the model.
            features: of the graph.
            ranker: of the model.
            shared: of the saved model with this graph, or with this graph before facts were added;
                None for a model that is not saved, which always searches.
        """
        self._graph, self._features, self._ranker, self._shared = graph, features, ranker, shared
        self._is_saved = shared is not None and shared.graph is graph
        self._ready: dict[bool, BestDiseases] = {}
        self._side: DiseaseSide | None = None
        self._sums: Floats | None = None
        self._is_exact = True
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
            is_enough = found is not None and (
                found.rivals is None or not often or not self._is_saved
            )
            if found is not None and (is_enough or self._is_busy):
                return found
            if not self._is_busy:
                break
            let_others()
        self._is_busy = True
        try:
            found = self._ready[popularity] = self._prepare(popularity, often)
            if self._is_saved and self._shared is not None:
                self._shared.prepared = found
        finally:
            self._is_busy = False
        return found

    def _prepare(self, popularity: bool, often: bool) -> BestDiseases:
        before = self._same_before()
        if self._side is None and before is not None:
            self._side = replace(before.side, features=self._features)
        elif self._side is None:
            self._side = DiseaseSide.of(self._features)
        if self._sums is None:
            self._sums = self._find_sums(self._side, often)
        sums = None if self._sums is None else self._sums[int(popularity)]
        other = self._ready.get(not popularity)
        if sums is not None and other is not None and other.rivals is None:
            return other.with_sums(popularity, sums)
        like = next(iter(self._ready.values()), before)  # has the same votes
        return BestDiseases.of(
            self._ranker, self._side, popularity, sums, is_exact=self._is_exact, before=like
        )

    def _same_before(self) -> BestDiseases | None:
        """Return the answers of the model before, if the added facts do not change diseases."""
        shared = self._shared
        if shared is None or self._is_saved or shared.prepared is None:
            return None
        if self._features.num_diseases <= _FEW_DISEASES:
            return None
        return shared.prepared if have_same_diseases(shared.graph, self._graph) else None

    def _find_sums(self, side: DiseaseSide, often: bool) -> Floats | None:
        paths, features, shared = self._ranker.paths, self._features, self._shared
        if features.num_diseases <= _FEW_DISEASES:
            return compute_log_sums(paths, features)
        if shared is None:
            return None
        if self._is_saved:
            return shared.sums(features) if often else shared.find_sums()
        if not are_few(shared.graph, self._graph):
            return compute_log_sums(paths, features)
        self._is_exact = False
        return sums_after_facts(shared, self._graph, side, paths)
