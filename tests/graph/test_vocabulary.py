"""The words of a graph: recognized, chosen, or refused with the words that exist."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from graphs import Fact, graph_of, planted_facts

from clinical_drug_discovery.graph.knowledge_graph import with_vocabulary
from clinical_drug_discovery.graph.vocabulary import (
    PRIMEKG,
    EdgeCounts,
    VocabularyChoice,
    recognize_vocabulary,
)
from clinical_drug_discovery.ranking.drug_ranker import fit_drug_ranker
from clinical_drug_discovery.ranking.metapath_features import MetapathFeatures
from clinical_drug_discovery.ranking.treatments import treatments
from clinical_drug_discovery.system.errors import InputError
from clinical_drug_discovery.system.machine import one_thread


def counts(*triples: tuple[str, str, str, int]) -> dict[tuple[str, str, str], int]:
    """The numbers of edges of some edge types, in both directions."""
    found: dict[tuple[str, str, str], int] = {}
    for a, r, b, n in triples:
        found[a, r, b] = found[b, r, a] = n
    return found


HETIONET = counts(
    ("Compound", "CtD", "Disease", 755),
    ("Compound", "CpD", "Disease", 390),
    ("Compound", "CbG", "Gene", 11_571),
    ("Disease", "DaG", "Gene", 12_623),
    ("Disease", "DuG", "Gene", 7_731),
)
BIOLINK = counts(
    ("biolink:SmallMolecule", "biolink:treats", "biolink:Disease", 900),
    ("biolink:Drug", "biolink:treats", "biolink:Disease", 100),
    ("biolink:SmallMolecule", "biolink:contraindicated_in", "biolink:Disease", 50),
    ("biolink:Gene", "biolink:gene_associated_with_condition", "biolink:Disease", 10),
)
OPTIMUSKG = counts(
    ("DRG", "INDICATION", "DIS", 10),
    ("DRG", "CONTRAINDICATION", "DIS", 10),
    ("DIS", "ASSOCIATED_WITH", "GEN", 10),
)
HETIONET_JSON = counts(
    ("Compound", "treats", "Disease", 755),
    ("Compound", "palliates", "Disease", 390),
    ("Compound", "resembles", "Compound", 6_486),
    ("Disease", "associates", "Gene", 12_623),
    ("Disease", "downregulates", "Gene", 7_623),
)
HETIONET_NEO4J = counts(
    ("Compound", "TREATS_CtD", "Disease", 755),
    ("Compound", "PALLIATES_CpD", "Disease", 390),
    ("Disease", "ASSOCIATES_DaG", "Gene", 12_623),
    ("Disease", "UPREGULATES_DuG", "Gene", 7_731),
)
DRKG = counts(
    ("Compound", "GNBR::T::Compound:Disease", "Disease", 54_020),
    ("Compound", "GNBR::Sa::Compound:Disease", "Disease", 16_923),
    ("Compound", "DRUGBANK::treats::Compound:Disease", "Disease", 4_968),
    ("Compound", "Hetionet::CtD::Compound:Disease", "Disease", 755),
    ("Compound", "Hetionet::CpD::Compound:Disease", "Disease", 390),
    ("Gene", "GNBR::L::Gene:Disease", "Disease", 48_384),
    ("Disease", "Hetionet::DaG::Disease:Gene", "Gene", 12_623),
)
#: Predicates of older Biolink versions, without the prefix where KGX leaves it out.
OLDER_BIOLINK = counts(
    ("SmallMolecule", "biolink:treated_by", "Disease", 9),
    ("SmallMolecule", "biolink:has_contraindication", "Disease", 3),
    ("Protein", "biolink:genetically_associated_with", "Disease", 10),
)


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        (
            HETIONET_JSON,
            ("Compound", "Disease", "Gene", ("treats", "palliates"), (), "associates"),
        ),
        (
            HETIONET_NEO4J,
            (
                "Compound", "Disease", "Gene", ("TREATS_CtD", "PALLIATES_CpD"), (),
                "ASSOCIATES_DaG",
            ),
        ),
        (
            DRKG,
            (
                "Compound", "Disease", "Gene",
                (
                    "DRUGBANK::treats::Compound:Disease", "Hetionet::CtD::Compound:Disease",
                    "GNBR::T::Compound:Disease", "Hetionet::CpD::Compound:Disease",
                ),
                (), "Hetionet::DaG::Disease:Gene",
            ),
        ),
        (
            OLDER_BIOLINK,
            (
                "SmallMolecule", "Disease", "Protein", ("biolink:treated_by",),
                ("biolink:has_contraindication",), "biolink:genetically_associated_with",
            ),
        ),
        (HETIONET, ("Compound", "Disease", "Gene", ("CtD", "CpD"), (), "DaG")),
        (
            OPTIMUSKG,
            ("DRG", "DIS", "GEN", ("INDICATION",), ("CONTRAINDICATION",), "ASSOCIATED_WITH"),
        ),
        (
            BIOLINK,
            (
                "biolink:SmallMolecule", "biolink:Disease", "biolink:Gene", ("biolink:treats",),
                ("biolink:contraindicated_in",), "biolink:gene_associated_with_condition",
            ),
        ),
    ],
)  # fmt: skip
def test_words_of_other_sources_are_recognized(
    edges: EdgeCounts, wanted: tuple[object, ...]
) -> None:
    found = recognize_vocabulary(edges)
    assert (found.drug_type, found.disease_type, found.gene_type) == wanted[:3]
    assert (found.treats, found.contraindicates, found.disease_gene_relation) == wanted[3:]


def test_unknown_words_leave_the_words_of_primekg() -> None:
    found = recognize_vocabulary(counts(("person", "knows", "person", 3)))
    assert found == replace(PRIMEKG, contraindicates=())
    assert found.describe({"person", "knows"}).count("not in the graph") == 4
    assert found.describe({"drug", "indication"}) == (
        "drugs are 'drug', diseases are not in the graph, treatments are 'indication', "
        "contraindications are not in the graph"
    )


def test_chosen_words_win() -> None:
    edges = HETIONET | counts(("Molecule", "cures", "Disease", 1))
    found = recognize_vocabulary(edges, VocabularyChoice(drug_type="Molecule", treats=["cures"]))
    assert (found.drug_type, found.treats, found.indication) == ("Molecule", ("cures",), "cures")
    assert found.disease_type == "Disease"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (VocabularyChoice(drug_type="compound"), "drug_type (got 'compound') must be a node type"),
        (VocabularyChoice(drug_type="compound"), "did you mean 'Compound'?"),
        (VocabularyChoice(treats=["treats"]), "these are CpD, CtD"),
        (VocabularyChoice(treats=["CbG"]), "drug_type 'Compound' and disease_type 'Disease'"),
        (VocabularyChoice(contraindicates=["CtD"], treats=["CtD"]), "must differ (both have 'CtD'"),
        (VocabularyChoice(disease_gene_relation="CbG"), "these are DaG, DuG"),
        (VocabularyChoice(treats="CtD"), "must be a list of at least one name"),
        (VocabularyChoice(treats=[]), "must be a list of at least one name"),
        (VocabularyChoice(gene_type=3), "gene_type (got 3) must be text"),  # type: ignore[arg-type]  # refused
    ],
)
def test_unknown_words_are_refused(choice: VocabularyChoice, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        recognize_vocabulary(HETIONET, choice)


def test_the_ranker_does_not_depend_on_the_words() -> None:
    """The same facts with the words of Hetionet give the same scores.

    The new words sort like the old ones, so that all sums have the same order.
    """
    words = {"drug": "Eompound", "disease": "Disease", "gene/protein": "Gene"}
    relations = {"indication": "i treats", "drug_drug": "d", "drug_protein": "dp"}

    def renamed(fact: Fact) -> Fact:
        x, relation, y = fact
        x, y = (one._replace(type=words[one.type]) for one in (x, y))
        return x, relations.get(relation, relation), y

    facts = planted_facts(num_drugs=30, num_diseases=16, num_genes=4)
    plain = graph_of(facts)
    other = with_vocabulary(
        graph_of(map(renamed, facts)), VocabularyChoice(drug_type="Eompound", treats=["i treats"])
    )
    assert treatments(other).nnz == treatments(plain).nnz > 0
    scores = []
    for graph in (plain, other):
        features = MetapathFeatures(graph)
        with one_thread(True):
            ranker = fit_drug_ranker(graph)
            scores.append(ranker.scores(features, np.arange(features.num_diseases)))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
