"""Embeddings as a table of nodes and an array, and as AnnData."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from .optional import optional_package


class Embeddings(NamedTuple):
    """The embeddings of N nodes.

    Attributes:
        nodes: table of the nodes: node_index, node_id, node_type, node_name, node_source.
        values: array of shape (N, D), float32; row i is the embedding of row i of `nodes`.

    Example:
        >>> nodes, values = model.embeddings("drug")
        >>> nodes.height, values.shape
        (195, (195, 32))
    """

    nodes: pl.DataFrame
    values: npt.NDArray[np.float32]


def to_anndata(embeddings: Embeddings) -> Any:
    """Return embeddings as AnnData, for scanpy: neighbors, clusters and UMAP of one node type.

    Args:
        embeddings: of one node type or of several, see `Model.embeddings`.

    Returns:
        An `anndata.AnnData`: X has the embeddings, obs the table of the nodes with node_index as
        its index, as text.

    Raises:
        ImportError: the package anndata is not installed.

    Example:
        >>> adata = cdd.to_anndata(model.embeddings("drug"))
        >>> adata.X.shape, adata.obs["node_name"].iloc[0]
        ((195, 32), 'Abacavir')
    """
    anndata = optional_package("anndata")
    pandas = optional_package("pandas")
    nodes = embeddings.nodes
    columns = {name: nodes[name].to_list() for name in nodes.columns}
    index = [str(number) for number in columns.pop("node_index")]
    return anndata.AnnData(embeddings.values.copy(), obs=pandas.DataFrame(columns, index=index))
