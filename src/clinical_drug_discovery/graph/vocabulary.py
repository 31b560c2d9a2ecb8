"""The words of a graph: its names for drugs, diseases and genes, and for what drugs do to diseases.

Ranking needs these words, and graphs differ in them: "indication" in PrimeKG is "treats" in
Hetionet and "biolink:treats" in Biolink. The tables below list the words of known sources. If a
graph has several of these words, all relations count, and the node type with the most edges wins.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..system.errors import InputError
from ..system.limits.parameters import check_fields
from .node_lookup import did_you_mean

_DRUG_TYPES = (
    "drug", "Drug", "DRG", "Compound", "compound", "biolink:Drug", "biolink:SmallMolecule",
    "biolink:ChemicalEntity", "biolink:MolecularMixture", "SmallMolecule", "ChemicalEntity",
)  # fmt: skip
_DISEASE_TYPES = (
    "disease", "Disease", "DIS", "biolink:Disease", "biolink:DiseaseOrPhenotypicFeature",
    "DiseaseOrPhenotypicFeature",
)  # fmt: skip
_GENE_TYPES = (
    "gene/protein", "gene", "Gene", "GEN", "biolink:Gene", "biolink:Protein", "protein", "Protein",
)  # fmt: skip
#: The relation that stands for a recorded indication comes before palliation and trials. The
#: largest curated source of DRKG comes before its others.
_TREATS = (
    "indication", "INDICATION", "treats", "CtD", "DRUGBANK::treats::Compound:Disease",
    "Hetionet::CtD::Compound:Disease", "GNBR::T::Compound:Disease", "biolink:treats",
    "biolink:treated_by", "biolink:approved_to_treat", "treated_by", "TREATS", "TREATS_CtD",
    "palliation", "palliates", "CpD", "Hetionet::CpD::Compound:Disease", "PALLIATES_CpD",
    "biolink:ameliorates_condition",
)  # fmt: skip
_CONTRAINDICATES = (
    "contraindication", "CONTRAINDICATION", "contraindicates", "biolink:contraindicated_in",
    "biolink:contraindicated_for", "biolink:has_contraindication", "contraindicated_in",
    "CONTRAINDICATES",
)  # fmt: skip
_DISEASE_GENE = (
    "disease_protein", "ASSOCIATED_WITH", "associates", "DaG", "DISEASE_GENE",
    "Hetionet::DaG::Disease:Gene", "biolink:gene_associated_with_condition",
    "biolink:condition_associated_with_gene", "biolink:genetically_associated_with",
    "ASSOCIATES_DaG",
)  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """The words of one graph. A word that the graph lacks has PrimeKG's spelling."""

    drug_type: str  #: node type of the drugs
    disease_type: str  #: node type of the diseases
    gene_type: str  #: node type of the genes by which diseases are compared
    #: relations from drugs to diseases that mean a treatment; the first one means an indication
    treats: tuple[str, ...]
    contraindicates: tuple[str, ...]  #: relations that mean that a drug harms in a disease
    disease_gene_relation: str  #: relation between diseases and genes

    @property
    def indication(self) -> str:
        """The relation that stands for a recorded indication."""
        return self.treats[0]

    def describe(self, present: Container[str] | None = None) -> str:
        """Return what drugs, diseases, treatments and contraindications are in the graph.

        Args:
            present: the node types and relations of the graph, if it may lack some of the words.
        """
        words = {
            "drugs": (self.drug_type,),
            "diseases": (self.disease_type,),
            "treatments": self.treats,
            "contraindications": self.contraindicates,
        }
        texts = []
        for kind, all_ in words.items():
            found = [repr(word) for word in all_ if present is None or word in present]
            texts.append(f"{kind} are {' or '.join(found) or 'not in the graph'}")
        return ", ".join(texts)


#: The words of PrimeKG.
PRIMEKG = Vocabulary(
    "drug", "disease", "gene/protein", ("indication", "palliation"), ("contraindication",),
    "disease_protein",
)  # fmt: skip


@dataclass(frozen=True)
class VocabularyChoice:
    """The words that a user has chosen. None: recognize the word in the graph.

    Attributes:
        drug_type: node type of the drugs.
        disease_type: node type of the diseases.
        gene_type: node type of the genes by which HGT compares diseases.
        treats: relations between drugs and diseases that mean a treatment.
        contraindicates: relations between drugs and diseases that mean a contraindication.
        disease_gene_relation: relation between diseases and genes.
    """

    drug_type: str | None = None
    disease_type: str | None = None
    gene_type: str | None = None
    treats: Sequence[str] | None = None
    contraindicates: Sequence[str] | None = None
    disease_gene_relation: str | None = None

    def check(self) -> None:
        """Check the words as far as this is possible without the graph.

        Raises:
            InputError: a word is not text, or a list is empty.
        """
        check_fields(self)


