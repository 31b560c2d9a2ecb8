"""One small graph in the real layout of each format, written by the tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
from graphs import Fact, Node, to_rows

Paths = tuple[Path, Path | None]  #: the edges file, and the table of nodes or None


def compound(number: int) -> Node:
    return Node("DRUGBANK", "Compound", f"DRUGBANK:DB{number:05}", f"compound {number}, (pure)")


def disease(number: int) -> Node:
    return Node("DOID", "Disease", f"DOID:{number}", f"disease {number}")


def gene(number: int) -> Node:
    return Node("NCBIGene", "Gene", f"NCBIGene:{number}", f"GEN{number}")


#: Ids are CURIEs, whose prefix is the source of the node, so that every layout can express them.
FACTS: list[Fact] = [
    (compound(1), "treats", disease(1)),
    (compound(1), "binds", gene(1)),
    (compound(2), "treats", disease(2)),
    (compound(2), "binds", gene(2)),
    (compound(3), "treats", disease(1)),
    (compound(3), "resembles", compound(1)),
    (disease(1), "associates", gene(1)),
    (disease(2), "associates", gene(2)),
    (disease(2), "associates", gene(1)),
    (gene(1), "interacts", gene(2)),
]


def nodes_of(facts: Sequence[Fact]) -> list[Node]:
    return list(dict.fromkeys(end for x, _, y in facts for end in (x, y)))


def lines(path: Path, rows: Sequence[Sequence[object]], separator: str) -> Path:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), "utf-8")
    return path


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A CSV file, quoted as in RFC 4180."""
    data = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    pl.DataFrame(data, strict=False).write_csv(path)
    return path


def primekg(folder: Path, facts: Sequence[Fact]) -> Paths:
    to_rows(facts).write_csv(folder / "kg.csv")
    return folder / "kg.csv", None


def primekg_without_numbers(folder: Path, facts: Sequence[Fact]) -> Paths:
    to_rows(facts, numbered=False).write_csv(folder / "kg.csv")
    return folder / "kg.csv", None


def primekg_tables(folder: Path, facts: Sequence[Fact]) -> Paths:
    number = {node: 3 * i for i, node in enumerate(nodes_of(facts))}
    edges = [(r, r, number[x], number[y]) for x, r, y in facts]
    rows = [(i, n.id, n.type, n.name, n.source) for n, i in number.items()]
    header = ("node_index", "node_id", "node_type", "node_name", "node_source")
    return (
        table(folder / "edges.csv", ("relation", "display_relation", "x_index", "y_index"), edges),
        table(folder / "nodes.csv", header, rows),
    )


def txgnn(folder: Path, facts: Sequence[Fact]) -> Paths:
    """Node numbers start again from 0 in each node type, as floats."""
    number: dict[Node, float] = {}
    for node in nodes_of(facts):
        number[node] = float(sum(other.type == node.type for other in number))
    rows = [(x.type, x.id, r, y.type, y.id, number[x], number[y]) for x, r, y in facts]
    header = ("x_type", "x_id", "relation", "y_type", "y_id", "x_idx", "y_idx")
    return table(folder / "kg_directed.csv", header, rows), None


def optimuskg(folder: Path, facts: Sequence[Fact]) -> Paths:
    """Names are in a JSON text; a gene has its full name as "name" and its symbol as "symbol"."""

    def properties(node: Node) -> str:
        name = (
            {"symbol": node.name, "name": "a long name"}
            if node.type == "Gene"
            else {"name": node.name}
        )
        return json.dumps({"sources": {"direct": ["X"]}, **name})

    pl.DataFrame(
        {
            "id": [n.id for n in nodes_of(facts)],
            "label": [n.type for n in nodes_of(facts)],
            "properties": [properties(n) for n in nodes_of(facts)],
        }
    ).write_parquet(folder / "nodes.parquet")
    pl.DataFrame(
        {
            "from": [x.id for x, _, _ in facts],
            "to": [y.id for *_, y in facts],
            "label": [f"{x.type}-{y.type}" for x, _, y in facts],
            "relation": [relation for _, relation, _ in facts],
            "undirected": [True for _ in facts],
            "properties": ["{}" for _ in facts],
        }
    ).write_parquet(folder / "edges.parquet")
    return folder / "edges.parquet", folder / "nodes.parquet"


