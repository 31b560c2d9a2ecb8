"""The map of `cdd map`: a file with a picture of the nodes, to click through or to print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl

from ...api.optional import optional_package
from ...graph.knowledge_graph import KnowledgeGraph
from ...lib._run.model_dir import (
    GRAPH_FILE,
    check_embeddings_of,
    check_targets,
    model_dir_of,
    read_model_graph,
)
from ...lib.similar import check_same_nodes, rows_of
from ...models.read_embeddings import Values, check_embeddings, read_embeddings
from ...system import disk
from ...system.arguments import plain_arguments
from ...system.errors import InputError
from ...system.files import atomic_path, check_name, check_new, check_writable
from ...system.log import milestone
from ...system.processes import use_threads
from ..plot.inline_svg import file_bytes
from ..plot.points import GROUP_STYLES, draw_points
from ..plot.style import GRAY
from .coordinates import import_umap
from .node_map import MapChoice, NodeMap, make_map
from .page import map_page

_PACKAGES = {".html": "plotly", ".png": "matplotlib", ".svg": "matplotlib"}


@plain_arguments
def draw_map(
    embeddings: str | Path,
    output: str | Path,
    *,
    type: str = "drug",
    color_by: str = "cluster",
    method: str = "umap",
    features: str | Path | None = None,
    feature: str | None = None,
    model_dir: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw a map of nodes: near points have similar embeddings, colors say what they are.

    Args:
        embeddings: file that `cdd embed` has written.
        output: the map. .html is interactive and needs no network; .png and .svg are for print.
        type: node type to draw; all for all nodes.
        color_by: class, area (of disease), degree, cluster or type.
        method: umap or pca.
        features: table of classes for color_by class: .csv or .tsv with the column node_index or
            node_id, such as drug_features.csv of PrimeKG (default: the classes in the graph).
        feature: column of classes in features (default: the first of class, atc_1, atc, atc_code
            and category).
        model_dir: model directory with the graph of the embeddings (default: beside them).
        seed: seed of UMAP and of the clusters. The same seed gives the same file.
        overwrite: replace an earlier file.

    Returns:
        A dict: output, num_nodes, num_without_facts (left out), color_by, groups (name and number
        of nodes, the largest first), bytes (of the file) and seconds.

    Raises:
        InputError: a file, type or package is missing, or the colors need an input that is missing;
            the message names it. Nothing has been written then.

    Example:
        >>> from clinical_drug_discovery.show.map.draw_map import draw_map
        >>> result = draw_map("embeddings.parquet", "map.png", method="pca")
        >>> result["num_nodes"], result["color_by"]
        (195, 'cluster')
    """
    use_threads()
    embeddings = check_embeddings(embeddings)
    start, path = perf_counter(), Path(output)
    write = _writer(path, method)
    sources = {"embeddings": embeddings, "features": features}
    inputs = {f"the input {p}": Path(p) for p in sources.values() if p is not None}
    directory = model_dir_of(embeddings) if model_dir is None else Path(model_dir)
    check_name("output", path)
    check_writable("output", path.parent, path)
    check_targets(inputs, [path], directory)
    check_new([path], overwrite)
    graph, nodes, values = _read(Path(embeddings), directory, required=model_dir is not None)
    features_path = None if features is None else Path(features)
    choice = MapChoice(type, color_by, method, features_path, feature, seed)
    node_map = make_map(graph, nodes, values, choice)
    content = write(node_map)
    with atomic_path(path) as temporary, disk.create(temporary) as file:
        file.write(content)
    milestone(f"Wrote {path}")
    return {
        "output": str(path),
        "num_nodes": node_map.nodes.height,
        "num_without_facts": node_map.num_without_facts,
        "color_by": color_by,
        "groups": {name: len(places) for name, places in node_map.coloring.legend()},
        "bytes": len(content),
        "seconds": perf_counter() - start,
    }


def _writer(path: Path, method: str) -> Callable[[NodeMap], bytes]:
    """Return the function that makes the file, after a check that its packages are there.

    Raises:
        InputError: the suffix is unknown, or a package is missing.
    """
    writers = {".html": _page, ".png": _print_png, ".svg": _print_svg}
    suffix = path.suffix.lower()
    if suffix not in writers:
        raise InputError(f"output (got {path}) must end in one of {', '.join(writers)}")
    try:
        optional_package(_PACKAGES[suffix])
        if method == "umap":
            import_umap()
    except ImportError as error:
        raise InputError(f"output (got {path}), method {method!r}: {error}") from error
    return writers[suffix]


def _page(node_map: NodeMap) -> bytes:
    return map_page(node_map, GROUP_STYLES, GRAY).encode()


def _print_png(node_map: NodeMap) -> bytes:
    return file_bytes(draw_points(node_map), "png")


def _print_svg(node_map: NodeMap) -> bytes:
    return file_bytes(draw_points(node_map), "svg")


def _read(
    embeddings: Path, directory: Path, *, required: bool
) -> tuple[KnowledgeGraph | None, pl.DataFrame, Values]:
    """Read embeddings and, if it is there, their graph; return nodes and values in its order."""
    nodes, values = read_embeddings(embeddings)
    if not required and not (directory / GRAPH_FILE).exists():
        return None, nodes, values
    graph = read_model_graph(directory)
    check_same_nodes(nodes, graph, embeddings, directory)
    check_embeddings_of(embeddings, directory)
    return graph, graph.nodes, values[rows_of(graph, nodes)]
