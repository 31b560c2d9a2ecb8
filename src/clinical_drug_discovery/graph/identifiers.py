"""Compare identifiers and names without regard to their spelling.

An identifier has a namespace and a local part. "MONDO:0005180", "mondo:5180" and "MONDO_0005180"
are spellings of (mondo, 5180). Hetionet and DRKG write the kind of the node first: "Gene::1813".
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

#: Spellings of prefixes by namespace, in lower case. The namespaces are those of bioregistry.io;
#: the spellings are its synonyms and the words of PrimeKG, Hetionet, DRKG and Open Targets. CTD
#: identifies chemicals by MeSH, and Hetionet's genes are those of NCBI. Namespaces with a single
#: spelling are listed because only listed prefixes may end in an underscore (DOID_1234).
_SPELLINGS = {
    "chebi": "chebi",
    "chembl": "chembl chembl.compound",
    "doid": "doid",
    "drugbank": "drugbank",
    "efo": "efo",
    "ensembl": "ensembl",
    "go": "go",
    "hgnc": "hgnc",
    "hp": "hp hpo",
    "mesh": "mesh msh ctd ctd.chemical",
    "mondo": "mondo mondo_grouped",
    "ncbigene": "ncbigene ncbi ncbi_gene entrez entrezgene geneid gene gene/protein",
    "omim": "omim mim",
    "orphanet": "orphanet orpha",
    "pubchem.compound": "pubchem.compound pubchem",
    "reactome": "reactome react",
    "uberon": "uberon",
    "umls": "umls umls_cui",
    "uniprot": "uniprot uniprotkb",
}
_NAMESPACES = {spelling: name for name, all_ in _SPELLINGS.items() for spelling in all_.split()}
#: Local parts whose form tells the namespace.
_FORMS = {
    "chembl": r"chembl\d+",
    "drugbank": r"db\d{5}",
    "ensembl": r"ens[gtp]\d{11}",
    "mesh": r"[cd]\d{6}(?:\d{3})?",
    "reactome": r"r-[a-z]{3}-\d+",
    "umls": r"c\d{7}",
}
_FORM = re.compile("|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items()))
_UNDERSCORE = re.compile(r"([a-z]+)_([^_]+)")
_ADDRESS = re.compile(r"https?://.*[/#](?=.)")  # of http://purl.obolibrary.org/obo/MONDO_0005180
_GROUP = re.compile(r"\d+(?:_\d+)+")
_LAST_NUMBER = re.compile(r"[0-9]+$")
#: Namespaces whose numbers are padded to seven digits with zeros.
SEVEN_DIGITS = ("mondo", "hp", "go", "uberon", "efo")

#: Characters that `normalize_name` replaces or, if they are invisible, removes.
_REPLACED = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02b9\u02bc\u2032\u00b4\u0060", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d", "-")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", "")
)


class Identifier(NamedTuple):
    """An identifier in the form that is compared."""

    prefix: str  #: prefix or kind in the text, in lower case; "" if the text has none
    namespace: str  #: "" if it is unknown
    local: str  #: in lower case; a number does not have leading zeros


def parse_identifier(text: str, source: str = "", type: str = "") -> Identifier:
    """Return the identifier that a text spells.

    The first of these tells the namespace: prefixes before a colon, or a known prefix before an
    underscore; a known source; the form of the local part, such as DB01235; the kind before two
    colons; an unknown source; the type. Two known prefixes that contradict each other form a
    namespace of their own, so that the identifier equals no other. A web address is reduced to its
    last part.

    Args:
        text: an id, with or without a prefix.
        source: the source of the node that has this id.
        type: the type of this node.

    Example:
        >>> parse_identifier("MONDO_0005180")
        Identifier(prefix='mondo', namespace='mondo', local='5180')
        >>> parse_identifier("1813", source="NCBI")
        Identifier(prefix='', namespace='ncbigene', local='1813')
    """
    kind, colons, local = _ADDRESS.sub("", text.strip().casefold()).partition("::")
    kind, local = (kind.rpartition(":")[2], local) if colons else ("", kind)
    *prefixes, local = (part.strip() for part in local.split(":"))
    if (parts := _UNDERSCORE.fullmatch(local)) and parts[1] in _NAMESPACES:
        prefixes, local = [*prefixes, parts[1]], parts[2]
    prefix = ":".join(prefixes) or kind
    known = [_NAMESPACES[prefix] for prefix in prefixes if prefix in _NAMESPACES]
    source = source.strip().casefold()
    if prefixes:
        namespace = ":".join(dict.fromkeys(known or prefixes))
    elif source in _NAMESPACES:
        namespace = _NAMESPACES[source]
    elif form := _FORM.fullmatch(local):
        namespace = form.lastgroup or ""
    else:
        kind = kind or source or type.casefold()
        namespace = _NAMESPACES.get(kind, kind)
    return Identifier(prefix, namespace, _without_zeros(local))


def shown_identifier(id_: str, source: str, type: str) -> str:
    """Return an identifier of a node for messages, tables and pages, in a form that finds the node.

    This is source:id, or the id alone if it has the source as its prefix, or type:id for a node
    without a source. Numbers of ontologies get their leading zeros, whose number is fixed.

    Example:
        >>> shown_identifier("5180", "MONDO", "disease")
        'MONDO:0005180'
        >>> shown_identifier("MONDO:5180", "MONDO", "disease"), shown_identifier("7", "", "Gene")
        ('MONDO:0005180', 'Gene:7')
    """
    found = parse_identifier(id_, source, type)
    has_prefix = parse_identifier(id_).prefix and (not source or id_.startswith(source))
    shown = id_ if has_prefix else f"{source or type}:{id_}"
    if found.namespace in SEVEN_DIGITS and is_number(found.local):
        shown = _LAST_NUMBER.sub(lambda number: number[0].zfill(7), shown)
    return shown


def group_members(text: str, source: str, type: str) -> list[str]:
    """Return the local parts of the members of a group of diseases; [] for a single node.

    PrimeKG joins similar diseases into one node, whose id is made of the ids of its members:
    "13924_12592_14672" of the source MONDO_grouped. TxGNN keeps such ids without a source.
    """
    if not _GROUP.fullmatch(text):
        return []
    grouped = source.casefold().endswith("_grouped") or "disease" in type.casefold()
    return [_without_zeros(member) for member in text.split("_")] if grouped else []


def is_number(text: str) -> bool:
    """Return whether a text consists of the digits 0 to 9."""
    return text.isascii() and text.isdigit()


def normalize_name(name: str) -> str:
    """Return a name in the form that is compared.

    The case, the Unicode form, blanks, and the kinds of apostrophes and hyphens do not matter.
    """
    name = name.translate(_REPLACED)
    if not name.isascii():  # most names are ASCII, which NFKC does not change
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(name.casefold().split())


def _without_zeros(local: str) -> str:
    return local.lstrip("0") or "0" if is_number(local) else local
