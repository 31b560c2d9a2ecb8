"""The nodes of formats that keep them apart from the edges.

The table of nodes is held in memory, at about 100 bytes a node. The edges are read in batches, as
those of other formats are. The engine looks up each distinct key once, not once for each edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from ...system.errors import InputError, counted
from ..reading.parquet_sizes import check_all_read
from .head import Head
from .table import AROUND_WORDS, HEADER_ROWS, KEY, SKIP, NodeRules, Table, header_word

ROW = "row"  # the column with the number of a node's row in its file
_SHOWN = 10
_OTHER_SEPARATORS = ";|[]{}"  # of lists of labels in files of other programs
_MAX_BATCHES = 16  # when there are this many batches of nodes, they are joined into one
_PREFIX = r"^([A-Za-z][A-Za-z0-9.\-]*):."
_SCHEMES = ("http", "https", "urn")  # beginnings of addresses, which are not prefixes
#: Labels and Biolink classes that say little about a node, from the most general to the least.
_GENERAL = (
    "Node", "Entity", "__Entity__", "NamedThing", "OntologyClass", "ThingWithTaxon",
    "PhysicalEssenceOrOccurrent", "PhysicalEssence", "Occurrent", "SubjectOfInvestigation",
    "InformationContentEntity", "Attribute", "BiologicalEntity", "PhysicalEntity",
    "OrganismalEntity", "ChemicalOrDrugOrTreatment", "ChemicalEntityOrGeneOrGeneProduct",
    "ChemicalEntityOrProteinOrPolypeptide", "MacromolecularMachineMixin", "GenomicEntity",
    "EpigenomicEntity", "GeneOrGeneProduct", "GeneProductMixin", "ChemicalEntity",
    "MolecularEntity", "ChemicalMixture", "MolecularMixture", "NucleicAcidEntity", "Polypeptide",
    "DiseaseOrPhenotypicFeature", "BiologicalProcessOrActivity", "AnatomicalEntity",
)  # fmt: skip


@dataclass(frozen=True)
class Nodes:
    """Distinct nodes, with the columns key, id, type, name, source and perhaps index."""

    frame: pl.DataFrame
    hint: str  #: why an edge may name a node that is not among them
    warnings: tuple[str, ...] = ()


def read_nodes(
    head: Head, rules: NodeRules, columns: Mapping[str, pl.Expr], frame: pl.LazyFrame
) -> Nodes:
    """Read a table of nodes.

    Args:
        head: the file, for messages.
        rules: what to do about rows that lack a field or contradict each other.
        columns: expressions of key, id, type and name, and optionally of source and index. A null
            or empty name is replaced by the id, a missing source by the prefix of the id.
        frame: the rows of the file, in its order; with a column row if they are not all rows.

    Raises:
        InputError: a row lacks its id or type, two rows of a node differ, or a header in the middle
            has other columns.
        PolarsError, OSError: the file cannot be parsed.
    """
    names = frame.collect_schema().names()
    is_whole = head.is_parquet and ROW not in names
    if ROW not in names:
        frame = frame.with_columns(head.is_blank.alias(SKIP))
        frame = frame.with_row_index(ROW, offset=1 if head.is_parquet else HEADER_ROWS + 1)
        frame = frame.filter(~pl.col(SKIP)).drop(SKIP)
    fields = [value.cast(pl.String).alias(f"#{name}") for name, value in columns.items()]
    named = [ROW, *(pl.col(f"#{name}").alias(name) for name in columns)]
    kept: list[pl.DataFrame] = []
    for batch in all_columns(head, frame, [pl.col(ROW), *fields]).collect_batches():
        kept.append(batch.select(named))
        if len(kept) == _MAX_BATCHES:  # the joined copy lets polars free the batches
            kept = [pl.concat(kept, rechunk=True)]
    num_rows = sum(map(len, kept))
    if is_whole:
        declared = int(head.scan().select(pl.len()).collect().item())
        check_all_read(head.path, num_rows, declared)
    if not num_rows:
        raise InputError(f"{head.path} has a header but no rows")
    table = pl.concat(kept, rechunk=True).sort(ROW)
    if head.is_parquet:
        return distinct_nodes(head, rules, table)
    words = [header_word(one) for one in names if one != ROW]
    shown = pl.col(KEY, "id", "type").str.strip_chars(AROUND_WORDS).str.to_lowercase()
    is_header = pl.all_horizontal(shown.is_in(words)).fill_null(False)
    return _without_headers(head, rules, table, is_header, columns)


def _without_headers(
    head: Head,
    rules: NodeRules,
    table: pl.DataFrame,
    is_header: pl.Expr,
    columns: Mapping[str, pl.Expr],
) -> Nodes:
    """Remove repeated headers, and return the distinct nodes; see `read_nodes`."""
    found = table.filter(is_header)
    table = table.filter(~is_header)
    if found.is_empty():
        return distinct_nodes(head, rules, table)
    for row in found.iter_rows(named=True):
        for one in (KEY, "type"):
            wanted = {header_word(name) for name in columns[one].meta.root_names()}
            if header_word(row[one]) not in wanted:
                raise InputError(
                    f"{head.path}, row {row[ROW]}: this row is a header with other columns, or in "
                    "another order; every part of a file must have the same columns"
                )
    number = counted(len(found), "row repeats", "rows repeat")
    text = f"{head.path}: {number} the header and {'is' if len(found) == 1 else 'are'} left out"
    nodes = distinct_nodes(head, rules, table)
    return replace(nodes, warnings=(*nodes.warnings, f"{text} (first: row {found[ROW][0]})"))


def distinct_nodes(head: Head, rules: NodeRules, table: pl.DataFrame) -> Nodes:
    """Check a table of nodes and drop repeated rows; see `read_nodes`.

    Args:
        head: the file, for messages.
        rules: what to do about rows that lack a field or contradict each other.
        table: columns row, key, id, type, name, and optionally source and index.
    """
    warnings: list[str] = []
    if "source" not in table.columns:
        table = table.with_columns(source=prefix_of(pl.col("id")))
    given = pl.col(KEY, "id", "type").cast(pl.String).str.strip_chars()
    empty = pl.any_horizontal(given.fill_null("") == "")
    if len(rows := table.filter(empty)):
        what = f"{head.path}: {counted(len(rows), 'node')} without an id or a type"
        if rules.on_missing == "error":
            raise InputError(
                f"{what}: {_rows(rows)}", " (on_missing 'drop' leaves them out: --on-missing drop)"
            )
        warnings.append(f"{what} left out: {_rows(rows)}")
        table = table.filter(~empty)
    nameless = pl.col("name").str.strip_chars().fill_null("") == ""
    if len(table) and table.select(nameless.all()).item():
        warnings.append(f"{head.path}: no node has a name; the ids stand for the names")
    table = table.with_columns(pl.when(nameless).then("id").otherwise("name").alias("name"))
    table = table.unique([name for name in table.columns if name != ROW], keep="first")
    table = table.sort(ROW)
    repeated = table.filter(pl.col(KEY).is_duplicated())
    if len(repeated):
        several = repeated[KEY].n_unique()
        what = f"{head.path}: {several:,} node{'s' * (several > 1)} in rows that differ"
        shown = _rows(repeated.sort(KEY, ROW))
        if rules.on_conflict == "error":
            raise InputError(
                f"{what}: {shown}",
                " (on_conflict 'first' keeps each node's first row: --on-conflict first)",
            )
        warnings.append(f"{what}, the first row of each is kept: {shown}")
        table = table.unique(KEY, keep="first", maintain_order=True)
    same = table.filter(table.select("source", "type", "id").is_duplicated())
    if len(same):
        raise InputError(
            f"{head.path}: {counted(len(same), 'row')} with the same source, type and id under "
            f"different keys: {_rows(same.sort('source', 'type', 'id', ROW))}"
        )
    hint = f"the node is not in {head.path.name}"
    return Nodes(table.drop(ROW), hint, tuple(warnings))


def all_columns(head: Head, frame: pl.LazyFrame, fields: Sequence[pl.Expr]) -> pl.LazyFrame:
    """Return a frame with some fields, for which polars parses all columns of a text file.

    polars then checks the number of fields in each row, so an unquoted comma is an error and does
    not shift the fields. The unneeded columns stay in the frame, a batch at a time.
    """
    if head.is_parquet:
        return frame.select(fields)
    # polars would not parse a column that a field replaces.
    names = {one.meta.output_name() for one in fields} & {*frame.collect_schema().names()}
    return frame.with_columns(*fields, *(pl.col(name).alias(f"#{name}") for name in names))


def prefix_of(id_: pl.Expr) -> pl.Expr:
    """Return the prefix of a CURIE, such as MONDO of MONDO:0005148, or empty text."""
    prefix = id_.str.extract(_PREFIX, 1).fill_null("")
    return pl.when(prefix.is_in(_SCHEMES)).then(pl.lit("")).otherwise(prefix)


def most_specific(
    head: Head, frame: pl.LazyFrame, column: str, separator: str
) -> tuple[pl.Expr, tuple[str, ...]]:
    """Return the most specific label of each list of labels in a column of text, and warnings.

    Labels that stand for nearly everything (Entity, NamedThing, ChemicalEntity, ...) count only if
    a list does not have others. Among the others the first label is the type, with a warning.
    """
    labels = pl.col(column).cast(pl.String)
    counts = frame.select(labels.alias("labels")).group_by("labels").len().drop_nulls()
    numbers = dict(counts.collect().sort("labels").iter_rows())
    for text in numbers:
        if odd := ({*_OTHER_SEPARATORS} - {separator}) & {*text}:
            raise InputError(
                f"{head.path}: the labels {text!r} have {min(odd)!r}; labels must be separated by "
                f"{separator!r}"
            )
    ranked = {text: _by_rank(text.split(separator)) for text in numbers}
    chosen = {text: found[0][1] if found else "" for text, found in ranked.items()}
    unclear = [text for text, found in ranked.items() if len(found) > 1 and found[1][0] == 0]
    warnings: tuple[str, ...] = ()
    if unclear:
        num_nodes = sum(numbers[text] for text in unclear)
        warnings = (
            f"{head.path}: several labels could be the type of {num_nodes:,} nodes, such as those "
            f"of {unclear[0]!r}; the first one is taken",
        )
    return labels.replace_strict(chosen, default=None, return_dtype=pl.String), warnings


def _by_rank(labels: list[str]) -> list[tuple[int, str]]:
    """Return the labels after their ranks, sorted by rank; rank 0 is specific."""
    names = [name.strip() for name in labels if name.strip()]
    shorts = [name.removeprefix("biolink:") for name in names]
    ranks = [len(_GENERAL) - _GENERAL.index(one) if one in _GENERAL else 0 for one in shorts]
    return sorted(zip(ranks, names, strict=True), key=lambda pair: pair[0])


def joined_table(
    format_name: str,
    edges: Head,
    nodes: Nodes,
    columns: tuple[str, str, str],
    frame: pl.LazyFrame,
    *,
    filled: tuple[str, ...] = ("name", "source"),
    skip: pl.Expr | None = None,
) -> Iterator[Table]:
    """Yield the table of an edges file whose columns (x, relation, y) name nodes by their keys.

    Args:
        format_name: see `Format.name`.
        edges: the edges file.
        nodes: its nodes.
        columns: columns of `frame`.
        frame: the rows of the edges file.
        filled: see `Table`.
        skip: True for rows that are not edges; None for `Head.is_blank`.
    """
    x, relation, y = columns
    yield Table(
        path=edges.path,
        format=format_name + edges.separator_note,
        frame=all_columns(
            edges,
            frame,
            [
                (edges.is_blank if skip is None else skip).alias(SKIP),
                *(
                    pl.col(name).cast(pl.String).alias(alias)
                    for name, alias in zip(
                        columns, (f"x_{KEY}", "relation", f"y_{KEY}"), strict=True
                    )
                ),
            ],
        ),
        first_row=1 if edges.is_parquet else HEADER_ROWS + 1,
        header={} if edges.is_parquet else {"x_id": x, "relation": relation, "y_id": y},
        header_words=edges.columns,
        filled=filled,
        hint=nodes.hint,
        nodes=nodes.frame,
        warnings=nodes.warnings,
    )


def require(head: Head, names: tuple[str, ...]) -> None:
    """Check that a file has some columns, each once.

    Raises:
        InputError: a column is missing, or the header has it twice.
    """
    if missing := [name for name in names if name not in head.columns]:
        found = ", ".join(repr(name[:40]) for name in head.columns[:15])
        raise InputError(f"{head.path}: the header lacks {', '.join(missing)}; it has {found}")
    words = [header_word(name) for name in head.columns]
    if twice := [name for name in names if words.count(header_word(name)) > 1]:
        raise InputError(f"{head.path}: the header has {', '.join(twice)} more than once")


def _rows(rows: pl.DataFrame) -> str:
    """Return the first rows as text, such as "row 5 (id '7', type 'Gene', name 'GEN7')"."""
    shown = [
        f"row {row[ROW]} (id {row['id']!r}, type {row['type']!r}, name {row['name']!r})"
        for row in rows.head(_SHOWN).iter_rows(named=True)
    ]
    return ", ".join(shown) + (", ..." if len(rows) > _SHOWN else "")
