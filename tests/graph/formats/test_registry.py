"""Each format gives the graph of its PrimeKG spelling; other files are refused with advice."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from graphs import Fact, Node, to_triples
from layouts import FACTS, LAYOUTS, Paths, primekg_without_numbers

from clinical_drug_discovery.graph.formats.head import read_head
from clinical_drug_discovery.graph.formats.registry import FORMATS
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.system.errors import InputError

#: TxGNN has only PrimeKG's node types, each with one source.
PRIMEKG = {
    "Compound": ("drug", "DrugBank"), "Disease": ("disease", "MONDO"),
    "Gene": ("gene/protein", "NCBI"),
}  # fmt: skip


def read(paths: Paths) -> KnowledgeGraph:
    return read_graph(Source.of(*paths))


def expressed(facts: Sequence[Fact], layout: str) -> list[Fact]:
    """The facts as far as a layout can express them."""

    def node(whole: Node) -> Node:
        if layout == "TxGNN":
            kind, source = PRIMEKG[whole.type]
            return Node(source, kind, whole.id, whole.id)
        if layout == "triples":
            whole = whole._replace(type="entity")
        return whole._replace(name=whole.id) if layout in {"DRKG", "triples"} else whole

    return [(node(x), relation, node(y)) for x, relation, y in facts]


def nodes_of(graph: KnowledgeGraph) -> set[tuple[str, ...]]:
    fields = ("node_source", "node_type", "node_id", "node_name")
    return set(graph.nodes.select(fields).rows())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_graph_of_its_primekg_spelling(tmp_path: Path, layout: str) -> None:
    rng = np.random.default_rng(3)
    facts = expressed([FACTS[i] for i in rng.permutation(len(FACTS))], layout)
    for name in ("kg", "layout"):
        (tmp_path / name).mkdir()
    reference = read(primekg_without_numbers(tmp_path / "kg", expressed(FACTS, layout)))
    graph = read(LAYOUTS[layout](tmp_path / "layout", facts))
    assert nodes_of(graph) == nodes_of(reference)
    assert to_triples(graph) == to_triples(reference)
    assert graph.edge_types == reference.edge_types
    assert graph.report.num_facts == len(FACTS)
    assert len(graph.report.formats) == 1
    assert len(graph.report.warnings) == (layout == "triples")  # all nodes have one type


def test_every_format_has_a_layout(tmp_path: Path) -> None:
    seen = set()
    for i, write in enumerate(LAYOUTS.values()):
        (tmp_path / str(i)).mkdir()
        seen |= {
            form.split(", separated")[0]
            for form in read(write(tmp_path / str(i), FACTS)).report.formats
        }
    assert seen == {form.name for form in FORMATS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_node_table_is_given_exactly_where_the_format_needs_one(
    tmp_path: Path, layout: str
) -> None:
    edges, nodes = LAYOUTS[layout](tmp_path, FACTS)
    if nodes is not None:
        with pytest.raises(InputError, match=rf"{edges.name} is .*second file.*--nodes"):
            read((edges, None))
        return
    (tmp_path / "more.csv").write_text("id,category\n1,2\n")
    with pytest.raises(InputError, match=r"nodes \(got .*more\.csv\) must be left out"):
        read((edges, tmp_path / "more.csv"))


@pytest.mark.parametrize(
    "layout", ["PrimeKG nodes and edges", "OptimusKG", "Hetionet SIF", "KGX", "Neo4j import"]
)
def test_a_folder_with_two_tables_is_a_graph(tmp_path: Path, layout: str) -> None:
    paths = LAYOUTS[layout](tmp_path, FACTS)
    (tmp_path / "README.md").write_text("about")
    assert to_triples(read((tmp_path, None))) == to_triples(read(paths))


def spoilt(path: Path, row: int) -> None:
    """Add a field to the end of a row of a text file."""
    content = path.read_bytes()
    packed = content.startswith(b"\x1f\x8b")
    lines = (gzip.decompress(content) if packed else content).splitlines(keepends=True)
    separator = max(b",\t", key=lambda mark: lines[0].count(mark))
    lines[row - 1] = lines[row - 1].rstrip(b"\n") + bytes([separator]) + b"more\n"
    path.write_bytes(gzip.compress(b"".join(lines)) if packed else b"".join(lines))


@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"OptimusKG", "Hetionet JSON"}))
def test_a_row_with_too_many_fields_is_refused(tmp_path: Path, layout: str) -> None:
    """An unquoted comma must not shift the fields, not even those that are not needed."""
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        facts = expressed(FACTS, layout)
        paths = LAYOUTS[layout](tmp_path / str(i), facts)
        path = paths[i]
        if path is None:
            return
        spoilt(path, 5)
        with pytest.raises(InputError, match=r"row \d+: \d+ fields") as error:
            read(paths)
        assert path.name in str(error.value)


REFUSED = {
    "N-Triples": '<http://x/a> <http://x/r> <http://x/b> .\n<http://x/a> <http://x/n> "A" .\n',
    "RDF Turtle": "@prefix x: <http://x/> .\nx:a x:r x:b .\n",
    "GML": "graph [\n  node [\n    id 0\n  ]\n]\n",
    "JSON that is not Hetionet's": '{"nodes": [{"id": "a"}], "edges": []}\n',
    "a JSON list": '[{"subject": "a"}]\n',
}


@pytest.mark.parametrize("name", REFUSED)
def test_known_formats_that_are_not_read_are_named_with_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / "kg.txt").write_text(REFUSED[name])
    with pytest.raises(InputError) as error:
        read((tmp_path / "kg.txt", None))
    for part in (
        "kg.txt",
        f"{name} is not read",
        "convert" if "GML" not in name else "export",
        "KGX",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "id,name,kind\nGene::1,A,Gene\nGene::2,B,Gene\n",  # a table of nodes has three columns
        "a b c\nb c d\n",
        "one,two\nx,y\n",
        "a\tr\tb\t0.5\nb\tr\tc\t0.7\n",
        "drug,disease\nx,y\n",
        "drug,disease,known\nx,y,1\n",
        "node_index,node_id,node_type\n0,1,a\n",
        "gene_id,disease_id,r\n1,2,3\n",
    ],
)
def test_an_unknown_format_is_refused_with_what_was_seen(tmp_path: Path, text: str) -> None:
    (tmp_path / "kg.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read((tmp_path / "kg.csv", None))
    assert "format is not known" in str(error.value)
    assert all(form.name in str(error.value) for form in FORMATS)
    assert text[0] in str(error.value).partition("first line has")[2].partition(";")[0]


@pytest.mark.parametrize(
    ("header", "formats"),
    [
        ("relation,x_id,x_type,y_id,y_type", ["PrimeKG kg.csv"]),
        ("relation,x_index,y_index", ["PrimeKG edges.csv and nodes.csv"]),
        ("x_type,x_id,relation,y_type,y_id,x_idx,y_idx", ["TxGNN kg_directed.csv"]),
        ("from,to,relation,label", ["OptimusKG"]),
        ("source\tmetaedge\ttarget", ["Hetionet edges and nodes"]),
        ("subject\tpredicate\tobject\tnegated", ["KGX"]),
        ("subject\tpredicate\tobject", ["KGX", "triples (DRKG, PyKEEN)"]),
        (":START_ID,:END_ID,:TYPE", ["Neo4j import CSV"]),
        ("_id,_labels,_start,_end,_type", ["Neo4j APOC CSV"]),
        ("head,relation,tail", ["triples (DRKG, PyKEEN)"]),
        ("node_index,node_id,node_type", []),
        ("head,relation,tail,head_type", []),
    ],
)
def test_a_header_is_of_one_format(tmp_path: Path, header: str, formats: list[str]) -> None:
    """Only with and without a table of nodes may a file be of two formats."""
    path = tmp_path / "kg.csv"
    path.write_text(header + "\n")
    head = read_head(path, path)
    assert [form.name for form in FORMATS if form.recognizes(head)] == formats
