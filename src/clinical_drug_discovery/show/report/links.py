"""Web addresses of identifiers. A page requests them only if a reader clicks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...graph.identifiers import SEVEN_DIGITS, group_members, parse_identifier, shown_identifier

#: Namespace: the label in front of the local part, and the address.
_ADDRESSES = {
    "drugbank": ("", "https://go.drugbank.com/drugs/{}"),
    "mondo": ("MONDO:", "https://monarchinitiative.org/MONDO:{}"),
    "ncbigene": ("NCBI Gene ", "https://www.ncbi.nlm.nih.gov/gene/{}"),
    "hp": ("HP:", "https://hpo.jax.org/browse/term/HP:{}"),
    "reactome": ("", "https://reactome.org/content/detail/{}"),
    "go": ("GO:", "https://amigo.geneontology.org/amigo/term/GO:{}"),
    "uberon": ("UBERON:", "https://www.ebi.ac.uk/ols4/ontologies/uberon/terms?obo_id=UBERON:{}"),
}
# The resolver of bioregistry.io knows the other namespaces of `identifiers`.
_RESOLVED = (
    "chebi", "chembl", "doid", "efo", "ensembl", "hgnc", "mesh", "omim", "orphanet",
    "pubchem.compound", "umls", "uniprot",
)  # fmt: skip
_RESOLVER = "https://bioregistry.io/{}:{}"
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")

Link = dict[str, str]  #: text, and url ("" without an address)


def links_of(node: Mapping[str, Any]) -> list[Link]:
    """Return the identifiers of a node with their addresses; a group of diseases has several.

    Args:
        node: node_id and node_type, and perhaps node_source.

    Example:
        >>> node = {"node_id": "5180", "node_type": "disease", "node_source": "MONDO"}
        >>> links_of(node)[0]["text"]
        'MONDO:0005180'
    """
    id_, source, kind = (str(node.get(f"node_{key}") or "") for key in ("id", "source", "type"))
    members = group_members(id_, source, kind)
    if members and (not source or source.casefold().startswith("mondo")):
        return [_link("mondo", member, member) for member in members]
    found = parse_identifier(id_, source, kind)
    return [_link(found.namespace, found.local, shown_identifier(id_, source, kind))]


def _link(namespace: str, local: str, shown: str) -> Link:
    """Return the link of an identifier, or `shown` without an address."""
    if namespace in SEVEN_DIGITS and local.isdigit():
        local = local.zfill(7)
    local = local.upper()
    if _LOCAL.fullmatch(local):
        if namespace in _ADDRESSES:
            label, address = _ADDRESSES[namespace]
            return {"text": f"{label}{local}", "url": address.format(local)}
        if namespace in _RESOLVED:
            return {"text": shown, "url": _RESOLVER.format(namespace, local)}
    return {"text": shown, "url": ""}
