"""A node is found by identifier or name, and a failed search says what to choose from."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
import pytest
from graphs import LOOK_UP_NODES as NODES

from clinical_drug_discovery.graph.identifiers import (
    group_members,
    normalize_name,
    parse_identifier,
)
from clinical_drug_discovery.graph.node_lookup import NodeIndex, Synonym, did_you_mean, find_node
from clinical_drug_discovery.system.errors import InputError

#: (source, id, type, name) as PrimeKG, Hetionet, Open Targets and Biolink spell them.
PRIMEKG = [
    ("DrugBank", "DB01235", "drug", "Levodopa"),
    ("NCBI", "1813", "gene/protein", "DRD2"),
    ("NCBI", "5180", "gene/protein", "PCSK7"),
    ("MONDO", "5180", "disease", "Parkinson disease"),
    ("MONDO", "1813", "disease", "Crohn's disease"),
    ("MONDO_grouped", "13924_12592_14672", "disease", "osteogenesis imperfecta"),
    ("HPO", "1250", "effect/phenotype", "Seizure"),
    ("GO", "8150", "biological_process", "biological_process"),
    ("REACTOME", "R-HSA-109582", "pathway", "Hemostasis"),
    ("UBERON", "955", "anatomy", "brain"),
    ("CTD", "D013749", "exposure", "Tetrachlorodibenzodioxin"),
]
HETIONET = [
    ("Hetionet", "Gene::1813", "Gene", "DRD2"),
    ("Hetionet", "Compound::DB01235", "Compound", "Levodopa"),
    ("Hetionet", "Disease::DOID:14330", "Disease", "Parkinson's disease"),
]
STRIPPED_HETIONET = [
    ("", "1813", "Gene", "DRD2"),
    ("", "DB01235", "Compound", "Levodopa"),
    ("", "DOID:14330", "Disease", "Parkinson's disease"),
]
OPEN_TARGETS = [
    ("MONDO", "MONDO_0005180", "disease", "Parkinson disease"),
    ("", "EFO_0005180", "disease", "another disease"),
    ("", "ENSG00000149295", "gene", "DRD2"),
    ("", "HP_0001250", "phenotype", "Seizure"),
]
BIOLINK = [
    ("MONDO", "MONDO:0005180", "biolink:Disease", "Parkinson disease"),
    ("NCBIGene", "NCBIGene:1813", "biolink:Gene", "DRD2"),
    ("HP", "HP:0001250", "biolink:PhenotypicFeature", "Seizure"),
    ("", "UBERON:0000955", "biolink:GrossAnatomicalStructure", "brain"),
]


def table(nodes: list[tuple[str, str, str, str]]) -> pl.DataFrame:
    schema = ["node_source", "node_id", "node_type", "node_name"]
    return pl.DataFrame(nodes, schema=schema, orient="row")


@pytest.mark.parametrize(
    ("nodes", "name", "queries"),
    [
        (
            PRIMEKG,
            "Levodopa",
            "DB01235 db01235 DRUGBANK:DB01235 drugbank:db01235 Compound::DB01235",
        ),
        (
            PRIMEKG,
            "DRD2",
            "NCBI:1813 NCBIGene:1813 ENTREZ:1813 ncbigene:1813 Gene::1813 GeneID:1813",
        ),
        (PRIMEKG, "Parkinson disease", "MONDO:5180 MONDO:0005180 mondo:5180 MONDO_0005180"),
        (PRIMEKG, "Parkinson disease", "disease:5180 Disease::MONDO:0005180"),
        (PRIMEKG, "osteogenesis imperfecta", "MONDO:0013924 mondo:12592 MONDO_0014672 14672"),
        (PRIMEKG, "osteogenesis imperfecta", "0013924 MONDO_grouped:12592 13924_12592_14672"),
        (PRIMEKG, "osteogenesis imperfecta", "MONDO_grouped:13924_12592_14672"),
        (PRIMEKG, "Seizure", "1250 0001250 HP:0001250 HPO:1250 hp_0001250"),
        (PRIMEKG, "Hemostasis", "REACT:R-HSA-109582 r-hsa-109582 Reactome:R-HSA-109582"),
        (PRIMEKG, "brain", "UBERON:0000955 uberon:955 Anatomy::UBERON:0000955"),
        (PRIMEKG, "biological_process", "GO:0008150 GO_0008150 go:8150"),
        (PRIMEKG, "Tetrachlorodibenzodioxin", "CTD:D013749 MESH:D013749 d013749 mesh:d013749"),
        (HETIONET, "DRD2", "1813 Gene::1813 gene::1813 NCBIGene:1813 ENTREZ:1813"),
        (HETIONET, "Levodopa", "Compound::DB01235 db01235 DRUGBANK:DB01235"),
        (HETIONET, "Parkinson's disease", "Disease::DOID:14330 DOID:14330 doid_14330 14330"),
        (STRIPPED_HETIONET, "DRD2", "1813 Gene::1813 NCBIGene:1813"),
        (STRIPPED_HETIONET, "Levodopa", "Compound::DB01235 db01235 DRUGBANK:DB01235"),
        (STRIPPED_HETIONET, "Parkinson's disease", "Disease::DOID:14330 DOID:14330 14330"),
        (OPEN_TARGETS, "Parkinson disease", "MONDO:5180 MONDO:0005180 MONDO_0005180 mondo_5180"),
        (OPEN_TARGETS, "another disease", "EFO:0005180 EFO_0005180 efo:5180"),
        (OPEN_TARGETS, "DRD2", "ENSEMBL:ENSG00000149295 ensg00000149295"),
        (OPEN_TARGETS, "Seizure", "HP:0001250 HPO:1250 1250"),
        (BIOLINK, "Parkinson disease", "MONDO:5180 mondo_0005180 5180 0005180"),
        (BIOLINK, "DRD2", "NCBI:1813 ENTREZ:1813 NCBIGene:1813 1813"),
        (BIOLINK, "Seizure", "HP:1250 HPO:0001250 hp:0001250"),
        (BIOLINK, "brain", "UBERON:955 UBERON_0000955 955"),
    ],
)
def test_every_spelling_of_an_identifier_is_found(
    nodes: list[tuple[str, str, str, str]], name: str, queries: str
) -> None:
    graph = table(nodes)
    assert {query: graph["node_name"][find_node(graph, query)] for query in queries.split()} == (
        dict.fromkeys(queries.split(), name)
    )


@pytest.mark.parametrize(
    ("nodes", "queries"),
    [
        (
            PRIMEKG,
            "HP:5180 GO:1813 DOID:5180 MONDO:1250 MONDO:DB01235 FOO:1250 DB1235 HP:MONDO:5180",
        ),
        (PRIMEKG, "Disease::1250 MONDO:13924_12592 UBERON:109582 R-MMU-109582 MONDO: MONDO:0955"),
        (HETIONET, "MONDO:14330 DOID:1813 Disease::1813 Compound::1813 DRUGBANK:1235"),
        (STRIPPED_HETIONET, "MONDO:14330 DOID:1813 Disease::1813 HGNC:1813"),
        (OPEN_TARGETS, "NCBIGene:149295 HP:0005180 Orphanet:5180"),
        (BIOLINK, "EFO:0005180 ENSEMBL:1813 HP:955"),
    ],
)
def test_another_identifier_is_not_found(
    nodes: list[tuple[str, str, str, str]], queries: str
) -> None:
    for query in queries.split():
        with pytest.raises(InputError, match="must be the name or id of a node in the graph"):
            find_node(table(nodes), query)


@pytest.mark.parametrize("nodes", [PRIMEKG, HETIONET, STRIPPED_HETIONET, OPEN_TARGETS, BIOLINK])
def test_each_node_is_found_by_its_source_and_id_and_by_its_name(
    nodes: list[tuple[str, str, str, str]],
) -> None:
    graph = table(nodes)
    for row, (source, id_, _, name) in enumerate(nodes):
        exact = f"{source}:{id_}" if source else id_
        assert find_node(graph, exact) == row
        assert find_node(graph, exact.lower()) == row
        assert find_node(graph, f" {name.upper()} ") == row


def test_a_number_that_fits_several_nodes_is_ambiguous_unless_the_type_tells() -> None:
    graph = table(PRIMEKG)
    for query in ("5180", "0005180", "1813"):
        with pytest.raises(InputError, match=r"ambiguous; choose one of NCBI:.*, MONDO:"):
            find_node(graph, query)
    assert find_node(graph, "0005180", type="disease") == 3
    assert find_node(graph, "1813", type="gene/protein") == 1
    # The id of one gene is a member of a group of diseases.
    other = table([*PRIMEKG, ("NCBI", "12592", "gene/protein", "X")])
    with pytest.raises(InputError, match=r"choose one of MONDO_grouped:13924_.*, NCBI:12592"):
        find_node(other, "12592")


def test_an_exact_id_or_name_wins() -> None:
    graph = table(
        [("A", "x1", "gene", "first"), ("A", "X1", "gene", "First"), ("B", "y", "gene", "FIRST")]
    )
    assert [find_node(graph, query) for query in ("x1", "X1", "first", "First", "FIRST")] == [
        0, 1, 0, 1, 2,
    ]  # fmt: skip
    for query in ("a:x1", "fiRST"):
        with pytest.raises(InputError, match=r"ambiguous; choose one of A:x1 .*, A:X1"):
            find_node(graph, query)


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("DB1", 0),
        ("aspirin", 0),
        (" ASPIRIN ", 0),
        ("MONDO:1234", 3),
        ("NCBI:1234", 2),
        ("cold", 5),
    ],
)
def test_finds_by_name_id_or_source_and_id(query: str, row: int) -> None:
    assert find_node(NODES, query) == row


def test_type_narrows_the_search() -> None:
    assert find_node(NODES, "asthma", type="disease") == 3


def test_apostrophes_hyphens_and_unicode_forms_of_names_do_not_matter() -> None:
    graph = table(PRIMEKG)
    assert find_node(graph, "crohn\u2019s   DISEASE") == 4
    other = table([("S", "1", "disease", "Me\u0301nie\u0300re\u2013like  syndrome")])
    assert find_node(other, "m\u00e9ni\u00e8re-like syndrome") == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("1234", r"ambiguous; choose one of NCBI:1234 \(gene/protein 'ASP'\), MONDO:0+1234"),
        ("asthma", r"ambiguous.*MONDO:0+1234 .*DrugBank:7"),
        ("COLD", r"ambiguous.*MONDO:0+5 .*MONDO:0+6"),
        ("Atorvastain", r"did you mean DrugBank:DB2 \(drug 'Atorvastatin'\)"),
        ("statin", r"names that contain it: DrugBank:DB2.*DrugBank:DB9"),
        ("", r"''"),
        ("zzzzzz", r"'zzzzzz'.* must be the name or id of a node in the graph$"),
    ],
)
def test_what_is_not_found_or_ambiguous_is_explained(query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_node(NODES, query)


@pytest.mark.parametrize(
    "query",
    ["Parkinsons disease", "parkinsonn", "Pakinson", "Parkinson Diseas", "disease parkinson"],
)
def test_a_misspelt_name_is_suggested_among_short_names(query: str) -> None:
    genes = [
        ("NCBI", str(i), "gene/protein", name) for i, name in enumerate(("PARK", "KINS", "PA"))
    ]
    with pytest.raises(
        InputError, match=r"(mean|it:) MONDO:0005180 \(disease 'Parkinson disease'\)"
    ):
        find_node(table([*genes, *PRIMEKG]), query)


def test_each_choice_is_an_identifier_that_finds_the_node() -> None:
    nodes = [*BIOLINK[:2], *OPEN_TARGETS[1:3], *HETIONET[:1], *STRIPPED_HETIONET[:1]]
    nodes += [("X", "1", "drug", ""), ("X", "1", "disease", "")]  # allowed if nodes are numbered
    graph = table([(source, id_, type, "same") for source, id_, type, _ in nodes])
    with pytest.raises(InputError, match="ambiguous") as raised:
        find_node(graph, "same")
    choices = str(raised.value).split("choose one of ")[1].split(", ")
    assert choices[0] == "MONDO:0005180 (biolink:Disease 'same')"
    assert [find_node(graph, choice.split(" ")[0]) for choice in choices] == list(range(8))


def test_long_choices_are_cut() -> None:
    many = pl.concat(
        [NODES.filter(node_id="5").with_columns(node_id=pl.lit(str(i))) for i in range(11)]
    )
    with pytest.raises(
        InputError, match=r"choose one of MONDO:0000000 .*, MONDO:0000007 .* and 3 more$"
    ):
        find_node(many, "Cold")


def test_a_very_long_name_is_not_found() -> None:
    with pytest.raises(InputError, match=r"'xxx.* must be the name or id of a node") as raised:
        find_node(NODES, "x" * 1_000_000)
    assert len(str(raised.value)) < 1000


def test_errors_name_the_parameter_and_the_type() -> None:
    with pytest.raises(
        InputError, match=r"^disease \(got 'x'\) must be .* of a node of type disease "
    ):
        find_node(NODES, "x", type="disease", parameter="disease")
    with pytest.raises(InputError, match=r"^line 2 \(got 'COLD'\) is ambiguous"):
        find_node(NODES, "COLD", type="disease", parameter="line 2")
    with pytest.raises(InputError, match=r"^node \(got 1234\) must be text"):
        find_node(NODES, 1234)  # type: ignore[arg-type]  # a number is refused


def test_names_that_share_only_a_common_word_are_not_suggested() -> None:
    diseases = [
        ("MONDO", str(i), "disease", name)
        for i, name in enumerate(
            ("Parkinson disease", "Addison disease", "Paget disease", "Huntington disease")
        )
    ]
    with pytest.raises(InputError, match=r"mean MONDO:0000000 \(disease 'Parkinson disease'\)\?$"):
        find_node(table(diseases), "Parkinsons diseaze")


SYNONYMS = [
    Synonym("Shaking palsy", "MONDO", "disease", "5180"),
    Synonym("Inderal", "DrugBank", "drug", "DB01235"),
    Synonym("inderal", "MONDO", "disease", "1813"),
    Synonym("BRAIN", "MONDO", "disease", "5180"),
    Synonym("elsewhere", "MONDO", "disease", "999"),
    Synonym("Shaking  palsy", "MONDO", "disease", "5180"),
]


def test_synonyms_come_after_real_names() -> None:
    graph = table(PRIMEKG)
    assert find_node(graph, "shaking PALSY", synonyms=SYNONYMS) == 3
    assert find_node(graph, "Brain", synonyms=SYNONYMS) == 9
    assert find_node(graph, "Inderal", type="drug", synonyms=SYNONYMS) == 0
    with pytest.raises(
        InputError, match=r"ambiguous; choose one of DrugBank:DB01235.*MONDO:0001813"
    ):
        find_node(graph, "Inderal", synonyms=SYNONYMS)
    with pytest.raises(InputError, match=r"must be the name or id"):
        find_node(graph, "elsewhere", synonyms=SYNONYMS)
    with pytest.raises(
        InputError,
        match=r"did you mean MONDO:0005180 \(disease 'Parkinson disease', synonym 'shaking",
    ):
        find_node(graph, "shakin palsie", synonyms=SYNONYMS)


def slow_search(graph: pl.DataFrame, query: str, type: str | None) -> list[int]:
    """Return the rows that `find_node` may choose from, one node and one rule at a time."""
    prefix, namespace, local = parse_identifier(query)

    def has_identifier(source: str, id_: str, kind: str) -> bool:
        locals_ = [parse_identifier(id_).local, *group_members(id_, source, kind)]
        own = parse_identifier(id_, source, kind).namespace
        return local in locals_ and (not prefix or prefix == kind or namespace == own)

    rules: list[Callable[[str, str, str, str], bool]] = [
        lambda source, id_, kind, name: query in (f"{source}:{id_}", f"{kind}:{id_}"),
        lambda source, id_, kind, name: (
            query in (id_, name) or (query.isdigit() and has_identifier(source, id_, kind))
        ),
        lambda source, id_, kind, name: (
            has_identifier(source, id_, kind) or normalize_name(name) == normalize_name(query)
        ),
    ]
    for rule in rules:
        found = [
            row for row, node in enumerate(graph.rows()) if type in (None, node[2]) and rule(*node)
        ]
        if found:
            return found
    return []


@pytest.mark.parametrize("type", [None, "disease"])
def test_many_are_found_as_each_alone_and_as_by_a_slow_search(type: str | None) -> None:
    rng = random.Random(0)
    prefixes, ids = ["", "", "MONDO:", "Gene::", "x_"], ["1", "01", "23", "7", "DB00001", "1_2"]
    names = ["a b", "A  b", "a-b", "\u00c4", "1", "db00001", "c", "d", "e", "f", "fi", "\ufb01"]
    names += ["it`s", "\u200bit's", "\u212a1", "k1", "+"]  # \u212a is the sign of the unit kelvin
    nodes = {
        (
            rng.choice(["MONDO", "MONDO_grouped", "", "NCBI", "X"]),
            rng.choice(prefixes) + rng.choice(ids),
            rng.choice(["disease", "gene"]),
            rng.choice(names),
        )
        for _ in range(40)
    }
    graph = table(sorted(nodes))
    parts = [part for node in nodes for part in (*node, f"{node[0]}:{node[1]}") if part]
    spellings: list[Callable[[str], str]] = [str.upper, str.lower, str.strip]
    queries = [rng.choice(spellings)(rng.choice(parts)) for _ in range(300)]
    queries += ["MONDO:1", "mondo_23", "gene:1", "NCBIGene:7", "2", "other"]
    expected = {query: slow_search(graph, query, type) for query in queries}
    for query, rows in expected.items():
        if len(rows) == 1:
            assert find_node(graph, query, type=type) == rows[0], query
        else:
            with pytest.raises(InputError, match="ambiguous" if rows else "must be the name or id"):
                find_node(graph, query, type=type)
    clear = [query for query, rows in expected.items() if len(rows) == 1]
    index = NodeIndex(graph, type=type)
    assert [index.find(query) for query in clear] == [expected[query][0] for query in clear]
    assert len(clear) > 20


def test_suggestions_for_a_word() -> None:
    assert did_you_mean("drgu", ["drug", "disease"]) == "; did you mean 'drug'?"
    assert did_you_mean("gene", ["disease", "gene/protein"]) == "; did you mean 'gene/protein'?"
    assert did_you_mean("Disease", ["drug", "disease"]) == "; did you mean 'disease'?"
    assert did_you_mean("xyz", ["drug", "disease"]) == ""
