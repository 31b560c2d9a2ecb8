"""Find the nodes with the most similar embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ..graph.identifiers import shown_identifier
from ..graph.knowledge_graph import IntArray, KnowledgeGraph
from ..graph.node_lookup import did_you_mean, find_node
from ..graph.synonyms import read_synonyms
from ..models.read_embeddings import check_embeddings, read_embeddings, read_embeddings_of
from ..ranking.evidence.stated_relations import stated_relations
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.log import part
from ..system.processes import alone, use_threads
from ._run.model_dir import GRAPH_FILE, check_embeddings_of, model_dir_of, read_model_graph

if TYPE_CHECKING:
    from ..ranking.evidence.explanations import Explainer

_BLOCK = 512  # rows whose cosines are computed at a time: 2 MiB at 512 dimensions stay in the cache
_NODE = ("node_name", "node_type", "node_id", "node_source")


@plain_arguments
@alone()
@part("Looking for similar nodes")
def similar_nodes(
    embeddings: str | Path,
    node: str,
    *,
    type: str | None = None,
    top: int = 10,
    explain: bool = False,
    model_dir: str | Path | None = None,
    synonyms: str | Path | None = None,
    add: str | Path | None = None,
) -> list[dict[str, Any]]:
    """List the nodes whose embeddings are most similar to the embedding of one node.

    Args:
        embeddings: file that `cdd embed` has written.
        node: the node, given by name or identifier in any spelling, such as MONDO:0005148.
        type: node type to list (default: the type of `node`).
        top: number of nodes to list.
        explain: add the neighbors in the graph that each listed node shares with `node`.
        model_dir: model directory with the graph of the embeddings (default: beside them).
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.
        add: file of facts in the columns of kg.csv. They join the graph for this question, with
            new drugs, diseases and other nodes, without a training.

    Returns:
        A list with one dict per node, the most similar node first. The keys are rank, cosine,
        node_name, node_type, node_id, node_source, node_index, contraindicated (true if the graph
        says so of a drug and a disease), stated (the relations between the two nodes in the graph,
        joined by "; ") and no_facts (true if the listed node does not have edges, so that its
        embedding says nothing). The last three are None if no graph lies beside the embeddings.
        With `explain`, each dict also has "stated_facts" and "evidence", see `Explainer.shared`.

    Raises:
        InputError: the file, node, type or graph does not exist; the node is ambiguous or does not
            have facts; the graph has other nodes than the embeddings; or the file of synonyms is
            invalid.

    Example:
        >>> from clinical_drug_discovery.lib.similar import similar_nodes
        >>> rows = similar_nodes("embeddings.parquet", "Warfarin", top=3)
        >>> [(row["rank"], row["node_type"]) for row in rows]
        [(1, 'drug'), (2, 'drug'), (3, 'drug')]
    """
    use_threads()
    embeddings = check_embeddings(embeddings)
    directory = model_dir_of(embeddings) if model_dir is None else Path(model_dir)
    needed = explain or add is not None or model_dir is not None
    if not needed and not (directory / GRAPH_FILE).exists():
        nodes, values = read_embeddings(embeddings)
        at = find_node(nodes, node, synonyms=read_synonyms(synonyms, nodes))
        unknown = dict.fromkeys(("contraindicated", "stated", "no_facts"))
        return [record | unknown for record in nearest(nodes, values, at, type=type, top=top)]
    graph, extended = read_model_graph(directory), None
    check_embeddings_of(embeddings, directory)
    if add is not None:
        from ._model.extended import extend_model  # imports torch, for the network
        from ._model.network import read_network

        extended = extend_model(graph, read_network(directory, graph), None, Path(add), "add")
    if extended is not None:
        graph, values, order = extended.graph, extended.embeddings.numpy(), None
    at = find_node(graph.nodes, node, synonyms=read_synonyms(synonyms, graph.nodes))
    if extended is None:
        types = {graph.nodes["node_type"][at], type or graph.nodes["node_type"][at]}
        values, order = _read_types(embeddings, types, graph, directory)
    explainer = _explainer(graph) if explain else None
    return similar_in(graph, values, at, node, order=order, type=type, top=top, explainer=explainer)


def _read_types(
    embeddings: Path, types: set[str], graph: KnowledgeGraph, directory: Path
) -> tuple[np.ndarray, IntArray]:
    """Read the embeddings of some node types.

    Returns:
        The embeddings, shape (n, D), and the row in them of each node of the graph; -1 for a node
        of another type.

    Raises:
        InputError: the file has other nodes than the graph.
    """
    nodes, rows, values = read_embeddings_of(embeddings, types)
    check_same_nodes(nodes, graph, embeddings, directory)
    place = np.full(nodes.height, -1)
    place[rows] = np.arange(len(rows))
    return values, place[rows_of(graph, nodes)]


def _explainer(graph: KnowledgeGraph) -> Explainer:
    from ..ranking.evidence.explanations import Explainer  # imports scipy's sparse matrices

    return Explainer(graph)


def similar_in(
    graph: KnowledgeGraph,
    values: np.ndarray,
    at: int,
    query: str,
    *,
    order: IntArray | None = None,
    type: str | None = None,
    top: int = 10,
    explainer: Explainer | None = None,
) -> list[dict[str, Any]]:
    """Return the records of `similar_nodes`.

    Args:
        graph: on the CPU.
        values: shape (N, D), embeddings.
        at: number of the node.
        query: the text that names the node, for the error message.
        order: shape (N,), the row in `values` of each node of the graph, which may be any number
            for nodes that are neither asked nor listed; None: the nodes are in order.
        type: see `similar_nodes`.
        top: see `similar_nodes`.
        explainer: adds the evidence; None: no evidence.

    Raises:
        InputError: the node does not have facts, or the graph does not have the type.
    """
    if not graph.degrees[at]:
        raise InputError(
            f"node (got {query!r}) does not have facts in the graph, so its embedding says nothing "
            "about it"
        )
    others, cosines = _nearest(graph.nodes, values, at, type, top, order)
    records = _stated(graph, at, others, _records(graph.nodes, others, cosines))
    if explainer is None:
        return records
    return [
        record | explainer.shared(at, int(other))
        for record, other in zip(records, others, strict=True)
    ]


def rows_of(graph: KnowledgeGraph, nodes: pl.DataFrame) -> IntArray:
    """Return the row in `nodes` of each node of the graph, which has the same nodes."""
    rows = np.empty(graph.num_nodes, np.int64)
    rows[graph.nodes["node_index"].arg_sort().to_numpy()] = (
        nodes["node_index"].arg_sort().to_numpy()
    )
    return rows


def check_same_nodes(
    nodes: pl.DataFrame, graph: KnowledgeGraph, embeddings: Path, directory: Path
) -> None:
    """Check that embeddings and graph have the same nodes, with the same ids, names and types.

    Raises:
        InputError: they differ; the message has the first difference.
    """
    columns = [pl.col("node_index").cast(pl.Int64), *(pl.col(c).cast(pl.String) for c in _NODE)]
    one, other = (
        table.select(columns).sort("node_index").with_columns(pl.col(_NODE).fill_null(""))
        for table in (nodes, graph.nodes)
    )
    if one.equals(other):
        return
    if len(one) != len(other):
        difference = f"they have {len(one):,} and {len(other):,} nodes"
    else:
        differs = pl.any_horizontal(pl.col(c) != other[c] for c in one.columns)
        first = one.with_row_index("row").filter(differs).row(0, named=True)
        texts = (
            f"node {row['node_index']} is {row['node_type']} {row['node_name']!r} "
            f"({shown_identifier(row['node_id'], row['node_source'], row['node_type'])})"
            for row in (first, other.row(first["row"], named=True))
        )
        difference = " and ".join(texts)
    raise InputError(
        f"embeddings (got {embeddings}) and the graph in {directory} belong to different runs: "
        f"{difference}; model_dir must be the directory that was written with the embeddings"
    )


def _stated(
    graph: KnowledgeGraph, asked: int, others: np.ndarray, found: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the records, extended by what the graph says about the asked and each listed node."""
    words, types = graph.vocabulary, graph.nodes["node_type"]
    stated = stated_relations(graph, np.full(len(others), asked), others)
    facts = (graph.degrees[others] > 0).tolist()
    return [
        record
        | {
            "contraindicated": {types[asked], record["node_type"]}
            == {words.drug_type, words.disease_type}
            and not set(words.contraindicates).isdisjoint(relations),
            "stated": "; ".join(relations),
            "no_facts": not has_facts,
        }
        for record, relations, has_facts in zip(found, stated, facts, strict=True)
    ]


