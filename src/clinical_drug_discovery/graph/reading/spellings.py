"""Find nodes and names that are probably the same thing in two spellings.

Only the user can know if they are. They stay apart, and the user gets a warning with a count and
examples. One kind is certain, and refused: an id that a column of floats has changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from ...system.errors import InputError, counted
from ..formats.table import FIELDS, Table
from .duplicates import duplicated
from .records import IDENTITY, files_of, listed, name_key, place_of
from .rows import ROW, TABLE, Rows

_EXAMPLES = 3
_INVISIBLE = {"Zs", "Cc", "Cf"}  # categories of blanks, control and format characters
#: "5000.0", "5000,0", "MONDO:5000.0", "5e3": what a column of floats makes of "5000"
_FLOAT = r"^([A-Za-z][A-Za-z0-9.]*[:_])?[0-9]+(\.0*|,0+)$"
_EXPONENT = r"^[0-9]+([.,][0-9]+)?[eE]\+?[0-9]{1,3}$"
#: "5,000", which a spreadsheet makes of "5000"
_THOUSANDS = r"^[0-9]{1,3}(,[0-9]{3})+$"
#: control characters (`quotes` looks at line breaks), and U+FFFD, which replaces a lost character
_UNUSUAL = "[\\x00-\\x09\\x0b-\\x1f\\x7f-\u009f\ufffd]"
_PREFIX = re.compile(r"^([a-z][a-z0-9_.]*?)[:_ /#-]+(?=.)")
_LOOSE_PREFIX = r"^[a-z][a-z0-9_.]*[:_ /#-]+"
_ADDRESS = r"^https?://.*[/#?=]"
_AROUND = "'\"`#;,|."  # characters around an id that programs add or leave
_VERSION = r"^([a-z].*[0-9]{4,})\.[0-9]{1,2}$"  # ENSG00000141510.16
_BIOLINK = "biolink:"


def spelling_key(text: str) -> str:
    """Return the text without differences of case, blanks, punctuation and Unicode form.

    The prefix of the Biolink Model is removed. Symbols such as + are kept.
    """
    plain = unicodedata.normalize("NFKC", text).casefold().strip().removeprefix(_BIOLINK)
    plain = plain.replace("\N{MINUS SIGN}", "-").replace("|", "/")
    plain = plain.replace("-::", "~::")  # DRKG's GNBR::E- is not GNBR::E
    plain = re.sub(r"^([0-9]+)\.0+$", r"\1", plain)  # a number in a column of floats
    kept = (char for char in plain if unicodedata.category(char)[0] not in "PZC")
    return "".join(kept) or plain


def check_spellings(rows: Rows, nodes: pl.DataFrame) -> list[str]:
    """Return warnings about suspicious spellings; each has a count and up to three examples.

    Args:
        rows: provides the relations and their numbers of rows.
        nodes: the fields of each node, and where it was read first.

    Raises:
        InputError: a node has two ids, one of which a column of floats has changed, or a field has
            a NUL character.
    """
    tables = rows.tables
    relations = list(rows.relation_codes())
    found = [_unusual_characters(tables, nodes, relations), _float_ids(tables, nodes)]
    if alike := _alike(relations):
        names = [name for group in alike for name in group]
        counts = dict(zip(names, rows.count_relations(names), strict=True))
        found.append(_alike_text("relations", alike, counts, "rows"))
    for column, what in (("type", "node types"), ("source", "node sources")):
        table = nodes[column].value_counts()
        if alike := _alike(table[column].to_list()):
            found.append(_alike_text(what, alike, dict(table.rows()), "nodes"))
    found += [_two_ids(tables, nodes), _two_sources(tables, nodes)]
    found += [_same_names(tables, nodes), _numbers_without_prefix(tables, nodes)]
    return [f"{files_of(tables)}: {text}" for text in found if text]


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that are spelled alike."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[spelling_key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _alike_text(what: str, groups: list[list[str]], counts: dict[str, int], unit: str) -> str:
    texts = (
        " and ".join(f"{name!r} ({counts[name]:,} {unit})" for name in group) for group in groups
    )
    return (
        f"some {what} differ only in case, blanks or punctuation and are kept apart; correct the "
        f"file if they are the same: {listed(texts, _EXAMPLES)}"
    )


def _unusual_characters(
    tables: Sequence[Table], nodes: pl.DataFrame, relations: Sequence[str]
) -> str:
    """Warn of control characters and lost characters; refuse NUL."""
    odd = nodes.filter(pl.any_horizontal(pl.col(FIELDS).str.contains(_UNUSUAL)))
    texts = [name for name in relations if re.search(_UNUSUAL, name)]
    found = [f"relation {name!r}" for name in texts]
    for record in odd.sort(TABLE, ROW).iter_rows(named=True):
        value = next(record[one] for one in FIELDS if re.search(_UNUSUAL, record[one]))
        found.append(f"{value!r} ({place_of(tables, record[TABLE], record[ROW])})")
        texts.append(value)
    if nul := [text for text, value in zip(found, texts, strict=True) if "\0" in value]:
        raise InputError(
            f"{files_of(tables)}: a field must not have NUL characters (is the file damaged?): "
            f"{listed(nul)}"
        )
    if not found:
        return ""
    number = counted(len(found), "name or id has", "names or ids have")
    return (
        f"{number} control characters or characters that were lost (U+FFFD): "
        f"{listed(found, _EXAMPLES)}"
    )


def _float_ids(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Refuse ids that a column of floats changed where the true id is known; warn of others."""
    ids = pl.col("id")
    odd = nodes.filter(ids.str.contains(f"{_FLOAT}|{_EXPONENT}|{_THOUSANDS}"))
    if odd.is_empty():
        return ""
    forms = pl.List(pl.String)
    odd = odd.with_columns(plain=odd["id"].map_elements(_whole, return_dtype=forms))
    pairs = odd.explode("plain").join(
        nodes, left_on=("source", "type", "plain"), right_on=IDENTITY, suffix="_plain"
    )
    if len(pairs):
        texts = [
            f"{place_of(tables, one[TABLE], one[ROW])} has the {one['type']} {one['id']!r}, but "
            f"{place_of(tables, one[f'{TABLE}_plain'], one[f'{ROW}_plain'])} has {one['plain']!r}"
            for one in pairs.sort(TABLE, ROW).head(_EXAMPLES).iter_rows(named=True)
        ]
        number = counted(len(pairs), "node has", "nodes have")
        raise InputError(
            f"{files_of(tables)}: {number} an id in two forms, because a column of ids was saved "
            f"as numbers: {listed(texts)}; write the ids as text"
        )
    # An exponent or a comma may belong to the id; not if the other ids of the kind are numbers.
    kind = ("source", "type")
    numeric = ids.str.contains(f"^[0-9]+$|{_FLOAT}|{_EXPONENT}|{_THOUSANDS}")
    numbers = nodes.group_by(kind).agg(numeric.mean().alias("share")).filter(pl.col("share") > 0.9)
    certain = ids.str.contains(_FLOAT)
    odd = odd.drop("plain")
    odd = pl.concat([odd.filter(certain), odd.filter(~certain).join(numbers, on=kind, how="semi")])
    if odd.is_empty():
        return ""
    texts = [
        f"{one['id']!r} ({one['type']}, {place_of(tables, one[TABLE], one[ROW])})"
        for one in odd.sort(TABLE, ROW).head(_EXAMPLES).iter_rows(named=True)
    ]
    number = counted(len(odd), "id looks", "ids look")
    return f"{number} like whole numbers from a column of floats: {listed(texts)}"


