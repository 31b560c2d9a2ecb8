"""Ranked lists as tables: drugs for diseases, or diseases for a drug."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array

from ...graph.adjacency import Floats, adjacency_between
from ...graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ...graph.node_lookup import NodeIndex, Synonym
from ...ranking.drug_ranker import DrugRanker
from ...ranking.evidence.explanations import Explainer
from ...ranking.evidence.kind_effects import kind_effects
from ...ranking.evidence.stated_relations import stated_relations
from ...ranking.for_drug.preparation import ForDrugs
from ...ranking.for_drug.shared_parts import SharedParts
from ...ranking.for_drug.sums_after_facts import have_same_diseases
from ...ranking.metapath_features import MetapathFeatures
from ...ranking.path_scores import is_worth_torch
from ...ranking.stored.check_ranker import check_fits
from ...ranking.treatments import mask_of
from ...system import log
from ...system.errors import InputError
from ...system.machine import one_thread
from ...system.processes import in_order, let_others, most_threads
from .model_dir import LOG_SUMS_FILE, read_model_graph, read_model_ranker

CHUNK = 128  #: diseases ranked at a time; their scores take 6 MB on PrimeKG
_DIGITS = 4  # further digits of scores and probabilities are not meaningful
#: num_known_hidden, num_contraindicated_hidden, num_contraindicated (in the list)
Counts = Counter[str]
_NUM_RECENT = 16  # diseases whose scores are kept; 72 kB each on PrimeKG
_Mask = npt.NDArray[np.bool_]
_Scores = tuple[Floats, Floats, Floats]


def shared_parts(graph: KnowledgeGraph, ranker: DrugRanker, model_dir: Path) -> SharedParts:
    """Return the parts of a saved model that models with added facts use, too."""
    return SharedParts(graph, ranker.paths, model_dir / LOG_SUMS_FILE)


@dataclass(frozen=True)
class ListRules:
    """Which of the ranked pairs a list shows.

    Attributes:
        top: largest number of rows of a list.
        include_known: also show pairs that the graph lists as treatments.
        hide_contraindicated: leave out pairs that the graph lists as contraindicated.
    """

    top: int
    include_known: bool = False
    hide_contraindicated: bool = False

    def shown(self, candidate: _Mask, known: _Mask, contraindicated: _Mask) -> tuple[_Mask, Counts]:
        """Return which pairs may be listed, and count the hidden ones; all masks have one shape.

        A pair that is known and contraindicated counts as known if both would hide it.
        """
        hidden = candidate & known & (not self.include_known)
        harmful = candidate & ~hidden & contraindicated & self.hide_contraindicated
        counts = {
            "num_known_hidden": int(hidden.sum()),
            "num_contraindicated_hidden": int(harmful.sum()),
        }
        return candidate & ~hidden & ~harmful, Counter(counts)


@dataclass(frozen=True)
class Ranking:
    """A graph with the metapath features and the ranker.

    Drugs and diseases are numbered within their types.
    """

    graph: KnowledgeGraph
    features: MetapathFeatures
    ranker: DrugRanker
    drugs: pl.DataFrame  #: the part of the graph's node table with the drugs
    diseases: pl.DataFrame  #: the part of the graph's node table with the diseases
    drug_has_facts: _Mask  #: shape (drugs,)
    disease_has_facts: _Mask  #: shape (diseases,)
    contraindicated: csr_array  #: shape (drugs, diseases), 1 for contraindications
    candidates: _Mask  #: shape (drugs,): the drugs that are ranked
    for_drugs: ForDrugs  #: answers questions about one drug
    popularity: bool = True  #: add the popularity of drugs to their scores
    synonyms: Sequence[Synonym] = ()  #: other names of nodes, for `find`
    _indexes: dict[str, NodeIndex] = field(default_factory=dict, repr=False, compare=False)
    _recent: dict[tuple[int, bool], _Scores] = field(
        default_factory=dict, repr=False, compare=False
    )

    @staticmethod
    def of(model_dir: Path) -> Ranking:
        """Read the graph and the ranker from a model directory, and prepare the features.

        Raises:
            InputError: a file is missing or damaged, or the files do not belong together.
        """
        with log.part("Reading the graph and the ranker"):
            ranker, graph_sha256 = read_model_ranker(model_dir)
            graph = read_model_graph(model_dir, graph_sha256)
        return Ranking.on(graph, ranker, shared_parts(graph, ranker, model_dir))

    @staticmethod
    def on(graph: KnowledgeGraph, ranker: DrugRanker, shared: SharedParts | None = None) -> Ranking:
        """Prepare the features of a graph for a ranker.

        Args:
            graph: of the model.
            ranker: of the model.
            shared: parts of the saved model; see `ForDrugs`.

        Raises:
            InputError: the ranker does not fit the graph.
        """
        with log.part("Following metapaths"):
            features = MetapathFeatures(graph)
        check_fits(ranker, features)
        if shared is not None:
            _share_diseases(shared, graph, features)
        words = graph.vocabulary
        types = words.drug_type, words.disease_type
        drug, disease = (slice(*node_range_of(graph, name)) for name in types)
        has_facts = graph.degrees > 0
        return Ranking(
            graph,
            features,
            ranker,
            graph.nodes[drug],
            graph.nodes[disease],
            has_facts[drug],
            has_facts[disease],
            adjacency_between(graph, *types, words.contraindicates),
            has_facts[drug],
            ForDrugs(graph, features, ranker, shared),
        )

    def with_synonyms(self, synonyms: Sequence[Synonym]) -> Ranking:
        """Return the ranking that also finds nodes by other names."""
        return replace(self, synonyms=synonyms, _indexes={})

    def find(self, one: str, query: str) -> int:
        """Return the "disease" or "drug" that a query names, numbered within its type.

        Raises:
            InputError: the query does not name exactly one node, or the node does not have facts.
        """
        return int(self.find_all(one, [(one, query)])[0])

    def find_all(self, one: str, queries: Sequence[tuple[str, str]]) -> IntArray:
        """Return the different diseases or drugs that queries name, numbered within their type.

        Args:
            one: "disease" or "drug".
            queries: pairs (place of the query, for the error message; query).

        Raises:
            InputError: see `find`; or two queries name the same node.
        """
        words = self.graph.vocabulary
        nodes, has_facts, kind = (
            (self.diseases, self.disease_has_facts, words.disease_type)
            if one == "disease"
            else (self.drugs, self.drug_has_facts, words.drug_type)
        )
        index = self._indexes.get(one)
        if index is None:  # kept, because it takes a second for 130,000 nodes
            index = self._indexes[one] = NodeIndex(nodes, type=kind, synonyms=self.synonyms)
        seen: dict[int, str] = {}
        for where, query in queries:
            at, asked = index.find(query, parameter=where), f"{where} (got {query!r})"
            if not has_facts[at]:
                raise InputError(
                    f"{asked} does not have facts in the graph, so nothing can be ranked for it"
                )
            if at in seen:
                raise InputError(f"{asked} is the same {one} as {seen[at]}")
            seen[at] = where
        return np.array(list(seen), np.int64)

    def among(self, drugs: IntArray) -> Ranking:
        """Return the ranking that lists these drugs only; scores and probabilities stay."""
        candidates = np.zeros(self.drugs.height, bool)
        candidates[drugs] = True
        return replace(self, candidates=candidates)

    def drugs_for(
        self, diseases: IntArray, rules: ListRules, *, many: bool = False
    ) -> tuple[pl.DataFrame, Counts]:
        """Return the best drugs for each of n diseases by score, and counts over all of them.

        If scores are equal, the drug with the lower number comes first. For `many`, see
        `PathRanker.scores_by_mlp`.
        """
        scores, probabilities, treats = self._scores(diseases, many=many)
        known = mask_of(self.features.known, diseases)
        harmful = mask_of(self.contraindicated, diseases)
        candidate = np.broadcast_to(self.candidates, scores.shape)
        shown, counts = rules.shown(candidate, known, harmful)
        order = np.argsort(-scores, axis=1, kind="stable")
        best = [drugs[i[drugs]][: rules.top] for drugs, i in zip(order, shown, strict=True)]
        length = [len(drugs) for drugs in best]
        row, drug = np.repeat(np.arange(len(diseases)), length), np.concatenate(best)
        pairs = _Pairs(
            diseases[row], drug, np.concatenate([np.arange(1, n + 1) for n in length]),
            scores[row, drug], probabilities[row, drug], treats[row, drug], known[row, drug],
            harmful[row, drug],
        )  # fmt: skip
        counts["num_contraindicated"] = int(pairs.contraindicated.sum())
        return self._table(pairs), counts

    def diseases_for(
        self, drug: int, rules: ListRules, *, often: bool = False
    ) -> tuple[pl.DataFrame, Counts]:
        """Return the best diseases for a drug by probability, and counts; see `ForDrugs`."""
        diseases = np.flatnonzero(self.disease_has_facts)
        known, harmful = (
            matrix[[drug]].toarray()[0] > 0
            for matrix in (self.features.known, self.contraindicated)
        )
        every = np.ones(len(diseases), bool)
        shown, counts = rules.shown(every, known[diseases], harmful[diseases])
        best = self.for_drugs.get(self.popularity, often=often)
        found = best.best(drug, diseases[shown], rules.top)
        _check_finite(found.scores)
        length = len(found.diseases)
        pairs = _Pairs(
            found.diseases, np.full(length, drug), np.arange(1, length + 1), found.scores,
            found.probabilities, found.treats, known[found.diseases], harmful[found.diseases],
        )  # fmt: skip
        counts["num_contraindicated"] = int(pairs.contraindicated.sum())
        return self._table(pairs), counts

    def drugs_for_many(
        self, diseases: IntArray, rules: ListRules, workers: int | None = None, num_all: int = 0
    ) -> Iterator[tuple[pl.DataFrame, Counts]]:
        """Yield `drugs_for` of one chunk of diseases after the other, and show the progress.

        The chunks do not depend on the number of workers, so neither do the results.

        Args:
            diseases: shape (n,), numbered within their type.
            rules: which pairs are listed.
            workers: number of threads; None: one per core. Each takes 0.2 GB on PrimeKG.
            num_all: diseases of all shards. Their number decides how scores are computed.
        """
        many = is_worth_torch(max(len(diseases), num_all))
        chunks = [diseases[start : start + CHUNK] for start in range(0, len(diseases), CHUNK)]
        parts = in_order(
            lambda chunk: self.drugs_for(chunk, rules, many=many), chunks, workers or most_threads()
        )
        with (
            log.part("Ranking all drugs for each disease", len(chunks), "chunk") as advance,
            one_thread(True),  # the setting of the whole process, which the workers share
        ):
            for i, found in enumerate(parts, start=1):
                yield found
                advance(f"{min(i * CHUNK, len(diseases)):,} of {len(diseases):,} diseases")

    def explain(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows of a table, extended by the evidence for each pair.

        Each row also gets rank_without_popularity: the drug's rank for the disease among all ranked
        drugs that are not known, if the ranker leaves out the popularity of drugs.
        """
        explainer, words = Explainer(self.graph), self.graph.vocabulary
        number = {index: i for i, index in enumerate(self.graph.nodes["node_index"].to_list())}
        first = {t: node_range_of(self.graph, t)[0] for t in (words.drug_type, words.disease_type)}
        drugs = np.array([number[row["drug_index"]] for row in rows], np.int64)
        diseases = np.array([number[row["disease_index"]] for row in rows], np.int64)
        explained = [dict(row) for row in rows]
        for disease in np.unique(diseases).tolist():
            at = np.flatnonzero(diseases == disease)
            own, asked = drugs[at] - first[words.drug_type], disease - first[words.disease_type]
            effects = kind_effects(self.ranker.paths, self.features, asked, own)
            ranks = self._ranks_without_popularity(asked, own)
            for i, effect, rank in zip(at.tolist(), effects, ranks, strict=True):
                explained[i]["rank_without_popularity"] = rank
                explained[i] |= explainer.drug_for_disease(int(drugs[i]), disease, effect)
                let_others()
        return explained

    def effects(self, drug: int, disease: int) -> dict[str, float]:
        """Return the effects of the kinds of evidence for a drug and a disease (node numbers)."""
        words = self.graph.vocabulary
        own, asked = (
            np.array([node - node_range_of(self.graph, kind)[0]])
            for node, kind in ((drug, words.drug_type), (disease, words.disease_type))
        )
        return kind_effects(self.ranker.paths, self.features, int(asked[0]), own)[0]

    def _ranks_without_popularity(self, disease: int, drugs: IntArray) -> list[int]:
        scores = replace(self, popularity=False)._scores(np.array([disease]))[0][0]
        rivals = self.candidates.copy()
        rivals[self.features.known_drugs(disease)] = False
        return [1 + int((scores[rivals] > scores[drug]).sum()) for drug in drugs.tolist()]

    def _scores(self, diseases: IntArray, *, many: bool = False) -> _Scores:
        """Return scores, and probabilities of recorded and of all treatments, shape (n, drugs).

        Those of the last single diseases are kept: a page and a report ask for them several times.
        Not with `many`: a table must not depend on what was asked before.
        """
        key = (int(diseases[0]), self.popularity) if len(diseases) == 1 and not many else None
        if key is not None and (kept := self._recent.get(key)) is not None:
            return kept
        scores = self.ranker.scores(self.features, diseases, popularity=self.popularity, many=many)
        _check_finite(scores)
        found = (
            scores,
            *self.ranker.probabilities(self.features, diseases, scores, popularity=self.popularity),
        )
        if key is not None:
            while len(self._recent) >= _NUM_RECENT:
                self._recent.pop(next(iter(self._recent)), None)
            self._recent[key] = found
        return found

    def _table(self, pairs: _Pairs) -> pl.DataFrame:
        words = self.graph.vocabulary
        drug, disease = (
            node_range_of(self.graph, name)[0] + numbers
            for name, numbers in (
                (words.drug_type, pairs.drug),
                (words.disease_type, pairs.disease),
            )
        )
        stated = ["; ".join(names) for names in stated_relations(self.graph, drug, disease)]
        score = np.round(pairs.score.astype(np.float64), _DIGITS)
        probability, treats = (
            [float(f"{p:.{_DIGITS}g}") for p in values.tolist()]
            for values in (pairs.probability, pairs.probability_treats)
        )
        return _named(self.diseases, pairs.disease, "disease").with_columns(
            pl.Series("rank", pairs.rank, pl.Int64),
            *_named(self.drugs, pairs.drug, "drug"),
            pl.Series("score", score, pl.Float64),
            pl.Series("probability", probability, pl.Float64),
            pl.Series("probability_treats", treats, pl.Float64),
            pl.Series("known", pairs.known, pl.Boolean),
            pl.Series("contraindicated", pairs.contraindicated, pl.Boolean),
            pl.Series("stated", stated, pl.String),
        )