def nearest(
    nodes: pl.DataFrame, values: np.ndarray, at: int, *, type: str | None = None, top: int = 10
) -> list[dict[str, Any]]:
    """Return the nodes of one type that are most similar to the node in row `at`.

    `values` has the embeddings, shape (N, D). The default of `type` is the type of the node in row
    `at`. The result is described in `similar_nodes`.

    Raises:
        InputError: `nodes` does not contain this type.
    """
    return _records(nodes, *_nearest(nodes, values, at, type, top))


def _nearest(
    nodes: pl.DataFrame,
    values: np.ndarray,
    at: int,
    type: str | None,
    top: int,
    order: IntArray | None = None,
) -> tuple[IntArray, np.ndarray]:
    """Return the rows of the most similar nodes, and their cosines; see `similar_in`."""
    wanted = type if type is not None else nodes["node_type"][at]
    if wanted not in nodes["node_type"]:
        types = nodes["node_type"].unique().sort().to_list()
        raise InputError(
            f"type (got {wanted!r}) must be one of {', '.join(types)}{did_you_mean(wanted, types)}"
        )
    rows = np.flatnonzero((nodes["node_type"] == wanted).to_numpy())
    rows = rows[rows != at]
    cosine = (
        cosines(values, rows, values[at])
        if order is None
        else cosines(values, order[rows], values[order[at]])
    )
    best = np.argsort(-cosine, kind="stable")[:top]
    return rows[best], cosine[best]


def _records(nodes: pl.DataFrame, rows: IntArray, cosines: np.ndarray) -> list[dict[str, Any]]:
    found = nodes[rows].select("node_name", "node_type", "node_id", "node_source", "node_index")
    return [
        {"rank": rank, "cosine": round(float(score), 6), **record}
        for rank, (score, record) in enumerate(zip(cosines, found.to_dicts(), strict=True), start=1)
    ]


def cosines(values: np.ndarray, rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the cosine of some rows with a vector; 0 for vectors of zeros.

    Squares of numbers such as 3e38 are infinite in float32, so the sums are in float64, a block of
    rows at a time.
    """
    vector = asked.astype(np.float64)
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = values[rows[start : start + _BLOCK]].astype(np.float64)
        norms = np.linalg.norm(block, axis=1) * np.linalg.norm(vector)
        cosines[start : start + _BLOCK] = block @ vector / np.where(norms > 0, norms, 1)
    return cosines
