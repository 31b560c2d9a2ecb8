"""The trial of `cdd doctor --try`: does a GPU compute what the CPU computes?

Both models are trained on the sample graph for two epochs and then embed all its nodes, once on the
GPU and once on the CPU. On a graph of this size both devices use torch's own operations in float32,
so losses, weights and embeddings may differ by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...graph.knowledge_graph import KnowledgeGraph
from ...graph.read import read_graph
from ...models.inference import LayeredModel, embed_all
from ...system.devices import device_name, record_passed_trial
from ...system.machine import PeakMemory, one_thread
from ...system.progress import Run
from ...training.memory_plan import GraphSizes, plan_for
from ...training.settings import FULL, SAMPLED, HgtSettings, Settings
from ...training.train import train_hgt, train_sage

#: Largest relative difference between the results of the two devices. Between float32 and float64
#: it is below 1e-4 here.
TOLERANCE = 1e-3
_NUM_EPOCHS = 2
# With the default of 0.001, a weight that is not updated at all would stay within the tolerance.
_LEARNING_RATE = 0.01
_CHUNK_SIZE = 300  # nodes embedded at a time, so that inference takes several chunks


def try_device(device: str, defaults: Sequence[Settings]) -> dict[str, Any]:
    """Try a GPU and, if it passes, record that for this machine.

    Args:
        device: "cuda" or "mps", available here.
        defaults: the default settings of each model.

    Returns:
        "device", its "device_name", the "tolerance", the result of `compare_devices` as "models",
        "passed", and "recorded_in", the file that tells later runs so, or None.
    """
    with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as path:
        graph = read_graph(path)
    models = compare_devices(graph, torch.device(device), defaults)
    passed = all(result["passed"] for result in models.values())
    return {
        "device": device,
        "device_name": device_name(device),
        "tolerance": TOLERANCE,
        "models": models,
        "passed": passed,
        "recorded_in": _record(device) if passed else None,
    }


def _record(device: str) -> str:
    """Record a passed trial; return the file, or why it could not be written."""
    try:
        return str(record_passed_trial(device))
    except OSError as error:
        return f"nowhere: {error}"


def compare_devices(
    graph: KnowledgeGraph, device: torch.device, defaults: Sequence[Settings]
) -> dict[str, dict[str, Any]]:
    """Compare the results of a device with the CPU's, for each model and kind of training.

    Args:
        graph: on the CPU, and small.
        device: the one to try.
        defaults: the default settings of each model.

    Returns:
        For each pair, such as "hgt sampled": the relative differences of "losses", "weights" and
        "embeddings", or the "error" that was raised, and whether it "passed".
    """
    # The candidates of a step are all nodes of so small a graph, so a subgraph must hold them all.
    sizes = {FULL: None, SAMPLED: graph.num_nodes}
    return {
        f"{settings.model} {training}": _compare(
            graph,
            device,
            replace(
                settings,
                num_epochs=_NUM_EPOCHS,
                learning_rate=_LEARNING_RATE,
                training=training,
                subgraph_size=subgraph_size,
            ),
        )
        for settings in defaults
        for training, subgraph_size in sizes.items()
    }


def _compare(graph: KnowledgeGraph, device: torch.device, settings: Settings) -> dict[str, Any]:
    expected = _results(graph, torch.device("cpu"), settings)
    try:
        results = _results(graph, device, settings)
    except Exception as error:  # the trial reports whatever the device raises
        return {"error": f"{type(error).__name__}: {error}", "passed": False}
    differences = {
        name: max(map(_relative_difference, results[name], expected[name])) for name in expected
    }
    if not all(map(math.isfinite, differences.values())):
        where = [name for name, value in differences.items() if not math.isfinite(value)]
        return {"error": f"NaN or infinity in the {' and the '.join(where)}", "passed": False}
    return {**differences, "passed": all(value <= TOLERANCE for value in differences.values())}


def _results(
    graph: KnowledgeGraph, device: torch.device, settings: Settings
) -> dict[str, list[Tensor]]:
    """Train a model; return the losses of its epochs, its weights and the embeddings."""
    nowhere = Path()  # the run reads and writes no files
    run = Run(nowhere, nowhere, nowhere, device, settings.learning_rate, PeakMemory(device))
    plan = plan_for(GraphSizes.of(graph), settings, device)
    with one_thread(plan.is_small):
        if isinstance(settings, HgtSettings):
            trained = train_hgt(run, graph, settings, plan, seed=0)
        else:
            trained = train_sage(run, graph, settings, plan, seed=0)
        model: LayeredModel[Any] = trained.model
        embeddings = embed_all(model, graph.to(device), _CHUNK_SIZE, plan.backend)
    weights = [*trained.model.parameters(), *trained.decoder.parameters()]
    losses = [
        value for record in trained.history for name, value in record.items() if "loss" in name
    ]
    return {
        "losses": [torch.tensor(loss) for loss in losses],
        "weights": [weight.detach().cpu() for weight in weights],
        "embeddings": [embeddings],
    }


def _relative_difference(value: Tensor, expected: Tensor) -> float:
    """Return the mean absolute difference, relative to the mean absolute value.

    The mean gives little weight to single numbers, and that is wanted: Adam moves a weight by the
    learning rate even if its gradient consists of rounding errors only.
    """
    value, expected = value.double(), expected.double()
    return float((value - expected).abs().mean() / expected.abs().mean().clamp(min=1e-12))
