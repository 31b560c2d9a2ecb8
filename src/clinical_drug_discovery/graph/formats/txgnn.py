"""TxGNN's `kg_directed.csv`: PrimeKG's facts once each, without names and sources."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from .head import Head
from .node_table import all_columns, require
from .table import HEADER_ROWS, SKIP, NodeRules, Table

_COLUMNS = ("relation", "x_type", "x_id", "y_type", "y_id")
#: The source of each node type in PrimeKG, from which TxGNN makes its file.
_SOURCES = {
    "drug": "DrugBank", "gene/protein": "NCBI", "disease": "MONDO", "effect/phenotype": "HPO",
    "anatomy": "UBERON", "biological_process": "GO", "molecular_function": "GO",
    "cellular_component": "GO", "exposure": "CTD", "pathway": "REACTOME",
}  # fmt: skip


class TxGNN:
    """Columns x_type, x_id, relation, y_type, y_id, x_idx, y_idx.

    TxGNN turns an id that is a number into a float ("9796.0"); the reader undoes this. x_idx and
    y_idx start from 0 in each node type, so they do not number the nodes and are not used. The
    splits that TxGNN writes (train.csv) have each fact also as "rev_<relation>"; the reader takes
    that for the reverse direction of the same fact. Names are the ids, and sources are PrimeKG's.
    """

    name = "TxGNN kg_directed.csv"
    has_nodes = False

    def recognizes(self, head: Head) -> bool:
        """Return True if the header has x_idx and y_idx beside the ids."""
        return {"x_id", "y_id", "x_idx", "y_idx"} <= {*head.columns}

    def tables(self, edges: Head, nodes: Head | None, rules: NodeRules) -> Iterator[Table]:
        """Return the table of the file; see `Format.tables`."""
        require(edges, _COLUMNS)
        fields = [
            edges.is_blank.alias(SKIP),
            pl.col("relation").cast(pl.String).str.strip_prefix("rev_"),
        ]
        for side in "xy":
            kind = pl.col(f"{side}_type").cast(pl.String)
            number = pl.col(f"{side}_id").cast(pl.String).str.replace(r"^([0-9]+)\.0$", "$1")
            source = kind.replace_strict(_SOURCES, default="", return_dtype=pl.String)
            grouped = (kind == "disease") & number.str.contains("_", literal=True)
            blank = number.is_null() & kind.is_null()
            fields += [
                kind.alias(f"{side}_type"),
                number.alias(f"{side}_id"),
                number.alias(f"{side}_name"),
                pl.when(~blank)
                .then(pl.when(grouped).then(pl.lit("MONDO_grouped")).otherwise(source))
                .alias(f"{side}_source"),
            ]
        yield Table(
            path=edges.path,
            format=self.name + edges.separator_note,
            frame=all_columns(edges, edges.scan(), fields),
            first_row=1 if edges.is_parquet else HEADER_ROWS + 1,
            header={} if edges.is_parquet else {name: name for name in _COLUMNS},
            header_words=edges.columns,
            filled=("name", "source"),
        )
