"""The color of each node of a map: a class, an area, a cluster, its type or its degree."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ...graph.adjacency import adjacency
from ...graph.knowledge_graph import KnowledgeGraph, node_range_of
from ...system.errors import InputError, counted
from ...system.log import part
from .areas import disease_areas, drug_areas
from .coordinates import directions
from .features import read_classes

CLASS, AREA, DEGREE, CLUSTER, TYPE = COLORS = ("class", "area", "degree", "cluster", "type")
MOST_GROUPS = 18  #: groups that get a color; the others share one
OTHER = "other"
_NUM_CLUSTERS = 12
#: Node types that are classes of drugs, in small letters and with blanks.
_CLASS_TYPES = ("pharmacologic class", "drug class", "chemical class", "atc")


@dataclass(frozen=True)
class Coloring:
    """The colors of the N nodes of a map: either a group or a number for each node."""

    title: str  #: of the legend
    groups: tuple[str | None, ...] | None  #: N names; None for a node without a group
    numbers: npt.NDArray[np.float64] | None  #: N numbers
    unknown: str = "unknown"  #: what a node without a group is

    def legend(self) -> list[tuple[str, list[int]]]:
        """Return each group with the places of its nodes, the most frequent group first.

        Groups beyond `MOST_GROUPS` are joined as "other". They and the nodes without a group come
        last, because they are drawn in gray.
        """
        if self.groups is None:
            return []
        places: dict[str | None, list[int]] = {}
        for at, group in enumerate(self.groups):
            places.setdefault(group, []).append(at)
        counts = Counter({group: len(at) for group, at in places.items() if group is not None})
        ranked = sorted(counts, key=lambda group: (-counts[group], group))
        found = [(group, places[group]) for group in ranked[:MOST_GROUPS]]
        if rest := ranked[MOST_GROUPS:]:
            together = sorted(at for group in rest for at in places[group])
            found.append((f"{OTHER} ({counted(len(rest), 'group')})", together))
        if None in places:
            found.append((self.unknown, places[None]))
        return found


def color_nodes(
    graph: KnowledgeGraph | None,
    rows: npt.NDArray[np.int64],
    nodes: pl.DataFrame,
    values: npt.NDArray[np.float32],
    color_by: str,
    features: Path | None,
    feature: str | None,
    seed: int,
) -> Coloring:
    """Return the color of each node of a map.

    Args:
        graph: of the nodes, on the CPU; None if it is missing, which only some colors allow.
        rows: shape (N,), numbers of the nodes in the graph.
        nodes: table of the N nodes.
        values: shape (N, D), their embeddings.
        color_by: one of `COLORS`.
        features: table of classes; None: classes come from the graph.
        feature: see `read_classes`.
        seed: of the clusters.

    Raises:
        InputError: an input that the colors need is missing, or does not fit.
    """
    if color_by == CLASS and features is not None:
        return Coloring("class", tuple(read_classes(features, feature, nodes)), None)
    if feature is not None and features is None:
        raise InputError(f"feature (got {feature!r}) needs features, a table of classes (got None)")
    if features is not None:
        raise InputError(f"features (got {features}) needs color_by 'class' (got {color_by!r})")
    if color_by == TYPE:
        return Coloring("type", tuple(nodes["node_type"]), None)
    if color_by == CLUSTER:
        return _clusters(nodes, values, seed)
    if graph is None:
        raise InputError(
            f"color_by (got {color_by!r}) needs the graph of the embeddings: model_dir must be "
            "their model directory, or features a table of classes"
        )
    if color_by == DEGREE:
        return Coloring("facts", None, graph.degree.numpy()[rows].astype(np.float64))
    return _of_graph(graph, rows, nodes, color_by)


def _of_graph(
    graph: KnowledgeGraph, rows: npt.NDArray[np.int64], nodes: pl.DataFrame, color_by: str
) -> Coloring:
    """Color nodes by class or by area, from the graph."""
    if color_by == CLASS:
        return Coloring("class", tuple(_linked_class(graph, rows)), None)
    words, types = graph.vocabulary, nodes["node_type"].unique().to_list()
    table = {words.disease_type: disease_areas, words.drug_type: drug_areas}
    if len(types) != 1 or types[0] not in table:
        raise InputError(
            f"color_by (got 'area') needs a map of {words.disease_type!r} or {words.drug_type!r}: "
            f"type (got {', '.join(sorted(types))})"
        )
    areas = table[types[0]](graph)
    first, _ = node_range_of(graph, types[0])
    title = "area" if types[0] == words.disease_type else "area of treated diseases"
    unknown = "no area" if types[0] == words.disease_type else "treats nothing in the graph"
    return Coloring(title, tuple(areas[row - first] for row in rows.tolist()), None, unknown)


def _linked_class(graph: KnowledgeGraph, rows: npt.NDArray[np.int64]) -> list[str | None]:
    """Return a class for each node: of the classes that it is linked to, the most frequent one."""
    names = graph.nodes["node_name"].to_list()
    kinds = [k for k in graph.edge_types if _is_class_type(k.dst_type)]
    if not kinds:
        raise InputError(
            "color_by (got 'class') needs classes: the graph does not have nodes of a type such as "
            "'pharmacologic_class' or 'drug class'; features names a table of classes"
        )
    linked: dict[int, set[str]] = defaultdict(set)
    for kind in kinds:
        start, end = (node_range_of(graph, name)[0] for name in (kind.src_type, kind.dst_type))
        sources, targets = adjacency(graph, kind).tocoo().coords
        for source, target in zip(
            (sources + start).tolist(), (targets + end).tolist(), strict=True
        ):
            linked[source].add(names[target])
    of_node = [linked.get(row, set()) for row in rows.tolist()]
    counts = Counter(name for some in of_node for name in some)
    if not counts:
        raise InputError(
            "color_by (got 'class') needs classes: no node of the map has one in the graph; "
            "features names a table of classes"
        )
    return [min(some, key=lambda n: (-counts[n], n)) if some else None for some in of_node]


def _is_class_type(node_type: str) -> bool:
    plain = node_type.lower().replace("_", " ").removeprefix("biolink:")
    return plain in _CLASS_TYPES


def _clusters(nodes: pl.DataFrame, values: npt.NDArray[np.float32], seed: int) -> Coloring:
    """Group nodes by k-means on the directions of the embeddings, not on the map.

    A cluster has the name of the node that is nearest to its middle.
    """
    from sklearn.cluster import KMeans

    rows = directions(values)
    number = max(2, min(_NUM_CLUSTERS, len(rows) // 5))
    with part(f"Looking for {number} clusters"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal embeddings may leave clusters empty
        model = KMeans(number, n_init=1, random_state=seed).fit(rows)
    nearest = model.transform(rows).argmin(axis=0).tolist()
    names = [f"around {nodes['node_name'][at]}" for at in nearest]
    return Coloring("cluster", tuple(names[label] for label in model.labels_.tolist()), None)