def hetionet_tables(folder: Path, facts: Sequence[Fact]) -> Paths:
    def key(node: Node) -> str:
        return f"{node.type}::{node.id}"

    edges = [("source", "metaedge", "target"), *((key(x), r, key(y)) for x, r, y in facts)]
    text = "".join("\t".join(row) + "\n" for row in edges)
    path = folder / "hetionet-v1.0-edges.sif.gz"
    path.write_bytes(gzip.compress(text.encode()))
    rows = [("id", "name", "kind"), *((key(n), n.name, n.type) for n in nodes_of(facts))]
    return path, lines(folder / "hetionet-v1.0-nodes.tsv", rows, "\t")


def hetionet_json(folder: Path, facts: Sequence[Fact]) -> Paths:
    """Identifiers that are numbers are written as numbers, so a gene's id is an integer."""

    def identifier(node: Node) -> str | int:
        return int(node.id) if node.id.isdecimal() else node.id

    record = {
        "metanode_kinds": sorted({n.type for n in nodes_of(facts)}),
        "metaedge_tuples": sorted({(x.type, y.type, r, "both") for x, r, y in facts}),
        "kind_to_abbrev": {"Compound": "C", "treats": "t"},
        "nodes": [
            {"kind": n.type, "identifier": identifier(n), "name": n.name, "data": {"url": "u"}}
            for n in nodes_of(facts)
        ],
        "edges": [
            {
                "source_id": [x.type, identifier(x)],
                "target_id": [y.type, identifier(y)],
                "kind": relation,
                "direction": "both",
                "data": {"sources": ["a"], "unbiased": False},
            }
            for x, relation, y in facts
        ],
    }
    path = folder / "hetionet-v1.0.json"
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return path, None


def kgx(folder: Path, facts: Sequence[Fact]) -> Paths:
    header = ("id", "subject", "predicate", "object", "category", "relation", "knowledge_source")
    edges = [
        (f"urn:uuid:{i}", x.id, r, y.id, "biolink:Association", "RO:1", "infores:x")
        for i, (x, r, y) in enumerate(facts)
    ]
    rows = [(n.id, f"NamedThing|{n.type}", n.name, "infores:x") for n in nodes_of(facts)]
    return (
        lines(folder / "small_edges.tsv", [header, *edges], "\t"),
        lines(folder / "small_nodes.tsv", [("id", "category", "name", "provided_by"), *rows], "\t"),
    )


def drkg(folder: Path, facts: Sequence[Fact]) -> Paths:
    rows = [(f"{x.type}::{x.id}", r, f"{y.type}::{y.id}") for x, r, y in facts]
    return lines(folder / "drkg.tsv", rows, "\t"), None


def triples(folder: Path, facts: Sequence[Fact]) -> Paths:
    rows = [(x.id, r, y.id) for x, r, y in facts]
    return lines(folder / "triples.csv", [("head", "relation", "tail"), *rows], ","), None


def neo4j_admin(folder: Path, facts: Sequence[Fact]) -> Paths:
    edges = [(x.id, y.id, r, 0.5) for x, r, y in facts]
    rows = [(n.id, n.name, 7, f"Entity;{n.type}") for n in nodes_of(facts)]
    return (
        table(folder / "rels.csv", (":START_ID", ":END_ID", ":TYPE", "weight:float"), edges),
        table(folder / "nodes.csv", ("id:ID", "name:string", "size:int", ":LABEL"), rows),
    )


def apoc(folder: Path, facts: Sequence[Fact]) -> Paths:
    """Nodes and relationships in one file; `identifier` is a property of the nodes."""
    number = {node: i for i, node in enumerate(nodes_of(facts))}
    header = ("_id", "_labels", "identifier", "name", "_start", "_end", "_type", "weight")
    rows: list[tuple[object, ...]] = [
        (i, f":{n.type}", n.id, n.name, None, None, None, None) for n, i in number.items()
    ]
    rows += [(None, None, None, None, number[x], number[y], r, 1) for x, r, y in facts]
    text = pl.DataFrame(
        {
            name: [None if row[i] is None else str(row[i]) for row in rows]
            for i, name in enumerate(header)
        }
    ).write_csv(quote_style="non_numeric")
    (folder / "all.csv").write_text(text)
    return folder / "all.csv", None


#: Every layout, under the name that the log gives to its format.
LAYOUTS: dict[str, Callable[[Path, Sequence[Fact]], Paths]] = {
    "PrimeKG": primekg,
    "PrimeKG without numbers": primekg_without_numbers,
    "PrimeKG nodes and edges": primekg_tables,
    "TxGNN": txgnn,
    "OptimusKG": optimuskg,
    "Hetionet SIF": hetionet_tables,
    "Hetionet JSON": hetionet_json,
    "KGX": kgx,
    "DRKG": drkg,
    "triples": triples,
    "Neo4j import": neo4j_admin,
    "Neo4j APOC": apoc,
}
