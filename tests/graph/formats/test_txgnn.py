"""TxGNN writes ids as floats and relations in both directions; both are undone."""

from __future__ import annotations

from pathlib import Path

from clinical_drug_discovery.graph.read import read_graph

HEADER = "x_type,x_id,relation,y_type,y_id,x_idx,y_idx\n"


def test_ids_and_sources_are_those_of_primekg(tmp_path: Path) -> None:
    rows = (
        "drug,DB00100,indication,disease,5180.0,0.0,0.0\n"
        "disease,13924_12592_14672,rev_contraindication,drug,DB00100,1.0,0.0\n"
        "drug,DB00100,contraindication,disease,13924_12592_14672,0.0,1.0\n"
        "gene/protein,5180.0,disease_protein,disease,5180.0,0.0,0.0\n"
        "organ,7.5,r,drug,DB00100,0.0,0.0\n"
    )
    (tmp_path / "kg_directed.csv").write_text(HEADER + rows)
    graph = read_graph(tmp_path / "kg_directed.csv")
    assert set(graph.nodes.select("node_source", "node_type", "node_id", "node_name").rows()) == {
        ("DrugBank", "drug", "DB00100", "DB00100"),
        ("MONDO", "disease", "5180", "5180"),
        ("MONDO_grouped", "disease", "13924_12592_14672", "13924_12592_14672"),
        ("NCBI", "gene/protein", "5180", "5180"),
        ("", "organ", "7.5", "7.5"),
    }
    assert graph.relations == ("contraindication", "disease_protein", "indication", "r")
    assert graph.report.num_mirrored_facts == 1
