"""The shape of PrimeKG: its node types and relations, with their numbers of nodes and rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from ...graph.vocabulary import PRIMEKG

if TYPE_CHECKING:
    from ...training.graph_sizes import GraphSizes

DRUG, DISEASE = PRIMEKG.drug_type, PRIMEKG.disease_type
INDICATION_NOISE = 0.1  # fraction of the indications that do not follow the mechanism
GENE, EFFECT = "gene/protein", "effect/phenotype"
PROCESS, FUNCTION, COMPONENT = "biological_process", "molecular_function", "cellular_component"
ANATOMY, PATHWAY, EXPOSURE = "anatomy", "pathway", "exposure"
TREE = "parent-child"  # for relations of an ontology; their facts join all nodes of a type
_LINK, _SHOWN, _EXPRESSED = "interacts with", "phenotype present", "expression present"


class Relation(NamedTuple):
    display: str  # text of the column display_relation
    x_type: str
    y_type: str
    rows: int  # number of rows at scale 1; each fact has two rows
    x_tail: float  # standard deviation of log(popularity) of the x nodes
    y_tail: float  # standard deviation of log(popularity) of the y nodes
    module: float = 0.0  # fraction of the facts in which y is in the main module of x
    listed: float = 0.0  # fraction of the facts in which y is on the list of x's group (see LISTS)


#: Node type: number of nodes at scale 1, source, id format, name formats. Every hundredth node has
#: the last name format, so that some diseases and phenotypes have the same name, as in PrimeKG.
NODE_TYPES = {
    GENE: (27_671, "NCBI", "{}", ("{stem}{n}", "LOC{n}")),
    DRUG: (7_957, "DrugBank", "DB{:05d}", ("{stem}inib {n}", "N,N-dimethyl-{stem}amine {n}")),
    EFFECT: (15_311, "HPO", "{}", ("Abnormal {stem}, {n}", "{stem}algia {n}", "deafness {n}")),
    DISEASE: (17_080, "MONDO", "{}", ("{stem} disease, {n}", '"{stem}itis" {n}', "deafness {n}")),
    PROCESS: (28_642, "GO", "{}", ("regulation of {stem} {n}", "{stem} repair, early {n}")),
    FUNCTION: (11_169, "GO", "{}", ("{stem} binding {n}", "{stem} 3',5'-kinase activity {n}")),
    COMPONENT: (4_176, "GO", "{}", ("{stem} complex {n}", "{stem} membrane, basal {n}")),
    ANATOMY: (14_035, "UBERON", "{}", ("lateral {stem} {n}", "layer of {stem} {n}")),
    PATHWAY: (2_516, "REACTOME", "R-HSA-{}", ("Signaling by {stem} {n}", '"{stem}" loss, {n}')),
    EXPOSURE: (818, "CTD", "D{:06d}", ("{stem} dust {n}", "{stem}ic acid, salts {n}")),
}
STEMS = ("abel", "brax", "cort", "derm", "fibr", "glut", "kerat", "lys", "myel", "nephr", "orex")
#: The relations in the order of sampling: the mechanism uses facts of relations sampled earlier.
RELATIONS = {
    "protein_protein": Relation("ppi", GENE, GENE, 642_150, 1.9, 1.9, 0.7),
    "drug_protein": Relation("target", DRUG, GENE, 51_306, 0.9, 1.3, 0.3, 0.65),
    "pathway_protein": Relation(_LINK, PATHWAY, GENE, 85_292, 0.9, 0.8, 0.96),
    "disease_protein": Relation("associated with", DISEASE, GENE, 160_822, 1.2, 1.0, 0.27, 0.7),
    "disease_phenotype_positive": Relation(_SHOWN, DISEASE, EFFECT, 300_634, 1.5, 1.7, 0.2, 0.6),
    "drug_effect": Relation("side effect", DRUG, EFFECT, 129_568, 1.9, 1.7, 0.0, 0.7),
    "indication": Relation("indication", DRUG, DISEASE, 18_776, 1.8, 2.3),
    "off-label use": Relation("off-label use", DRUG, DISEASE, 5_136, 1.8, 2.3),
    "contraindication": Relation("contraindication", DRUG, DISEASE, 61_350, 1.8, 2.3),
    "drug_drug": Relation("synergistic interaction", DRUG, DRUG, 2_672_628, 1, 1, 0.05, 0.6),
    "anatomy_protein_present": Relation(_EXPRESSED, GENE, ANATOMY, 3_036_406, 0.7, 2.6, 0.1),
    "anatomy_protein_absent": Relation("expression absent", GENE, ANATOMY, 39_774, 1.0, 2.6),
    "bioprocess_protein": Relation(_LINK, GENE, PROCESS, 289_610, 1.0, 1.8, 0.6),
    "molfunc_protein": Relation(_LINK, GENE, FUNCTION, 139_060, 0.7, 2.4, 0.5),
    "cellcomp_protein": Relation(_LINK, GENE, COMPONENT, 166_804, 0.7, 2.4, 0.4),
    "phenotype_protein": Relation("associated with", EFFECT, GENE, 6_660, 1.2, 1.2, 0.7),
    "disease_phenotype_negative": Relation("phenotype absent", DISEASE, EFFECT, 2_386, 2.0, 1.7),
    "exposure_disease": Relation("linked to", EXPOSURE, DISEASE, 4_608, 1.5, 1.5, 0.6),
    "exposure_protein": Relation(_LINK, EXPOSURE, GENE, 2_424, 1.5, 1.3, 0.6),
    "exposure_bioprocess": Relation(_LINK, EXPOSURE, PROCESS, 3_250, 1.5, 1.5, 0.6),
    "exposure_molfunc": Relation(_LINK, EXPOSURE, FUNCTION, 90, 1.5, 1.5),
    "exposure_cellcomp": Relation(_LINK, EXPOSURE, COMPONENT, 20, 1.5, 1.5),
    "bioprocess_bioprocess": Relation(TREE, PROCESS, PROCESS, 105_772, 1.5, 1.5, 0.9),
    "molfunc_molfunc": Relation(TREE, FUNCTION, FUNCTION, 27_148, 1.5, 1.5, 0.9),
    "cellcomp_cellcomp": Relation(TREE, COMPONENT, COMPONENT, 9_690, 1.5, 1.5, 0.9),
    "phenotype_phenotype": Relation(TREE, EFFECT, EFFECT, 37_472, 1.5, 1.5, 0.9),
    "disease_disease": Relation(TREE, DISEASE, DISEASE, 64_388, 1.5, 1.5, 0.9),
    "anatomy_anatomy": Relation(TREE, ANATOMY, ANATOMY, 28_064, 1.5, 1.5, 0.9),
    "pathway_pathway": Relation(TREE, PATHWAY, PATHWAY, 5_070, 1.5, 1.5, 0.9),
    "exposure_exposure": Relation(TREE, EXPOSURE, EXPOSURE, 4_140, 1.5, 1.5, 0.9),
}
#: Relation: number of y nodes on the list that a group of x nodes shares, fraction of the list from
#: the group's main module, and fraction from the group's second module.
LISTS = {
    "drug_protein": (3, 1.0, 0.0),
    "disease_protein": (18, 0.85, 0.15),
    "disease_phenotype_positive": (60, 0.6, 0.2),
    "drug_effect": (90, 0.0, 0.7),
    "drug_drug": (400, 0.2, 0.0),
}
#: Relations that follow the mechanism: fraction of facts that is sampled by popularity instead.
NOISE = {"indication": INDICATION_NOISE, "off-label use": 0.3, "contraindication": 0.2}
#: Relations with a fact for every x node, so that no drug or gene is left without edges.
COVERING = ("drug_protein", "anatomy_protein_present")


def sizes_like_primekg(num_nodes: int, num_edges: int) -> tuple[GraphSizes, int]:
    """Return the sizes of a graph that does not exist, with PrimeKG's proportions of types.

    Args:
        num_nodes: number of nodes.
        num_edges: number of directed edges, two for each fact; an odd number is rounded down.

    Returns:
        The sizes; and the expected number of pairs of diseases that `most_sharing_pairs` counts.
    """
    from ...graph.knowledge_graph import EdgeType  # not at the top: it imports torch
    from ...training.graph_sizes import GraphSizes

    counts = _divided(num_nodes, (row[0] for row in NODE_TYPES.values()))
    facts = _divided(num_edges // 2, (relation.rows for relation in RELATIONS.values()))
    edges: dict[EdgeType, int] = {}
    for (name, relation), number in zip(RELATIONS.items(), facts, strict=True):
        kind = EdgeType(relation.x_type, name, relation.y_type)
        for one in (kind, kind.reverse):  # the same type twice, if both ends have one node type
            edges[one] = edges.get(one, 0) + number
    nodes = dict(zip(NODE_TYPES, counts, strict=True))
    # The popularity of genes is log-normal with deviation s, so its mean square is exp(s^2) times
    # the square of its mean.
    name = PRIMEKG.disease_gene_relation
    mean = edges[EdgeType(DISEASE, name, GENE)] / max(nodes[GENE], 1)
    square = mean + mean**2 * math.exp(RELATIONS[name].y_tail ** 2)
    return GraphSizes(nodes, edges, DRUG, DISEASE), round(nodes[GENE] * square)


def _divided(total: int, shares: Iterable[int]) -> list[int]:
    """Divide a number in proportion to shares, such that the sum is exact."""
    ends = [0, *accumulate(shares)]
    return [total * stop // ends[-1] - total * start // ends[-1] for start, stop in pairwise(ends)]
