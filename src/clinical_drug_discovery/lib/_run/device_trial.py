"""The trial of `cdd doctor --try`: compare the results of a GPU with those of the CPU.

Both models are trained on the sample graph for two epochs, once on the GPU and once on the CPU. The
weights of the GPU then embed all nodes on both. The sample graph is so small that both devices use
torch's own operations in float32. So losses, weights and embeddings may differ only by rounding.
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
from ...models.kinds.interface import FULL, SAMPLED, Settings
from ...system.devices import device_name, record_passed_trial
from ...system.machine import PeakMemory, one_thread
from ...system.progress import Run
from ...training.graph_sizes import GraphSizes
from ...training.memory_plan import plan_for
from ...training.train import Trained, train

#: Largest allowed differences between the two devices, relative to the value; for weights relative
#: to the distance that the training moves them, so that a weight that is never updated gives 1. An
#: NVIDIA H200 differs from the CPU by up to 5e-4, 4e-3 and 6e-7. Two of its own trainings differ
#: almost as much, because the order of its sums varies and Adam amplifies rounding.
TOLERANCES = {"losses": 2e-3, "weights": 0.05, "embeddings": 1e-5}
_NUM_EPOCHS = 2
_LEARNING_RATE = 0.01
_NO_RATE = 1e-30  # rounding undoes each update
_CHUNK_SIZE = 300  # nodes that inference embeds at a time; small, so that there are several chunks


def try_device(device: str, defaults: Sequence[Settings]) -> dict[str, Any]:
    """Compare a GPU with the CPU and, if the GPU passes, record this on the machine.

    Args:
        device: "cuda" or "mps"; must be available.
        defaults: the default settings of each model.

    Returns:
        "device", "device_name", "tolerances" (`TOLERANCES`), "models" (the result of
        `compare_devices`), "passed", and "recorded_in" (the file that later runs read, or None if
        the GPU did not pass).
    """
    with as_file(files("clinical_drug_discovery") / "data" / "sample_kg.csv") as path:
        graph = read_graph(path)
    models = compare_devices(graph, torch.device(device), defaults)
    passed = all(result["passed"] for result in models.values())
    return {
        "device": device,
        "device_name": device_name(device),
        "tolerances": TOLERANCES,
        "models": models,
        "passed": passed,
        "recorded_in": _record(device) if passed else None,
    }


def _record(device: str) -> str:
    """Record a passed trial. Return the path of the file, or the reason why it was not written."""
    try:
        return str(record_passed_trial(device))
    except OSError as error:
        return f"nowhere: {error}"


def compare_devices(
    graph: KnowledgeGraph, device: torch.device, defaults: Sequence[Settings]
) -> dict[str, dict[str, Any]]:
    """Compare the results of a device with those of the CPU.

    Args:
        graph: a small graph, on the CPU.
        device: the device to try.
        defaults: the default settings of each model.

    Returns:
        One entry for each model and kind of training, such as "hgt sampled": the differences of
        "losses", "weights" and "embeddings", or the "error" of the device; and whether it "passed".
    """
    # In a graph this small, the edge sampler takes all nodes as candidates of a batch. So a
    # subgraph must have room for all nodes.
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
                subgraphs_per_step=None,
            ),
        )
        for settings in defaults
        for training, subgraph_size in sizes.items()
    }


def _compare(graph: KnowledgeGraph, device: torch.device, settings: Settings) -> dict[str, Any]:
    cpu = torch.device("cpu")
    expected = _train(graph, cpu, settings)
    start = _train(graph, cpu, replace(settings, num_epochs=1, learning_rate=_NO_RATE))
    try:
        trained = _train(graph, device, settings)
        embeddings = _embed(trained, device, settings)
    except Exception as error:  # any error of the device is a result of the trial
        return {"error": f"{type(error).__name__}: {error}", "passed": False}
    found = {
        "losses": (_losses(trained), _losses(expected)),
        "weights": (_weights(trained), _weights(expected), _weights(start)),
        "embeddings": ([embeddings], [_embed(trained, cpu, settings)]),
    }
    differences = {name: max(map(_relative_difference, *values)) for name, values in found.items()}
    if not all(map(math.isfinite, differences.values())):
        where = [name for name, value in differences.items() if not math.isfinite(value)]
        return {"error": f"NaN or infinity in the {' and the '.join(where)}", "passed": False}
    passed = all(value <= TOLERANCES[name] for name, value in differences.items())
    return {**differences, "passed": passed}


def _train(graph: KnowledgeGraph, device: torch.device, settings: Settings) -> Trained:
    """Train a model on a device."""
    nowhere = Path()  # this run does not read or write files
    run = Run((), nowhere, nowhere, device, settings.learning_rate, PeakMemory(device))
    plan = plan_for(GraphSizes.of(graph), settings, device)
    with one_thread(plan.is_small):
        return train(run, graph, settings, plan, seed=0)


def _embed(trained: Trained, device: torch.device, settings: Settings) -> Tensor:
    """Embed all nodes on a device, where the model is afterwards."""
    plan = plan_for(GraphSizes.of(trained.graph), settings, device)
    trained.model.to(device)
    model: LayeredModel[Any] = trained.model
    with one_thread(plan.is_small):
        return embed_all(model, trained.graph.to(device), _CHUNK_SIZE, plan.backend)


def _losses(trained: Trained) -> list[Tensor]:
    """Return the losses of all epochs."""
    return [
        torch.tensor(value)
        for record in trained.history
        for name, value in record.items()
        if "loss" in name
    ]


def _weights(trained: Trained) -> list[Tensor]:
    """Return a copy of all weights, on the CPU."""
    weights = [*trained.model.parameters(), *trained.decoder.parameters()]
    return [weight.detach().cpu().clone() for weight in weights]


def _relative_difference(value: Tensor, expected: Tensor, start: Tensor | None = None) -> float:
    """Return mean(|value - expected|) / mean(|expected - start|), where start is 0 by default.

    The mean is used instead of the maximum, because Adam moves a weight by about the learning rate
    even if the gradient of this weight consists only of rounding errors.
    """
    value, expected = value.double(), expected.double()
    distance = expected if start is None else expected - start.double()
    return float((value - expected).abs().mean() / distance.abs().mean().clamp(min=1e-12))
