"""Typed paths as sentences that a biologist can read.

PrimeKG's relations stand in a table; a relation that is not in it is told by its own name.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinical_drug_discovery.graph.knowledge_graph import EdgeType

#: Relation and the type it starts from -> what the start does to the end. A relation of a type with
#: itself, or read the same both ways, needs no type.
_WORDS: dict[tuple[str, str], str] = {
    ("drug_protein", "drug"): "binds",
    ("drug_protein", "gene/protein"): "is bound by",
    ("drug_class", "drug"): "belongs to the class",
    ("drug_class", "pharmacologic_class"): "includes",
    ("drug_effect", "drug"): "has the side effect",
    ("drug_effect", "effect/phenotype"): "is a side effect of",
    ("drug_drug", ""): "interacts with the drug",
    ("drug_drug_similarity", ""): "resembles",
    ("indication", "drug"): "treats",
    ("indication", "disease"): "is treated by",
    ("palliation", "drug"): "relieves",
    ("palliation", "disease"): "is relieved by",
    ("off-label use", "drug"): "is used off label for",
    ("off-label use", "disease"): "is treated off label with",
    ("contraindication", "drug"): "is contraindicated in",
    ("contraindication", "disease"): "speaks against",
    ("disease_protein", ""): "is linked to",
    ("disease_disease", ""): "is related to",
    ("disease_phenotype_positive", "disease"): "shows",
    ("disease_phenotype_positive", "effect/phenotype"): "is seen in",
    ("disease_phenotype_negative", "disease"): "does not show",
    ("disease_phenotype_negative", "effect/phenotype"): "is not seen in",
    ("disease_anatomy", "disease"): "affects",
    ("disease_anatomy", "anatomy"): "is affected by",
    ("protein_protein", ""): "interacts with",
    ("pathway_protein", "gene/protein"): "takes part in",
    ("pathway_protein", "pathway"): "involves",
    ("bioprocess_protein", "gene/protein"): "takes part in",
    ("bioprocess_protein", "biological_process"): "involves",
    ("molfunc_protein", "gene/protein"): "has the function",
    ("molfunc_protein", "molecular_function"): "is a function of",
    ("cellcomp_protein", "gene/protein"): "is found in",
    ("cellcomp_protein", "cellular_component"): "contains",
    ("anatomy_protein_present", "gene/protein"): "is expressed in",
    ("anatomy_protein_present", "anatomy"): "expresses",
    ("anatomy_protein_absent", "gene/protein"): "is not expressed in",
    ("anatomy_protein_absent", "anatomy"): "does not express",
    ("phenotype_protein", ""): "is linked to",
    ("phenotype_phenotype", ""): "is related to",
    ("pathway_pathway", ""): "is related to",
    ("bioprocess_bioprocess", ""): "is related to",
    ("molfunc_molfunc", ""): "is related to",
    ("cellcomp_cellcomp", ""): "is related to",
    ("anatomy_anatomy", ""): "is related to",
    ("exposure_disease", ""): "is linked to",
    ("exposure_protein", ""): "is linked to",
}


def phrase(kind: EdgeType) -> str:
    """What the start of an edge does to its end, such as "treats"."""
    for start in (kind.src_type, ""):
        if (kind.relation, start) in _WORDS:
            return _WORDS[kind.relation, start]
    return f"is joined by '{kind.relation}' to"


def sentence(names: Sequence[str], kinds: Sequence[EdgeType]) -> str:
    """A path in words: "A binds B, which is linked to C".

    Two steps that meet, as those of two drugs at one protein, are told together: "A binds B, as
    does C, which treats D".

    Args:
        names: of the nodes, one more than steps.
        kinds: of the steps, from each node to the next.
    """
    text, i = names[0], 0
    while i < len(kinds):
        text += ", which" if i else ""
        text += f" {phrase(kinds[i])} {names[i + 1]}"
        i += 1
        if i < len(kinds) and _meet(kinds[i - 1], kinds[i]):
            does = "is" if phrase(kinds[i - 1]).startswith("is ") else "does"
            text += f", as {does} {names[i + 1]}"
            i += 1
    return text


def _meet(one: EdgeType, next_: EdgeType) -> bool:
    """Whether the second step is the first one backwards: both ends do the same to the middle."""
    return next_ == (one.dst_type, one.relation, one.src_type)