#: The number of edges of each edge type; a key is a triple (source type, relation, target type).
EdgeCounts = Mapping[Any, int]


def recognize_vocabulary(
    edge_counts: EdgeCounts, choice: VocabularyChoice | None = None
) -> Vocabulary:
    """Return the words of a graph: the chosen words, and for the others the recognized words.

    Args:
        edge_counts: the number of edges of each edge type, in both directions.
        choice: words that the user has chosen; None for no such words.

    Raises:
        InputError: the graph lacks a chosen node type, or a chosen relation between the two types.
    """
    choice = choice or VocabularyChoice()
    choice.check()
    types = sorted({source for source, _, _ in edge_counts})
    drug_types = _types("drug_type", choice.drug_type, _DRUG_TYPES, types)
    disease_types = _types("disease_type", choice.disease_type, _DISEASE_TYPES, types)
    gene_types = _types("gene_type", choice.gene_type, _GENE_TYPES, types)
    drug, disease = _most_connected(edge_counts, drug_types, disease_types, _TREATS)
    _, gene = _most_connected(edge_counts, [disease], gene_types, _DISEASE_GENE)
    between = _relations(edge_counts, drug, disease)
    of_genes = _relations(edge_counts, disease, gene)
    ends = (f"drug_type {drug!r}", f"disease_type {disease!r}")
    treats = _chosen("treats", choice.treats, between, *ends)
    harms = _chosen("contraindicates", choice.contraindicates, between, *ends)
    gene_ends = (ends[1], f"gene_type {gene!r}")
    relation = choice.disease_gene_relation
    by_genes = _chosen("disease_gene_relation", relation and [relation], of_genes, *gene_ends)
    known_treats = tuple(word for word in _TREATS if word in between)
    if both := set(treats or known_treats) & set(harms or ()):
        raise InputError(f"treats and contraindicates must differ (both have {min(both)!r})")
    return Vocabulary(
        drug,
        disease,
        gene,
        treats or known_treats or PRIMEKG.treats,
        harms or tuple(word for word in _CONTRAINDICATES if word in between),
        (*by_genes, *(r for r in _DISEASE_GENE if r in of_genes), PRIMEKG.disease_gene_relation)[0],
    )


def _types(name: str, chosen: str | None, known: Sequence[str], types: list[str]) -> list[str]:
    """Return the chosen node type, or all known node types that the graph has."""
    if chosen is None:
        return [kind for kind in known if kind in types] or [known[0]]
    if chosen not in types:
        raise InputError(
            f"{name} (got {chosen!r}) must be a node type of the graph: {', '.join(types)}"
            f"{did_you_mean(chosen, types)}"
        )
    return [chosen]


def _most_connected(
    edge_counts: EdgeCounts, sources: list[str], targets: list[str], relations: Iterable[str]
) -> tuple[str, str]:
    """Return the source and target type that most edges of the relations join.

    If no such edges exist, the two types with the most edges of all relations are returned; if the
    numbers are equal, the first types.
    """
    wanted = set(relations)
    counts = {(a, b): [0, 0] for a in sources for b in targets}
    for (source, relation, target), count in edge_counts.items():
        if (source, target) in counts:
            counts[source, target][0] += count * (relation in wanted)
            counts[source, target][1] += count
    return max(counts, key=lambda pair: counts[pair])


def _relations(edge_counts: EdgeCounts, source: str, target: str) -> list[str]:
    """Return the relations from one node type to another, sorted."""
    return sorted({r for (a, r, b), n in edge_counts.items() if (a, b) == (source, target) and n})


def _chosen(
    name: str, words: Sequence[str] | None, present: list[str], source: str, target: str
) -> tuple[str, ...]:
    """Return the chosen relations, after checking that each joins the two node types."""
    for word in words or ():
        if word not in present:
            raise InputError(
                f"{name} (got {word!r}) must be a relation between {source} and {target}; these "
                f"are {', '.join(present) or 'not joined'}{did_you_mean(word, present)}"
            )
    return tuple(dict.fromkeys(words or ()))
