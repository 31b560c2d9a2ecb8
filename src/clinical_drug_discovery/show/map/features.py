"""Classes of nodes from a user's table, such as PrimeKG's `drug_features.csv`.

PrimeKG writes its features as sentences: "Warfarin is anatomically related to blood and blood
forming organs." The class is the end of the sentence. Other tables have ATC codes, such as
B01AA03; their class is the anatomical main group, the first letter.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from ...graph.node_lookup import did_you_mean
from ...graph.reading.unpacking import check_rows
from ...system.errors import InputError
from ...system.untrusted.inputs import check_regular
from ...system.untrusted.panics import without_panics

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_KEYS = ("node_index", "node_id")
#: Columns that are taken for the class, the first that the table has.
_CLASS_COLUMNS = ("class", "atc_1", "atc", "atc_code", "category")
#: The first letters of ATC codes, and the names of their groups.
ATC = {
    "A": "alimentary tract and metabolism",
    "B": "blood and blood forming organs",
    "C": "cardiovascular system",
    "D": "dermatologicals",
    "G": "genito urinary system and sex hormones",
    "H": "systemic hormonal preparations",
    "J": "antiinfectives for systemic use",
    "L": "antineoplastic and immunomodulating agents",
    "M": "musculo-skeletal system",
    "N": "nervous system",
    "P": "antiparasitic products",
    "R": "respiratory system",
    "S": "sensory organs",
    "V": "various",
}
_CODE = re.compile(r"[A-Z](\d\d([A-Z]([A-Z](\d\d)?)?)?)?")
#: Beginnings of PrimeKG's sentences. The name of the drug stands before them or is missing.
_BEGINNINGS = (
    " is anatomically related to ", " is in the therapeutic group of ",
    " is pharmacologically related to ", "The chemical and functional group of  is ",
    " is part of ", " is a ", " is ", " uses ",
)  # fmt: skip


def read_classes(path: Path, feature: str | None, nodes: pl.DataFrame) -> list[str | None]:
    """Read the class of each node from a table.

    Args:
        path: .csv or .tsv in UTF-8 with the column node_index or node_id (the identifiers of the
            graph, such as DB00682), and a column of classes.
        feature: name of the column of classes (default: the first of class, atc_1, atc, atc_code
            and category).
        nodes: the nodes of the map.

    Returns:
        A class for each node: of several (";" or ATC codes separated by commas) the first; None if
        the table does not have the node, or an empty class.

    Raises:
        InputError: the file cannot be read or lacks a column, has a node twice, or does not have
            any of the nodes.
    """
    table = _read(path)
    key = next((name for name in _KEYS if name in table.columns), None)
    if key is None:
        raise InputError(
            f"features (got {path}) must have the column node_index or node_id; it has "
            f"{', '.join(table.columns)}"
        )
    column = feature or next((name for name in _CLASS_COLUMNS if name in table.columns), None)
    if column not in table.columns:
        if feature is not None:
            hint = did_you_mean(feature, table.columns)
            raise InputError(
                f"feature (got {feature!r}) must be a column of {path}: "
                f"{', '.join(table.columns)}{hint}"
            )
        raise InputError(
            f"features (got {path}) must have one of the columns {', '.join(_CLASS_COLUMNS)}, or "
            f"feature names another one of {', '.join(table.columns)}"
        )
    ids = table[key].fill_null("")
    if not ids.is_unique().all():
        row = int((~ids.is_first_distinct()).arg_true()[0])
        raise InputError(f"features (got {path}), row {row + 2}: {key} {ids[row]!r} is there twice")
    known = dict(zip(ids, table[column].fill_null(""), strict=True))
    texts = [known.get(str(one), "") for one in nodes[key]]
    if not any(str(one) in known for one in nodes[key]):
        raise InputError(
            f"features (got {path}) does not have any of the {nodes.height:,} nodes of the map: "
            f"its first {key} is {ids[0]!r}, that of the map is {str(nodes[key][0])!r}"
        )
    names = nodes["node_name"].to_list()
    return [_class_of(text, name, column) for text, name in zip(texts, names, strict=True)]


def _read(path: Path) -> pl.DataFrame:
    """Read a table as text."""
    check_regular("features", path)
    separator = _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        raise InputError(f"features (got {path}) must end in .csv or .tsv")
    check_rows(path, path)
    try:
        with without_panics():
            table = pl.read_csv(path, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"features (got {path}) cannot be read as a table: {reason}") from error
    if not table.height:
        raise InputError(f"features (got {path}) must have at least one row")
    return table


def _class_of(text: str, name: str, column: str) -> str | None:
    """Return the class that a cell says, or None if it is empty."""
    text = text.strip().removeprefix(name)
    for beginning in _BEGINNINGS:
        if text.startswith(beginning):
            text = text.removeprefix(beginning).removesuffix(".")
            break
    text = text.strip()
    code = re.split(r"[;,|\s]", text, maxsplit=1)[0]
    if column.startswith("atc") and _CODE.fullmatch(code):
        return ATC.get(code[0], text)
    if column == "atc_1":  # several groups are joined by "and", as are the words of some groups
        starts = {group: text.find(group) for group in ATC.values()}
        found = [group for group, at in starts.items() if at >= 0]
        if found:
            return min(found, key=lambda group: starts[group])
    return text.split(";")[0].strip() or None
