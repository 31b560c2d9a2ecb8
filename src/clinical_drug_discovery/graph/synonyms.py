"""Read other names of nodes from a user's file."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ..system.errors import InputError, counted
from ..system.untrusted.inputs import bounded_lines, check_regular
from ..system.untrusted.text import MAX_SHOWN, printable
from .identifiers import normalize_name
from .node_lookup import NodeIndex, Synonym

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_COLUMNS = ("name", "id")
_LOG = logging.getLogger("clinical_drug_discovery")


def read_synonyms(path: str | Path | None, nodes: pl.DataFrame) -> list[Synonym]:
    """Read synonyms from a file.

    Synonyms of ids that the graph lacks are skipped. A warning says how many.

    Args:
        path: .csv or .tsv in UTF-8, with a header and the columns name and id. Ids may have any
            spelling that `find_node` knows. Other columns are ignored. None: no file.
        nodes: all nodes of the graph.

    Returns:
        One record for each row whose id is in the graph.

    Raises:
        InputError: the file or a row is invalid, or an id fits several nodes.
    """
    if path is None:
        return []
    path = Path(path)
    index = NodeIndex(nodes)
    found: list[Synonym] = []
    missing: list[tuple[int, str]] = []
    for row, name, id_ in _names_and_ids(path):
        rows = index.rows_of_identifier(id_)
        if len(rows) > 1:
            raise InputError(
                f"synonyms, row {row} of {path}: id (got {id_!r}) is ambiguous; choose one of "
                f"{index.choices(rows)}"
            )
        if rows:
            node = nodes.row(rows[0], named=True)
            found.append(Synonym(name, node["node_source"], node["node_type"], node["node_id"]))
        else:
            missing.append((row, id_))
    if missing:
        count, (row, id_) = len(missing), missing[0]
        _LOG.warning(
            f"synonyms (got {printable(str(path))}): {count} of "
            f"{counted(count + len(found), 'row was', 'rows were')} skipped, because the graph "
            f"lacks their ids; the first is {id_[:MAX_SHOWN]!r} in "
            f"row {row}"
        )
    return found


def _names_and_ids(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number, the name and the id of each row; the header is row 1."""
    rows = table_rows("synonyms", path)
    _, header = next(rows, (1, []))
    if any(header.count(column) != 1 for column in _COLUMNS):
        shown = ", ".join(map(repr, header)) or "no columns"
        raise InputError(
            f"synonyms (got {path}) must have a header with the columns name and id, each once; "
            f"the header has {shown}"
        )
    name_at, id_at = map(header.index, _COLUMNS)
    empty = True
    for row, fields in rows:
        where = f"synonyms, row {row} of {path}"
        if len(fields) != len(header):
            raise InputError(
                f"{where}: {counted(len(fields), 'field')}, but the header has {len(header)}"
            )
        for at in (name_at, id_at):
            if not normalize_name(fields[at]):
                raise InputError(f"{where}: {header[at]} must not be empty")
        empty = False
        yield row, fields[name_at], fields[id_at]
    if empty:
        raise InputError(f"synonyms (got {path}) must have at least one row below the header")


def table_rows(parameter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the stripped fields of each row of a table that is not empty.

    Args:
        parameter: the parameter that holds the path, for error messages.
        path: .csv or .tsv in UTF-8; the header is row 1.

    Raises:
        InputError: the file has another suffix, cannot be read, or is damaged.
    """
    separator = _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        raise InputError(f"{parameter} (got {path}) must be a .csv or .tsv file")
    check_regular(parameter, path)
    row = 0
    try:  # utf-8-sig skips a byte order mark
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = bounded_lines(f"{parameter} (got {path})", file)
            reader = csv.reader(lines, delimiter=separator, strict=True)
            for row, fields in enumerate(reader, start=1):
                if fields:
                    yield row, [field.strip() for field in fields]
    except OSError as error:
        raise InputError(f"{parameter} (got {path}) cannot be read: {error.strerror}") from None
    except UnicodeError as error:
        raise InputError(f"{parameter} (got {path}) must be UTF-8: {error}") from None
    except csv.Error as error:
        raise InputError(f"{parameter}, row {row + 1} of {path}: {error}") from None
