"""Load a model from its directory."""

from __future__ import annotations

from pathlib import Path

from ..graph.synonyms import read_synonyms
from ..lib._model.network import read_network
from ..lib._run.ranked_list import shared_parts
from ..lib._run.saved_model import SavedModel
from ..system.arguments import plain_arguments
from ..system.errors import InputError
from ..system.log import part
from ..system.processes import alone, use_threads
from .model import Model


@plain_arguments
@alone()
@part("Loading the model")
def load_model(
    model_dir: str | Path,
    *,
    embeddings: str | Path | None = None,
    synonyms: str | Path | None = None,
) -> Model:
    """Load a model that `cdd embed` or one of the `generate_...` functions has written.

    Args:
        model_dir: model directory.
        embeddings: file with the embeddings of the model (default: the file that the run wrote,
            beside the model directory). If this file is gone, the network computes them again.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.

    Returns:
        The model. It is loaded once and may be asked often.

    Raises:
        InputError: a file is missing or damaged, or the files do not belong together.

    Example:
        >>> model = cdd.load_model(model_dir)
        >>> model
        <Model: graphsage on 820 nodes, 32 dimensions, with a drug ranker>
    """
    use_threads()
    directory = Path(model_dir)
    if not directory.is_dir() and not directory.with_name(f"{directory.name}.run").is_dir():
        raise InputError(f"model_dir (got {model_dir}) must be a directory")
    saved = SavedModel.read(directory, embeddings)
    network = read_network(directory, saved.graph)
    values = network.embed(saved.graph) if saved.embeddings is None else saved.embeddings
    names = read_synonyms(synonyms, saved.graph.nodes)
    parts = saved.graph, network, values, saved.ranker, saved.model, directory
    shared = None if saved.ranker is None else shared_parts(saved.graph, saved.ranker, directory)
    return Model(*parts, synonyms=names, shared=shared)
