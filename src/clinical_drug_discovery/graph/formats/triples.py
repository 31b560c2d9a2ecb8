"""Triples: three columns (head, relation, tail) with or without a header, such as DRKG's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from .head import Head
from .node_table import all_columns, prefix_of, require
from .table import HEADER_ROWS, SKIP, NodeRules, Table

ENTITY = "entity"  #: the type of a node whose id does not name a type
_ENDS = (("head", "tail"), ("subject", "object"), ("source", "target"), ("h", "t"))
_RELATIONS = ("relation", "predicate", "r", "rel", "relation_type")
#: Words of headers. A first line with one of them as a field is not a triple.
_HEADER_WORDS = {
    "id", "ids", "name", "type", "types", "kind", "label", "labels", "category", "head", "tail",
    "subject", "object", "source", "target", "relation", "relations", "predicate", "from", "to",
    "weight", "node", "entity", "edge", "metaedge", "x", "y", "start", "end", "index", "idx",
    "score", "value", "count",
}  # fmt: skip
#: Words that name a column if two of them are fields of the first line.
_KINDS = {
    "drug", "disease", "gene", "protein", "compound", "chemical", "phenotype", "pathway", "symptom",
}  # fmt: skip
_SPLIT = r"(?s)^(.+?)::(.+)$"


class Triples:
    """Ids are text. `Compound::DB00100` is the node DB00100 of type Compound.

    An id without `::` is a node of type "entity". The source is the prefix of the id (DOID of
    DOID:1438), and the name is the id.
    """

    name = "triples (DRKG, PyKEEN)"
    has_nodes = False

    def recognizes(self, head: Head) -> bool:
        """Return True for three columns with a known header, or without words of headers."""
        if len(head.columns) != 3:
            return False
        if _known_header(head.columns):
            return True
        if _looks_like_header(head.columns):
            return False
        rows = [] if head.is_parquet else [row for row in head.rows() if row]
        whole = sum(len(row) == 3 and all(map(str.strip, row)) for row in rows)
        return 2 * whole > len(rows)

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        names = _known_header(edges.columns)
        if names:
            require(edges, names)
        frame = edges.scan(has_header=bool(names))
        x, relation, y = names or frame.collect_schema().names()
        fields = [edges.is_blank.alias(SKIP), pl.col(relation).cast(pl.String).alias("relation")]
        for side, column in (("x", x), ("y", y)):
            text = pl.col(column).cast(pl.String)
            kind = text.str.extract(_SPLIT, 1)
            id_ = pl.coalesce(text.str.extract(_SPLIT, 2), text)
            given = text.is_not_null()
            fields += [
                pl.when(given).then(kind.fill_null(ENTITY)).alias(f"{side}_type"),
                id_.alias(f"{side}_id"),
                id_.alias(f"{side}_name"),
                pl.when(given).then(prefix_of(id_)).alias(f"{side}_source"),
            ]
        header = {"x_id": x, "relation": relation, "y_id": y}
        yield Table(
            path=edges.path,
            format=self.name + edges.separator_note,
            frame=all_columns(edges, frame, fields),
            first_row=1 if edges.is_parquet or not names else HEADER_ROWS + 1,
            header=header if names and not edges.is_parquet else {},
            header_words=(*_RELATIONS, *(word for ends in _ENDS for word in ends)),
            filled=("name", "source"),
        )


def _known_header(columns: tuple[str, ...]) -> tuple[str, str, str] | None:
    """Return the columns of (head, relation, tail) in a known header, in any order, or None."""
    relation = next((name for name in _RELATIONS if name in columns), None)
    for x, y in _ENDS:
        if relation is not None and x in columns and y in columns:
            return x, relation, y
    return None


def _looks_like_header(fields: tuple[str, ...]) -> bool:
    """Return True for names of columns, such as (id, name, kind) or (:START_ID, :END_ID, :TYPE)."""
    words = {field.strip().lower() for field in fields}
    parts = [{*re.split(r"[\W_]+", word)} - {""} for word in words]
    made_of_words = sum(bool(part) and part <= _HEADER_WORDS | _KINDS for part in parts)
    return bool(words & _HEADER_WORDS) or len(words & _KINDS) > 1 or made_of_words > 1
