"""All formats that the program reads, and the choice between them by content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...system.errors import InputError
from .head import Head
from .primekg import PrimeKG
from .table import Format, Table

#: The first format that recognizes a file reads it. Every file is recognized by at most one format.
FORMATS: tuple[Format, ...] = (PrimeKG(),)


def open_tables(edges: Sequence[Head], nodes: Head | None) -> Iterator[Table]:
    """Return the tables of all edges files, each read by the format that recognizes the file.

    Raises:
        InputError: a file is of no known format, or a node table is missing or not needed.
    """
    for head in edges:
        chosen = next((one for one in FORMATS if one.recognizes(head)), None)
        if chosen is None:
            raise InputError(f"{head.path}: {_seen(head)}")
        if nodes is not None and not chosen.has_nodes:
            rule = f"must be left out: {head.path} is {chosen.name}, which names the nodes itself"
            raise InputError(f"nodes (got {nodes.path}) {rule}")
        if nodes is None and chosen.has_nodes:
            raise InputError(
                f"{head.path} is {chosen.name}, which keeps the nodes in a second file; name that "
                "file with nodes (--nodes)"
            )
        yield from chosen.tables(head, nodes)


def _seen(head: Head) -> str:
    """Return what the first lines show, and the list of the formats."""
    known = ", ".join(one.name for one in FORMATS)
    found = ", ".join(repr(name[:40]) for name in head.columns[:15]) or "nothing"
    return f"the format is not known; the first line has {found}; known formats are {known}"
