"""A trained model: its embeddings, and answers to questions about drugs and diseases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from ..graph.frames.added_facts import ExtendedGraph
from ..graph.frames.tables import to_polars
from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import NodeIndex, Synonym
from ..lib._model.extended import ExtendedModel, embed_extended, embed_other, extend_graph
from ..lib._model.network import Network
from ..lib._run.ranked_list import ListRules, Ranking, numbered
from ..lib.similar import similar_in
from ..ranking.drug_ranker import DrugRanker
from ..ranking.evidence.explanations import Explainer
from ..ranking.for_drug.shared_parts import SharedParts
from ..system.arguments import plain_arguments
from ..system.errors import InputError, counted
from ..system.log import part
from ..system.processes import alone, cached_property, use_threads
from .column_order import best_first
from .embeddings import Embeddings
from .explanations import explanation_table
from .triples import score_triples


class Model:
    """A trained model on a graph. `load_model` makes one.

    Nodes are given by name or identifier in any spelling, such as "asthma" or "MONDO:0004979".
    Answers are polars DataFrames, as in the files of `cdd`; their method `to_pandas` converts them.

    Attributes:
        graph: the graph of the model.
        new_nodes: the nodes that `add_facts` has added, in the columns of the node table.
        directory: the model directory.

    Example:
        >>> model.graph.num_nodes, model.new_nodes.height
        (820, 0)
    """

    is_data = True  #: for `system.arguments.plain`

    def __init__(
        self,
        graph: KnowledgeGraph,
        network: Network,
        embeddings: Tensor,
        ranker: DrugRanker | None,
        name: str,
        directory: Path,
        new_nodes: pl.DataFrame | None = None,
        synonyms: Sequence[Synonym] = (),
        shared: SharedParts | None = None,
    ) -> None:
        self.graph, self.directory, self._name = graph, directory, name
        self._synonyms, self._shared = synonyms, shared
        self.new_nodes = graph.nodes.clear() if new_nodes is None else new_nodes
        self._network, self._embeddings, self._ranker = network, embeddings, ranker

    def __repr__(self) -> str:
        size = f"{self.graph.num_nodes:,} nodes, {counted(self._embeddings.shape[1], 'dimension')}"
        ranker = "without" if self._ranker is None else "with"
        return f"<Model: {self._name} on {size}, {ranker} a drug ranker>"

    @plain_arguments
    def embeddings(self, node_type: str | None = None) -> Embeddings:
        """Return the embeddings of one node type or of all nodes.

        Args:
            node_type: a node type of the graph; None: all nodes.

        Returns:
            The nodes as a DataFrame, and an array of shape (N, D). The array is a copy.

        Raises:
            InputError: the graph does not have this node type.

        Example:
            >>> nodes, values = model.embeddings("disease")
            >>> nodes.height, values.shape
            (115, (115, 32))
        """
        first, stop = 0, self.graph.num_nodes
        if node_type is not None:
            first, stop = node_range_of(self.graph, node_type)
        return Embeddings(self.graph.nodes[first:stop], self._embeddings[first:stop].numpy().copy())

    @plain_arguments
    @alone()
    def rank(
        self,
        disease: str,
        top: int = 10,
        *,
        drugs: Sequence[str] | None = None,
        include_known: bool = False,
        hide_contraindicated: bool = False,
        popularity: bool = True,
    ) -> pl.DataFrame:
        """Rank the drugs for a disease, as `cdd rank --disease` does.

        Args:
            disease: name or identifier of a disease.
            top: largest number of drugs to list.
            drugs: names or identifiers; only these drugs are ranked.
            include_known: also list the drugs that already treat the disease in the graph.
            hide_contraindicated: leave out drugs that are contraindicated in the graph.
            popularity: count how much is known of a drug; without it, new drugs rank higher.

        Returns:
            The best drug first: rank, drug_name, score (compares drugs of a disease), probability
            (of a recorded indication), probability_treats (of any treatment), index and id of both,
            disease_name, known, contraindicated, and stated (relations, joined by "; ").

        Raises:
            InputError: a drug ranker is missing, or a node is missing, ambiguous or without facts.

        Example:
            >>> model.rank("asthma", top=3).select("rank", "disease_name", "known").rows()
            [(1, 'asthma', False), (2, 'asthma', False), (3, 'asthma', False)]
        """
        use_threads()
        ranking = self._among(drugs, popularity)
        rules = ListRules(top, include_known, hide_contraindicated)
        asked = np.array([ranking.find("disease", disease)])
        return best_first(ranking.drugs_for(asked, rules)[0], "drug")

    @plain_arguments
    @alone()
    def rank_many(
        self,
        diseases: Sequence[str] | None = None,
        top: int = 10,
        *,
        drugs: Sequence[str] | None = None,
        include_known: bool = False,
        hide_contraindicated: bool = False,
        popularity: bool = True,
        workers: int | None = None,
    ) -> pl.DataFrame:
        """Rank the drugs for many diseases, as `cdd rank --diseases` does.

        Args:
            diseases: names or identifiers; None: all diseases with facts.
            top: largest number of drugs to list for each disease.
            drugs: see `rank`.
            include_known: see `rank`.
            hide_contraindicated: see `rank`.
            popularity: see `rank`.
            workers: number of threads (default: one per core); the answer is the same for any.

        Returns:
            The rows of `rank`, one disease after the other. All diseases of PrimeKG take minutes.

        Raises:
            InputError: see `rank`; or two entries of diseases are the same disease.

        Example:
            >>> ranks = model.rank_many(["asthma", "psoriasis"], top=2)
            >>> ranks["disease_name"].to_list()
            ['asthma', 'asthma', 'psoriasis', 'psoriasis']
        """
        use_threads()
        rules = ListRules(top, include_known, hide_contraindicated)
        ranking = self._among(drugs, popularity)
        asked: IntArray = np.flatnonzero(ranking.disease_has_facts)
        if diseases is not None:
            asked = ranking.find_all("disease", numbered("diseases", diseases))
        tables = ranking.drugs_for_many(asked, rules, workers)
        return best_first(pl.concat([table for table, _ in tables]), "drug")

    @plain_arguments
    @alone()
    def rank_diseases(
        self,
        drug: str,
        top: int = 10,
        *,
        include_known: bool = False,
        hide_contraindicated: bool = False,
        popularity: bool = True,
    ) -> pl.DataFrame:
        """Rank the diseases for a drug, as `cdd rank --drug` does.

        The first call ranks all diseases once, on all cores, and keeps sums in the model directory
        (`log_sums.safetensors`). A call takes a fraction of a second then, also with added facts.

        Args:
            drug: name or identifier of a drug.
            top: largest number of diseases to list.
            include_known: also list the diseases that the drug already treats in the graph.
            hide_contraindicated: leave out diseases in which the drug is contraindicated.
            popularity: see `rank`.

        Returns:
            The columns of `rank`, with disease_name first, sorted by probability.

        Raises:
            InputError: see `rank`.

        Example:
            >>> model.rank_diseases("Metformin", top=2)["drug_name"].to_list()
            ['Metformin', 'Metformin']
        """
        use_threads()
        rules = ListRules(top, include_known, hide_contraindicated)
        ranking = self._among(None, popularity)
        found, _ = ranking.diseases_for(ranking.find("drug", drug), rules, often=True)
        return best_first(found, "disease")

    @plain_arguments
    @alone()
    def similar(self, node: str, top: int = 10, *, type: str | None = None) -> pl.DataFrame:
        """List the nodes with the most similar embeddings, as `cdd similar` does.

        Args:
            node: name or identifier of a node.
            top: largest number of nodes to list.
            type: node type to list (default: the type of `node`).

        Returns:
            The most similar node first: rank, cosine, node_name, node_type, node_id, node_source,
            node_index, contraindicated, stated (relations between the two, joined by "; ") and
            no_facts.

        Raises:
            InputError: the node or the type is missing, or the node is ambiguous or without facts.

        Example:
            >>> model.similar("Warfarin", top=2).select("rank", "node_type").rows()
            [(1, 'drug'), (2, 'drug')]
        """
        use_threads()
        at, values = self._index.find(node), self._embeddings.numpy()
        return pl.DataFrame(similar_in(self.graph, values, at, node, type=type, top=top))

    @alone()
    def score(self, triples: Any) -> pl.DataFrame:
        """Score facts with the decoder of the training (DistMult, arXiv:1412.6575).

        A high score, which compares y for one x and relation, means that the model expects a fact.
        For drugs and diseases, `rank` is better.

        Args:
            triples: a list of (x, relation, y), or a DataFrame with these columns. x and y are
                names or identifiers of nodes.

        Returns:
            A row for each triple: x_name, x_type, relation, y_name, y_type, score, and known (true
            if the graph has this fact).

        Raises:
            InputError: the graph lacks a node, or the relation between nodes of these types; the
                message has the number of the row.

        Example:
            >>> facts = [("Warfarin", "drug_protein", "VKORC1")]
            >>> model.score(facts).select("x_type", "y_type", "known").rows()
            [('drug', 'gene/protein', True)]
        """
        use_threads()
        decoder = self._network.decoder
        return score_triples(self.graph, self._index, self._embeddings, decoder, triples)

    @plain_arguments
    @alone()
    def explain(self, drug: str, disease: str) -> pl.DataFrame:
        """List what speaks for a drug in a disease: facts between the two, and the best paths.

        With a ranker, only paths that raise its score are listed. Shared targets may help or harm.

        Args:
            drug: name or identifier of a drug.
            disease: name or identifier of a disease.

        Returns:
            A row for each fact or path: kind (stated, mechanism, similar drug, related disease),
            text, path_score (0 to 1, see `Explainer`; null for a fact), through_target (a step
            joins drug and gene), nodes and relations (lists), effect (score lost without the kind).

        Raises:
            InputError: the drug or the disease does not exist or is ambiguous.

        Example:
            >>> model.explain("Warfarin", "atrial fibrillation")["text"][0]
            'Warfarin treats atrial fibrillation'
        """
        use_threads()
        drugs, diseases = self._ends
        ends = drugs.find(drug, parameter="drug"), diseases.find(disease, parameter="disease")
        effects = self.ranking.effects(*ends) if self._ranker else None
        return explanation_table(self.graph, self._explainer, *ends, effects)

    @alone()
    @part("Adding facts")
    def add_facts(self, facts: Any) -> Model:
        """Return a model that knows more facts and nodes, without a training.

        A new node gets the mean of its neighbors' input vectors, and the layers compute all
        embeddings. The ranker keeps its weights and reads the paths of the larger graph.

        Args:
            facts: a CSV file or a DataFrame, with the columns relation, x_id, x_type, x_name, y_id,
                y_type and y_name, and perhaps x_source and y_source. A node is an old one if its
                type and id (and source) are in the graph.

        Returns:
            A new model with `new_nodes`; this one does not change. Known facts change no answer.

        Raises:
            InputError: a row lacks a field, an old node has another name, an id is another spelling
                of an old id, or the graph lacks a node type or a relation between such nodes.

        Example:
            >>> facts = {
            ...     "relation": ["drug_protein"], "x_id": ["NEW1"], "x_type": ["drug"],
            ...     "x_name": ["Newstatin"], "y_id": ["3156"], "y_type": ["gene/protein"],
            ...     "y_name": ["HMGCR"]}
            >>> larger = model.add_facts(facts)
            >>> larger.new_nodes["node_name"].to_list()
            ['Newstatin']
            >>> larger.explain("Newstatin", "familial hypercholesterolemia")["kind"][0]
            'mechanism'
        """
        use_threads()
        rows = Path(facts) if isinstance(facts, str | Path) else to_polars("facts", facts)
        return self._on(extend_graph(self.graph, rows))

    @alone()
    @part("Embedding what was added")
    def _on(self, extended: ExtendedGraph | None) -> Model:
        """Return the model on its graph with added facts; None: without any."""
        parts = self.graph, self._network, self._embeddings, self._ranker, self.new_nodes
        fitted = self._network, self._ranker
        found = embed_extended(extended, *fitted) if extended else ExtendedModel(*parts)
        every = found.graph, found.network, found.embeddings, found.ranker, self._name
        return Model(*every, self.directory, found.new_nodes, self._synonyms, self._shared)

    @alone()
    @part("Embedding another graph")
    def embed(self, graph: KnowledgeGraph) -> Embeddings:
        """Embed the nodes of another graph with the trained layers.

        Nodes with the type, source and id of a node of this model keep its input vector. Other
        nodes get the mean of their neighbors' input vectors.

        Args:
            graph: a graph whose node types and edge types this model's graph has.

        Returns:
            The nodes of the graph, and their embeddings.

        Raises:
            InputError: the graph has a type of its own, or does not share a node with the model.

        Example:
            >>> nodes, values = model.embed(cdd.sample_graph())
            >>> values.shape
            (820, 32)
        """
        use_threads()
        values = embed_other(self.graph, self._network, graph).numpy()  # checks that it is a graph
        return Embeddings(graph.nodes, values)

    @cached_property
    def ranking(self) -> Ranking:
        """The ranker with the features of the graph, for the reports and the explorer."""
        if self._ranker is None:
            rule = "cdd fit-ranker fits one, if the graph has known treatments"
            raise InputError(f"the model does not have a drug ranker: {rule}")
        return Ranking.on(self.graph, self._ranker, self._shared).with_synonyms(self._synonyms)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.graph)

    @cached_property
    def _index(self) -> NodeIndex:
        return NodeIndex(self.graph.nodes, synonyms=self._synonyms)

    @cached_property
    def _ends(self) -> list[NodeIndex]:  # of drugs, of diseases
        nodes, words = self.graph.nodes, self.graph.vocabulary
        types = words.drug_type, words.disease_type
        return [NodeIndex(nodes, type=one, synonyms=self._synonyms) for one in types]

    def _among(self, drugs: Sequence[str] | None, popularity: bool) -> Ranking:
        ranking = replace(self.ranking, popularity=popularity)
        asked = [] if drugs is None else numbered("drugs", drugs)
        return ranking.among(ranking.find_all("drug", asked)) if asked else ranking
