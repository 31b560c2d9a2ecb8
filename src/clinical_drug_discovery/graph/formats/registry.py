"""All formats that the program reads, and the choice between them by content."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...system.errors import InputError
from .head import Head
from .hetionet import HetionetJSON, HetionetTables
from .kgx import KGX
from .neo4j import Neo4jAPOC, Neo4jImport
from .optimuskg import OptimusKG
from .primekg import PrimeKG, PrimeKGTables
from .table import NODE_RULES, Format, NodeRules, Table
from .triples import Triples
from .txgnn import TxGNN

#: A file is recognized by at most one format with and one format without a table of nodes. (Three
#: columns subject, predicate, object are KGX if the user gives the nodes, and triples if not.)
FORMATS: tuple[Format, ...] = (
    PrimeKG(), PrimeKGTables(), TxGNN(), OptimusKG(), HetionetTables(), HetionetJSON(), KGX(),
    Neo4jImport(), Neo4jAPOC(), Triples(),
)  # fmt: skip
#: Known formats that are not read: the first line, the name, and how to convert.
_REFUSED = (
    (
        r"\s*(<[^<>\s]*>|_:\S+)\s+<[^<>\s]*>\s+(<|_:|\").*\.\s*",
        "N-Triples",
        r"convert it to triples without literals: "
        r"sed -nE 's/^<([^>]*)> +<([^>]*)> +<([^>]*)> *\.$/\1\t\2\t\3/p' kg.nt > kg.tsv",
    ),
    (
        r"\s*(@prefix|@base|PREFIX|BASE)\b.*",
        "RDF Turtle",
        "convert it to N-Triples (rapper -i turtle kg.ttl > kg.nt), and those to three columns",
    ),
    (r"\s*(graph|Creator\b.*)\s*\[?\s*", "GML", "export its edges as CSV (head, relation, tail)"),
    (
        r"\s*\{.*",
        "JSON that is not Hetionet's",
        "convert it to TSV: kgx transform for KGX JSON, or jq -r '[...] | @tsv' for other JSON",
    ),
    (r"\s*\[.*", "a JSON list", "convert it to TSV, such as with jq -r '.[] | [...] | @tsv'"),
)  # fmt: skip


def open_tables(
    edges: Sequence[Head], nodes: Head | None, rules: NodeRules = NODE_RULES
) -> Iterator[Table]:
    """Return the tables of all edges files, each read by the format that recognizes the file.

    Args:
        edges: the edges files.
        nodes: the table of nodes, or None.
        rules: what to do about faults in a list of nodes.

    Raises:
        InputError: a file is of no known format, or a node table is missing or not needed.
    """
    for head in edges:
        known = [one for one in FORMATS if one.recognizes(head)]
        if not known:
            raise InputError(f"{head.path}: {_seen(head)}")
        chosen = next((one for one in known if one.has_nodes == (nodes is not None)), known[0])
        if nodes is not None and not chosen.has_nodes:
            rule = f"must be left out: {head.path} is {chosen.name}, which names the nodes itself"
            raise InputError(f"nodes (got {nodes.path}) {rule}")
        if nodes is None and chosen.has_nodes:
            raise InputError(
                f"{head.path} is {chosen.name}, which keeps the nodes in a second file; name that "
                "file with nodes (--nodes)"
            )
        yield from chosen.tables(head, nodes, rules)


def _seen(head: Head) -> str:
    """Return what the first lines show, and the list of the formats."""
    known = ", ".join(one.name for one in FORMATS)
    first = next((line for line in head.lines if line.strip() and line[0] != "#"), "")
    for pattern, name, advice in _REFUSED:
        if re.fullmatch(pattern, first):
            return f"{name} is not read; {advice}; formats that are read: {known}"
    found = ", ".join(repr(name[:40]) for name in head.columns[:15]) or "nothing"
    return f"the format is not known; the first line has {found}; formats that are read: {known}"
