"""Everything that ranks drugs for the diseases of one training graph, side by side.

A ranker is a function from n diseases (node numbers) to scores, shape (n, number of drugs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from clinical_drug_discovery.baselines import BASELINES
from clinical_drug_discovery.boosting import fit_boosted
from clinical_drug_discovery.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray, KnowledgeGraph, span_of
from clinical_drug_discovery.metrics import Scores
from clinical_drug_discovery.network_scores import NetworkScores
from clinical_drug_discovery.pairs import DISEASE, DRUG, INDICATION
from clinical_drug_discovery.paths import PathEvidence

Ranker = Callable[[IntArray], Scores]


def drug_rankers(
    graph: KnowledgeGraph, network: NetworkScores, *, seed: int
) -> Iterator[tuple[str, Ranker]]:
    """Make the rankers, one when it is asked for; those over typed paths share what is dear.

    Args:
        graph: for training, on the CPU.
        network: trained on it.
        seed: of the fits.

    Yields:
        Name and ranker: `network`, by the relation "indication"; `network, treatment decoder`, that
        of `treatment_decoder` on the same embeddings; `network, both decoders`, the two together;
        `ranker`, what `cdd embed` keeps for `cdd rank`; `paths, listwise` and `paths, boosted`,
        networks and trees over the evidence of typed paths alone; those of `baselines.BASELINES`.

    Raises:
        InputError: the graph has no drugs, no diseases, or knows of no drug that helps.
    """
    drugs, first_disease = span_of(graph, DRUG), span_of(graph, DISEASE)[0]
    indication = graph.relations.index(INDICATION)
    yield "network", lambda diseases: network(diseases, indication, drugs)

    ranker = fit_drug_ranker(graph, network=network, seed=seed)
    decoder = ranker.embedding
    assert decoder is not None

    evidence = PathEvidence(graph)  # not before: the fit has its own
    for name, scores_of in (
        ("network, treatment decoder", lambda _, diseases: decoder.log_chances(diseases)),
        ("network, both decoders", ranker.network_scores),
    ):
        yield name, partial(of_nodes, scores_of, evidence, first_disease)

    for name, scores_of in (("ranker", ranker.scores), ("paths, listwise", ranker.paths.scores)):
        yield name, partial(of_nodes, scores_of, evidence, first_disease)
    boosted = fit_boosted(evidence, seed=seed)
    yield "paths, boosted", partial(of_nodes, boosted.scores, evidence, first_disease)

    for name, baseline in BASELINES.items():
        yield name, partial(baseline, graph)


def of_nodes(
    scores_of: Callable[[PathEvidence, IntArray], Floats],
    evidence: PathEvidence,
    first_disease: int,
    diseases: IntArray,
) -> Floats:
    """Typed paths number diseases within their type."""
    return scores_of(evidence, diseases - first_disease)
