"""Hetionet's JSON is parsed in blocks of any size; damage is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from graphs import to_triples
from layouts import FACTS, compound, gene, hetionet_json, hetionet_tables

from clinical_drug_discovery.graph.formats import hetionet
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_the_graph_does_not_depend_on_the_size_of_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    path, _ = hetionet_json(tmp_path, FACTS)
    reference = to_triples(read_graph(path))
    record = json.loads(path.read_text())
    turned = {name: record[name] for name in reversed(record)} | {"version": 1.0, "a": None}
    path.write_text(json.dumps(turned))  # edges before nodes, all in one line
    monkeypatch.setattr(hetionet, "_BLOCK", block)
    assert to_triples(read_graph(path)) == reference
    packed = tmp_path / "kg.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert to_triples(read_graph(packed)) == reference


def test_identifiers_that_are_numbers_are_text(tmp_path: Path) -> None:
    numbered = gene(1)._replace(id="9021", source="")
    path, _ = hetionet_json(tmp_path, [(compound(1), "binds", numbered)])
    assert '"identifier": 9021' in path.read_text()
    graph = read_graph(path)
    assert ("9021", "Gene", "GEN1", "") in graph.nodes.select(
        "node_id", "node_type", "node_name", "node_source"
    ).rows()
    (tmp_path / "tables").mkdir()
    tables = read_graph(
        Source.of(*hetionet_tables(tmp_path / "tables", [(compound(1), "binds", numbered)]))
    )
    assert tables.nodes.equals(graph.nodes)


def damaged(text: str) -> dict[str, tuple[str, str]]:
    record = json.loads(text)
    stranger = {
        **record,
        "edges": [*record["edges"], {**record["edges"][0], "target_id": ["Gene", 5]}],
    }
    nameless = {**record, "edges": [{**record["edges"][0], "kind": None}, *record["edges"]]}
    twice = {**record, "nodes": [*record["nodes"], {**record["nodes"][0], "name": "other"}]}
    return {
        "cut in an edge": (text[:-90], "ends too early"),
        "cut before the end": (text.rstrip()[:-1], "ends too early"),
        "two objects": (text + text, "text follows the end"),
        "no nodes": (json.dumps({**record, "nodes": None}), "'\\[' must follow"),
        "no list of nodes": (
            json.dumps({name: record[name] for name in record if name != "nodes"}),
            "lacks nodes",
        ),
        "a comma is missing": (text.replace('"both",', '"both"', 1), "not valid JSON"),
        "an edge to no node": (json.dumps(stranger), "row 11.*not in the list of nodes"),
        "an edge without a kind": (json.dumps(nameless), "row 1.*relation"),
        "a node with two names": (json.dumps(twice), r"1 node in rows that differ.*--on-conflict"),
        "a name twice": (
            text.replace('"kind": "treats"', '"kind": "binds", "kind": "treats"', 1),
            "has 'kind' more than once",
        ),
        "a list of texts": (json.dumps({**record, "edges": ["a"]}), "must hold JSON objects"),
    }


@pytest.mark.parametrize("name", damaged(json.dumps({"edges": [{}], "nodes": [{}]})))
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    path, _ = hetionet_json(tmp_path, FACTS)
    text, message = damaged(path.read_text())[name]
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_graph(path)
    assert path.name in str(error.value)
