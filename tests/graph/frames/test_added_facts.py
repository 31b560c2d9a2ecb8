"""Added facts: what was there stays, what is new ends its type, and contradictions are refused."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from graphs import Fact, assert_same_graph, to_rows, to_triples

from clinical_drug_discovery.graph.cache import content_sha256
from clinical_drug_discovery.graph.frames.added_facts import (
    ExtendedGraph,
    add_facts,
    described,
    read_facts,
)
from clinical_drug_discovery.graph.frames.tables import frames_of, graph_of_frames
from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.system.errors import InputError

COLUMNS = ["relation", "x_id", "x_type", "x_name", "y_id", "y_type", "y_name"]
NEW = [
    ("drug_protein", "new", "drug", "New drug", "0", "gene/protein", "GENE/PROTEIN  0"),
    ("disease_protein", "77", "disease", "New disease", "0", "gene/protein", "GENE/PROTEIN  0"),
    ("indication", "new", "drug", "New drug", "77", "disease", "New disease"),
]


def add(graph: KnowledgeGraph, *rows: tuple[str, ...]) -> ExtendedGraph:
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    facts = read_facts(table)
    assert facts is not None
    return add_facts(graph, facts, rows=table)


def test_facts_that_the_graph_has_change_nothing(graph: KnowledgeGraph, facts: list[Fact]) -> None:
    known = read_facts(to_rows(facts[:40], both=True))
    assert known is not None
    same = add_facts(graph, known)
    assert content_sha256(same.graph) == content_sha256(graph)
    assert (same.num_new_facts, same.new_nodes.height) == (0, 0)
    assert same.number.tolist() == list(range(graph.num_nodes))
    assert read_facts(pl.DataFrame(schema=COLUMNS)) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_new_nodes_end_their_type(graph: KnowledgeGraph, order: tuple[int, ...]) -> None:
    found = add(graph, *(NEW[i] for i in order))
    larger = found.graph
    assert larger.num_edges == graph.num_edges + 6
    assert (larger.edge_types, larger.vocabulary) == (graph.edge_types, graph.vocabulary)
    assert larger.nodes[found.number].equals(graph.nodes)
    assert found.new_nodes["node_id"].to_list() == ["77", "new"]
    for kind in ("disease", "drug"):
        of_type = larger.nodes.filter(pl.col("node_type") == kind)
        assert of_type["node_id"][-1] == {"disease": "77", "drug": "new"}[kind]
    added = to_triples(larger) - to_triples(graph)
    assert {one[1] for one in added} == {"drug_protein", "disease_protein", "indication"}
    assert described(found) == (
        "Added 3 new facts; new nodes: disease New disease (disease:77); drug New drug (drug:new)"
    )
    assert np.array_equal(add(graph, *NEW).graph.src.numpy(), larger.src.numpy())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_graph_is_the_one_that_is_built_of_all_facts(
    graph: KnowledgeGraph, share: float
) -> None:
    nodes, edges = frames_of(graph)
    rows = np.random.default_rng(0).permutation(edges.height)
    split = max(1, int(share * edges.height))
    start = graph_of_frames(edges[rows[split:]], nodes)  # it lacks nodes that have no other facts
    facts = graph_of_frames(edges[rows[: split + 9]], nodes)  # nine of these it has
    found = add_facts(start, facts)
    assert to_triples(found.graph) == to_triples(graph)
    assert (found.num_new_facts, found.graph.report.num_facts) == (split, graph.report.num_facts)
    nodes, edges = frames_of(found.graph)
    built = graph_of_frames(edges, nodes)
    assert_same_graph(found.graph, built)
    for name, array in found.graph.arrays._asdict().items():
        assert array.dtype == getattr(built.arrays, name).dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "drug_protien"}, r"relation \(got 'drug_protien'\) .* did you mean 'drug_protein'"),
        ({3: "drgu"}, r"x_type or y_type \(got 'drgu'\) must be one of .* did you mean 'drug'"),
        ({1: "indication"}, r"'indication'\) must be one of drug_protein between"),
        (
            {7: "gene 1"},
            r"an old node must have its name: gene/protein '0' is 'gene 1', row 1, but",
        ),
        ({5: "00"}, r"'00' of type 'gene/protein' is another spelling of NCBI:0 .*; write id"),
        ({2: None}, r"row 1: x_id is missing"),
    ],
)
def test_contradictions_are_refused(
    graph: KnowledgeGraph, change: dict[int, str], message: str
) -> None:
    row = [change.get(at, value) for at, value in enumerate(NEW[0], start=1)]
    with pytest.raises(InputError, match=f"^facts.*{message}"):
        add(graph, tuple(row))


@pytest.mark.parametrize("name", ["facts.csv", "facts.tsv", "facts.csv.gz", "facts.parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relation": "binds"}, r", row ROW: relation \(got 'binds'\) must be one of"),
        ({"x_type": "drgu"}, r", row ROW: x_type or y_type \(got 'drgu'\) must be one of"),
        ({"relation": "indication"}, r", row ROW: relation \(got 'indication'\) must be one of dr"),
        ({"y_id": "01"}, r", row ROW: the id '01' of type 'gene/protein' is another spelling"),
        ({"y_id": "4", "y_name": "x"}, r": an old .*: gene/protein '4' is 'x', row ROW, but in"),
    ],
)
def test_the_row_of_a_wrong_fact_is_named(
    graph: KnowledgeGraph, tmp_path: Path, name: str, change: dict[str, str], message: str
) -> None:
    wrong = {**dict(zip(COLUMNS, NEW[0], strict=True)), "x_id": "other", "x_name": "Other"} | change
    rows = pl.DataFrame(NEW[1:], schema=COLUMNS, orient="row").vstack(pl.DataFrame([wrong]))
    path, is_parquet = tmp_path / name, name.endswith("parquet")
    if is_parquet:
        rows.write_parquet(path)
    else:
        text = rows.write_csv(separator="\t" if name.endswith("tsv") else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    for source, row in ((rows, 3), (path, 3 if is_parquet else 4)):  # the header of a CSV is row 1
        facts = read_facts(source)
        assert facts is not None
        with pytest.raises(InputError, match=f"^mine{message.replace('ROW', str(row))}"):
            add_facts(graph, facts, "mine", source)


def test_options_that_only_the_reader_of_graphs_has_are_not_named(tmp_path: Path) -> None:
    rows = pl.DataFrame(NEW, schema=COLUMNS, orient="row")
    lacking = rows.with_columns(pl.lit("").alias("y_name"))
    conflicting = rows.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("x_name"))
    for table, message in ((lacking, "every row must have all"), (conflicting, "conflicting fie")):
        table.write_csv(tmp_path / "facts.csv")
        for source in (table, tmp_path / "facts.csv"):
            with pytest.raises(InputError, match=message) as refused:
                read_facts(source)
            assert "on_" not in str(refused.value)
            assert "--on" not in str(refused.value)


def test_an_ambiguous_id_asks_for_sources(graph: KnowledgeGraph) -> None:
    last = pl.int_range(pl.len()) == graph.num_nodes - 1  # a second gene 0, of another source
    ids = pl.when(last).then(pl.lit("0")).otherwise("node_id").alias("node_id")
    sources = pl.when(last).then(pl.lit("other")).otherwise("node_source").alias("node_source")
    twins = replace(graph, nodes=graph.nodes.with_columns(ids, sources))
    with pytest.raises(InputError, match=r"^facts, row 1: the id '0' .* ambiguous .* x_source"):
        add(twins, NEW[0])
