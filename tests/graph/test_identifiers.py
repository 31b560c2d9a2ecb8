"""Spellings of one identifier or name become equal, and those of different ones do not."""

from __future__ import annotations

import polars as pl
import pytest

from clinical_drug_discovery.graph.identifiers import (
    group_members,
    normalize_name,
    parse_identifier,
    shown_identifier,
)
from clinical_drug_discovery.graph.node_lookup import find_node


@pytest.mark.parametrize(
    ("source", "text", "identifier"),
    [
        ("MONDO", "5180", "mondo 5180"),
        ("", "MONDO:0005180", "mondo 5180"),
        ("", "MONDO_0005180", "mondo 5180"),
        ("", "http://purl.obolibrary.org/obo/MONDO_0005180", "mondo 5180"),
        ("", "https://identifiers.org/mondo:0005180", "mondo 5180"),
        ("MONDO", "MONDO:0005180", "mondo 5180"),
        ("", "mondo: 5180 ", "mondo 5180"),
        ("HPO", "1250", "hp 1250"),
        ("", "HP:0001250", "hp 1250"),
        ("NCBI", "1813", "ncbigene 1813"),
        ("Hetionet", "Gene::1813", "ncbigene 1813"),
        ("Hetionet", "Compound::DB01235", "drugbank db01235"),
        ("Hetionet", "Disease::DOID:1234", "doid 1234"),
        ("Hetionet", "Biological Process::GO:0000003", "go 3"),
        ("DrugBank", "DB01235", "drugbank db01235"),
        ("CTD", "D013749", "mesh d013749"),
        ("", "Side Effect::C0000727", "umls c0000727"),
        ("", "reactome:R-HSA-109582", "reactome r-hsa-109582"),
        ("KEGG", "D0123", "kegg d0123"),
        ("", "Disease::5180", "disease 5180"),
        ("", "MONDO:HP:0001250", "mondo:hp 1250"),
        ("", "5180", " 5180"),
        ("", "0", " 0"),
        ("MONDO_grouped", "13924_12592", "mondo 13924_12592"),
    ],
)
def test_namespace_and_local_part(source: str, text: str, identifier: str) -> None:
    _, namespace, local = parse_identifier(text, source)
    assert f"{namespace} {local}" == identifier


def test_only_groups_of_diseases_have_members() -> None:
    assert group_members("13924_0012592", "MONDO_grouped", "disease") == ["13924", "12592"]
    assert group_members("13924_12592", "", "disease") == ["13924", "12592"]
    assert group_members("13924_12592", "KEGG", "pathway") == []
    assert group_members("13924", "MONDO", "disease") == []
    assert group_members("MONDO_13924", "MONDO", "disease") == []


@pytest.mark.parametrize(
    "name",
    [
        "crohn's disease",
        " CROHN\u2019S  Disease ",
        "Crohn\u00b4s\u00a0disease",
        "Crohn\u02bcs\tdisease\u200b",
        "\uff23rohn's disease",
    ],
)
def test_spellings_of_one_name(name: str) -> None:
    assert normalize_name(name) == "crohn's disease"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"),  # composed and decomposed
        ("GRO\u00df", "gross"),
        ("beta\u2010blocker", "beta\u2013blocker"),
        ("\u0130stanbul", "i\u0307stanbul"),
        ("5\u2032-AMP", "5'-amp"),
    ],
)
def test_unicode_forms_of_one_name(one: str, other: str) -> None:
    assert normalize_name(one) == normalize_name(other)
    assert normalize_name(normalize_name(one)) == normalize_name(one)


def test_different_names_stay_different() -> None:
    names = ["Crohn disease", "Crohn's disease", "beta blocker", "beta-blocker", "\u03b1", "alpha"]
    assert len({normalize_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("id_", "source", "shown"),
    [
        ("5180", "MONDO", "MONDO:0005180"),
        ("MONDO:5180", "MONDO", "MONDO:0005180"),
        ("2067", "HPO", "HPO:0002067"),
        ("1813", "NCBI", "NCBI:1813"),
        ("MONDO:0005180", "MONDO", "MONDO:0005180"),  # KGX
        ("5180", "", "disease:5180"),  # DRKG
        ("DOID:14330", "Disease Ontology", "Disease Ontology:DOID:14330"),  # Hetionet
        ("12_34", "MONDO_grouped", "MONDO_grouped:12_34"),
    ],
)
def test_a_shown_identifier_finds_its_node(id_: str, source: str, shown: str) -> None:
    assert shown_identifier(id_, source, "disease") == shown
    nodes = pl.DataFrame({
        "node_source": [source, "other"], "node_type": ["disease", "gene"],
        "node_id": [id_, "7"], "node_name": ["a", "b"],
    })  # fmt: skip
    assert find_node(nodes, shown) == 0
