"""Node embeddings of biomedical knowledge graphs on one ordinary computer.

The names of this package are imported when they are first used, because torch takes seconds:

    >>> import clinical_drug_discovery as cdd
    >>> graph = cdd.sample_graph()
    >>> graph
    <KnowledgeGraph: 820 nodes of 7 types, 5,462 edges of 15 relations>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.embeddings import Embeddings, to_anndata
    from .api.graphs import (
        graph_from_frames,
        graph_from_hetero_data,
        read_graph,
        sample_graph,
        to_frames,
        to_hetero_data,
        to_networkx,
    )
    from .api.loading import load_model
    from .api.model import Model
    from .graph.knowledge_graph import KnowledgeGraph
    from .lib.evaluate import EvaluationSettings, evaluate_model, evaluate_model_dir
    from .lib.gnn_embeddings import generate_gnn_embeddings
    from .lib.gnn_hgt import generate_hgt_embeddings
    from .show import plot
    from .show.explore.serve import Explorer, explore
    from .show.report.write import write_report
    from .system.errors import InputError

#: Each public name, and the module that has it.
_MODULES = {
    "Embeddings": "api.embeddings",
    "EvaluationSettings": "lib.evaluate",
    "Explorer": "show.explore.serve",
    "InputError": "system.errors",
    "KnowledgeGraph": "graph.knowledge_graph",
    "Model": "api.model",
    "evaluate_model": "lib.evaluate",
    "evaluate_model_dir": "lib.evaluate",
    "explore": "show.explore.serve",
    "generate_gnn_embeddings": "lib.gnn_embeddings",
    "generate_hgt_embeddings": "lib.gnn_hgt",
    "graph_from_frames": "api.graphs",
    "graph_from_hetero_data": "api.graphs",
    "load_model": "api.loading",
    "plot": "show.plot",  # the module itself
    "read_graph": "api.graphs",
    "sample_graph": "api.graphs",
    "to_anndata": "api.embeddings",
    "to_frames": "api.graphs",
    "to_hetero_data": "api.graphs",
    "to_networkx": "api.graphs",
    "write_report": "show.report.write",
}
__all__ = [
    "Embeddings",
    "EvaluationSettings",
    "Explorer",
    "InputError",
    "KnowledgeGraph",
    "Model",
    "evaluate_model",
    "evaluate_model_dir",
    "explore",
    "generate_gnn_embeddings",
    "generate_hgt_embeddings",
    "graph_from_frames",
    "graph_from_hetero_data",
    "load_model",
    "plot",
    "read_graph",
    "sample_graph",
    "to_anndata",
    "to_frames",
    "to_hetero_data",
    "to_networkx",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("clinical-drug-discovery")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_MODULES[name]}", __name__)
    found = globals()[name] = module if name == "plot" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    own = [name for name in globals() if name.startswith("__")]
    return sorted({*own, *__all__, "__version__"})