@dataclass(frozen=True)
class _Pairs:
    """K listed pairs of a disease and a drug; each array has the shape (K,)."""

    disease: IntArray
    drug: IntArray
    rank: IntArray
    score: Floats
    probability: Floats
    probability_treats: Floats
    known: _Mask
    contraindicated: _Mask


def _share_diseases(shared: SharedParts, graph: KnowledgeGraph, features: MetapathFeatures) -> None:
    """Keep the features of a saved model, or take over its part about the same diseases."""
    if graph is shared.graph:
        shared.features = features
    elif shared.features is not None and have_same_diseases(shared.graph, graph):
        features.share_diseases(shared.features)


def numbered(parameter: str, queries: Sequence[str]) -> list[tuple[str, str]]:
    """Return each query with its place, for `Ranking.find_all`."""
    return [(f"{parameter}, entry {i}", query) for i, query in enumerate(queries, start=1)]


def _check_finite(scores: Floats) -> None:
    """Check scores; finite weights may still be huge.

    Raises:
        InputError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise InputError(
            "the drug ranker gives scores that are NaN or infinite; run cdd embed again"
        )


def _named(nodes: pl.DataFrame, rows: IntArray, name: str) -> pl.DataFrame:
    return nodes[rows].select(
        pl.col("node_index").alias(f"{name}_index"),
        pl.col("node_id").alias(f"{name}_id"),
        pl.col("node_name").alias(f"{name}_name"),
    )
