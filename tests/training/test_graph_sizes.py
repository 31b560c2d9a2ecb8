"""The sizes of a graph are those that training meets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import node, read_facts

from clinical_drug_discovery.graph.adjacency import sparse_links
from clinical_drug_discovery.models.initialisation import LINKED
from clinical_drug_discovery.training.graph_sizes import GraphSizes


@pytest.mark.parametrize("linked", [0, 4, 5, 10])
def test_a_hierarchy_links_half_of_the_nodes_of_its_type(tmp_path: Path, linked: int) -> None:
    genes = [node("gene/protein", number) for number in range(10)]
    facts = [(gene, "drug_protein", node("drug", 1)) for gene in genes]
    facts += [(genes[i], "protein_protein", genes[i - 1]) for i in range(1, linked)]
    graph = read_facts(tmp_path, facts)
    sizes = GraphSizes.of(graph)
    found = sparse_links(graph, "gene/protein", LINKED)
    assert sizes.largest_hierarchy == (0 if found is None else 10) == (10 if linked >= 5 else 0)
    assert replace(sizes, degrees=None).largest_hierarchy == (10 if linked else 0)
    assert sizes.num_edges == 2 * len(facts)
    assert np.sum([degree.sum() for degree in (sizes.degrees or {}).values()]) == sizes.num_edges
