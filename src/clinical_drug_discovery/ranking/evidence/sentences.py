"""Sentences about paths: a phrase for each relation of PrimeKG; others appear by name."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.knowledge_graph import EdgeType
from ...graph.vocabulary import Vocabulary

#: relation -> type of the start node -> phrase between the start node and the end node. The empty
#: type "" fits every start node: the phrase reads the same in both directions.
PHRASES: dict[str, dict[str, str]] = {
    "drug_protein": {"drug": "binds", "gene/protein": "is bound by"},
    "drug_class": {"drug": "belongs to the class", "pharmacologic_class": "includes"},
    "drug_effect": {"drug": "has the side effect", "effect/phenotype": "is a side effect of"},
    "drug_drug": {"": "interacts with the drug"},
    "drug_drug_similarity": {"": "resembles"},
    "indication": {"drug": "treats", "disease": "is treated by"},
    "palliation": {"drug": "relieves", "disease": "is relieved by"},
    "off-label use": {"drug": "is used off label for", "disease": "is treated off label with"},
    "contraindication": {"drug": "is contraindicated in", "disease": "speaks against"},
    "disease_protein": {"": "is linked to"},
    "disease_disease": {"": "is related to"},
    "disease_phenotype_positive": {"disease": "shows", "effect/phenotype": "is seen in"},
    "disease_phenotype_negative": {
        "disease": "does not show",
        "effect/phenotype": "is not seen in",
    },
    "disease_anatomy": {"disease": "affects", "anatomy": "is affected by"},
    "protein_protein": {"": "interacts with"},
    "pathway_protein": {"gene/protein": "takes part in", "pathway": "involves"},
    "bioprocess_protein": {"gene/protein": "takes part in", "biological_process": "involves"},
    "molfunc_protein": {
        "gene/protein": "has the function",
        "molecular_function": "is a function of",
    },
    "cellcomp_protein": {"gene/protein": "is found in", "cellular_component": "contains"},
    "anatomy_protein_present": {"gene/protein": "is expressed in", "anatomy": "expresses"},
    "anatomy_protein_absent": {
        "gene/protein": "is not expressed in",
        "anatomy": "does not express",
    },
    "phenotype_protein": {"": "is linked to"},
    "phenotype_phenotype": {"": "is related to"},
    "pathway_pathway": {"": "is related to"},
    "bioprocess_bioprocess": {"": "is related to"},
    "molfunc_molfunc": {"": "is related to"},
    "cellcomp_cellcomp": {"": "is related to"},
    "anatomy_anatomy": {"": "is related to"},
    "exposure_disease": {"": "is linked to"},
    "exposure_protein": {"": "is linked to"},
}

#: Relations of Hetionet and DRKG that have the phrases of a relation of PrimeKG.
SAME_PHRASES = {
    "binds": "drug_protein",
    "CbG": "drug_protein",
    "Hetionet::CbG::Compound:Gene": "drug_protein",
    "DRUGBANK::target::Compound:Gene": "drug_protein",
    "palliates": "palliation",
    "CpD": "palliation",
    "Hetionet::CpD::Compound:Disease": "palliation",
}


def phrase(kind: EdgeType) -> str:
    """Return the phrase between the start and the end of an edge, such as "treats"."""
    phrases = PHRASES.get(kind.relation, {})
    default = f"is joined by '{kind.relation}' to"
    return phrases.get(kind.src_type) or phrases.get("") or default


def spoken(words: Vocabulary, kind: EdgeType) -> EdgeType:
    """Return an edge type of a graph with PrimeKG's words, for which there are phrases.

    Args:
        words: vocabulary of the graph.
        kind: edge type of the graph.
    """
    types = {
        words.drug_type: "drug",
        words.disease_type: "disease",
        words.gene_type: "gene/protein",
    }
    relations = {
        **dict.fromkeys(words.contraindicates, "contraindication"),
        words.indication: "indication",
        words.disease_gene_relation: "disease_protein",
        **SAME_PHRASES,
    }
    relation = kind.relation
    if relation not in PHRASES:
        relation = relations.get(relation, relation)
    src_type, dst_type = (types.get(name, name) for name in (kind.src_type, kind.dst_type))
    return EdgeType(src_type, relation, dst_type)


def sentence(names: Sequence[str], metapath: Sequence[EdgeType]) -> str:
    """Return a sentence for a path of named nodes: "A binds B, which is linked to C".

    If a step is followed by the reverse edge type, the two form one phrase: "A binds B, as does C,
    which treats D".
    """
    text, i = names[0], 0
    while i < len(metapath):
        text += ", which" if i else ""
        text += f" {phrase(metapath[i])} {names[i + 1]}"
        i += 1
        if i < len(metapath) and metapath[i] == metapath[i - 1].reverse:
            does = "is" if phrase(metapath[i - 1]).startswith("is ") else "does"
            text += f", as {does} {names[i + 1]}"
            i += 1
    return text