def _whole(text: str) -> list[str]:
    """Return what "5000.0", "5000,0", "5,000", "5e3" and "5000." were: "5000".

    The number of "MONDO:5000.0" may have had the prefix or not.
    """
    if re.fullmatch(_THOUSANDS, text):
        return [text.replace(",", "")]
    start = re.match(r"(?:[A-Za-z][A-Za-z0-9.]*[:_])?", text)
    prefix = start[0] if start else ""
    digits, _, exponent = text[len(prefix) :].lower().replace(",", ".").partition("e")
    whole, _, fraction = digits.partition(".")
    shift = int(exponent or 0)
    fraction = fraction.rstrip("0")
    if len(fraction) > shift:
        return [text]
    number = (whole + fraction.ljust(shift, "0")).lstrip("0") or "0"
    return list(dict.fromkeys([number, prefix + number, prefix + whole])) if prefix else [number]


def _two_ids(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of nodes of one type whose ids differ only in spelling."""
    plain = (
        pl.col("id")
        .str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[\s\x{200b}\x{feff}]", "")
        .str.replace(_ADDRESS, "")
        .str.strip_chars(_AROUND)
        .str.replace(_VERSION, "$1")
    )
    loose = plain.str.replace(_LOOSE_PREFIX, "").str.strip_chars_start("0")
    kind = [
        pl.col(one).str.to_lowercase().str.replace_all(r"[\s_-]", "") for one in ("source", "type")
    ]
    keys = [loose.alias("id"), kind[0].alias("source"), kind[1].alias("type")]
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    candidates = nodes.filter(pl.Series(duplicated(nodes, keys))).sort(TABLE, ROW)
    for record in candidates.iter_rows(named=True):
        groups[_id_key(record)].append(record)
    texts = []
    for group in groups.values():
        seen: dict[Any, dict[str, Any]] = {}
        for other in group:
            keys_of = _node_keys(other)
            pair = next((seen[key] for key in keys_of if key in seen), None)
            if pair is not None:
                places = [place_of(tables, one[TABLE], one[ROW]) for one in (pair, other)]
                texts.append(
                    f"{pair['type']} {pair['id']!r} ({places[0]}) and {other['id']!r} ({places[1]})"
                )
            for key in keys_of:
                seen.setdefault(key, other)
    return _kept_apart(
        texts,
        "an id that differs from that of another node only in case, blanks, zeros, prefix or "
        "version",
    )


def _two_sources(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of nodes that differ in nothing but the source, such as NCBI and Entrez."""
    texts = [
        f"{first['type']} {first['id']!r} of {first['source']!r} "
        f"({place_of(tables, first[TABLE], first[ROW])}) and of {other['source']!r} "
        f"({place_of(tables, other[TABLE], other[ROW])})"
        for first, other, *_ in _groups(nodes, ("type", "id", "name"))
        if spelling_key(first["source"]) != spelling_key(other["source"])
    ]
    return _kept_apart(texts, "the id and the name of another node, but another source")


def _same_names(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of nodes of one name whose ids share a number, such as 5003_5113 and 5113_5003."""
    texts = []
    for first, *others in _groups(nodes, ("type", "source", "name")):
        numbers = {*re.findall(r"[1-9][0-9]{2,}", first["id"])}
        for other in others:
            shares = numbers & {*re.findall(r"[1-9][0-9]{2,}", other["id"])}
            if shares and _id_key(first) != _id_key(other):  # else `_two_ids` has found them
                places = [place_of(tables, one[TABLE], one[ROW]) for one in (first, other)]
                texts.append(f"{first['id']!r} ({places[0]}) and {other['id']!r} ({places[1]})")
    return _kept_apart(texts, "the name of another node, and an id with the same number")


def _groups(nodes: pl.DataFrame, keys: tuple[str, ...]) -> Iterator[list[dict[str, Any]]]:
    """Yield the nodes that agree in `keys` with others, if they have names, group by group."""
    named = nodes.filter(pl.col("name") != pl.col("id"))
    groups = named.filter(pl.Series(duplicated(named, keys))).sort(TABLE, ROW)
    for group in groups.partition_by(keys, maintain_order=True):
        yield group.to_dicts()


def _kept_apart(texts: Sequence[str], what: str) -> str:
    """Return the warning about nodes that are probably the same; empty without texts."""
    if not texts:
        return ""
    return (
        f"{counted(len(texts), 'node has', 'nodes have')} {what}; they are kept apart; correct "
        f"the file if they are the same: {listed(texts, _EXAMPLES)}"
    )


def _numbers_without_prefix(tables: Sequence[Table], nodes: pl.DataFrame) -> str:
    """Warn of ids such as 5180 beside MONDO:0005180, if the nodes do not have sources."""
    ids = pl.col("id")
    number = ids.str.extract(r"^[A-Za-z][A-Za-z0-9.]*[:_]0*([0-9]+)$", 1).alias("number")
    long = nodes.with_columns(number).filter(pl.col("number").is_not_null())
    if long.is_empty():
        return ""
    bare = nodes.filter((pl.col("source") == "") & ids.str.contains("^[0-9]+$"))
    bare = bare.with_columns(ids.str.replace("^0+(.)", "$1").alias("number"))
    pairs = bare.join(long, on=("type", "number"), suffix="_long").sort(TABLE, ROW)
    if pairs.is_empty():
        return ""
    texts = [
        f"{one['id']!r} ({place_of(tables, one[TABLE], one[ROW])}) and {one['id_long']!r} "
        f"({place_of(tables, one[f'{TABLE}_long'], one[f'{ROW}_long'])})"
        for one in pairs.head(_EXAMPLES).iter_rows(named=True)
    ]
    number_of = counted(len(pairs), "id is", "ids are")
    return (
        f"{number_of} the number of another id with a prefix; they are kept apart; correct the "
        f"file if they are the same: {listed(texts)}"
    )


def _bare(record: dict[str, Any]) -> tuple[str, str]:
    """Return the prefix of an id, and the id without it. The source does not count as a prefix."""
    plain = unicodedata.normalize("NFKC", record["id"]).casefold()
    text = "".join(char for char in plain if unicodedata.category(char) not in _INVISIBLE)
    text = re.sub(_ADDRESS, "", text).strip(_AROUND)
    text = re.sub(_VERSION, r"\1", text)
    found = _PREFIX.match(text)
    if not found:
        return "", text
    prefix = spelling_key(found[1])
    return "" if prefix == spelling_key(record["source"]) else prefix, text[found.end() :]


def _id_key(record: dict[str, Any]) -> tuple[str, ...]:
    kind = spelling_key(record["source"]), spelling_key(record["type"])
    return (*kind, _bare(record)[1].lstrip("0"))


def _node_keys(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return keys; two records of one `_id_key` are probably one node if they share a key."""
    prefix, bare = _bare(record)
    # The first key is shared by ids that differ only in case, in blanks or in the source as prefix.
    keys: list[tuple[str, ...]] = [("id", prefix, bare)]
    if record["name"] != record["id"]:
        keys.append(("name", name_key(record["name"]).casefold()))
    else:
        keys.append(("prefix", prefix))
    return keys
