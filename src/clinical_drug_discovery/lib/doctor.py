"""Describe this machine, what a run on it would need, and whether its GPU computes correctly."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..system.devices import available_devices, check_device, check_device_name, choose_device
from ..system.errors import DoesNotFitError, InputError

if TYPE_CHECKING:
    from ..training.memory_plan import Plan
    from ..training.settings import HgtSettings, SageSettings

AnySettings = TypeVar("AnySettings", "SageSettings", "HgtSettings")
_PACKAGES = ("clinical-drug-discovery", "torch", "numpy", "numba", "polars", "safetensors")
_GIB = 2**30


def describe_machine(
    plan: bool = False,
    edges_csv: str | Path | None = None,
    memory_budget: str | int | None = None,
    device: str | None = None,
    try_device: str | None = None,
) -> dict[str, Any]:
    """Describe this machine: versions, devices, memory and threads.

    Args:
        plan: also predict the peak memory of both models, at their default settings, for the graph
            of --edges.
        edges_csv: with --plan: the edges file of the graph.
        memory_budget: with --plan: peak memory that a run may take, such as 5.33GB (default: 70% of
            the free memory).
        device: with --plan: cuda, mps or cpu, which need not be available here (default: the device
            that a run would choose).
        try_device: cuda or mps: train both models on this device for a few steps, and compare the
            results with the CPU's. Runs use mps by default only after it has passed this trial.

    Returns:
        "python", "platform", "versions", "devices" (available here), "default_device", memory in
        GiB, "num_cpus" and "num_threads". "plan" is the result of `plan_models`, "try" that of
        `device_trial.try_device`.

    Raises:
        InputError: a parameter or the file breaks a rule, or the device to try is not available.

    Example:
        >>> from clinical_drug_discovery.lib.doctor import describe_machine
        >>> describe_machine()["devices"]
        ['cpu']
    """
    if plan and edges_csv is None:
        raise InputError("plan (got True) needs edges, the file of the graph to plan for")
    if edges_csv is not None and not plan:
        raise InputError(f"edges (got {edges_csv}) has an effect only with plan")
    trial = None
    if try_device is not None:
        if try_device == "cpu":
            raise InputError(
                "try (got 'cpu') must be cuda or mps: it compares a GPU's results with the CPU's"
            )
        check_device(try_device)  # before the slow imports
        from ._run import device_trial

        trial = device_trial.try_device(try_device, _all_default_settings())
    import psutil
    import torch

    memory = psutil.virtual_memory()
    described: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _PACKAGES},
        "devices": available_devices(),
        "default_device": _default_device(),
        "memory_total_gib": round(memory.total / _GIB, 2),
        "memory_available_gib": round(memory.available / _GIB, 2),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }
    if edges_csv is not None:
        described["plan"] = plan_models(edges_csv, memory_budget, device)
    if trial is not None:
        described["try"] = trial
    return described


def _default_device() -> str:
    """Return the device of a run without --device, and the reason for it."""
    try:
        choice = choose_device(None)
    except InputError as error:
        return f"none: {error}"
    return f"{choice.device} ({choice.reason})"


def plan_models(
    edges_csv: str | Path, memory_budget: str | int | None, device: str | None
) -> dict[str, dict[str, Any]]:
    """Predict the peak memory of training and embedding a graph, at each model's default settings.

    Args:
        edges_csv: the edges file; it is read, or taken from its cache.
        memory_budget: see `parse_memory`.
        device: "cuda", "mps" or "cpu", which need not be available here; None as for a run.

    Returns:
        For each model its "device" and settings, and either "predicted_memory_gib" or, if the run
        does not fit the budget, "why" with settings that would.

    Raises:
        InputError: a parameter or the file breaks a rule.
    """
    if device is not None:
        check_device_name(device)
    import torch

    from ..graph.cache import read_cached
    from ..training.disease_pairs import most_sharing_pairs
    from ..training.memory_plan import GraphSizes, plan_for

    target = choose_device(None).device if device is None else torch.device(device)
    graph, _ = read_cached(edges_csv)
    sizes = GraphSizes.of(graph)
    sage_settings, hgt_settings = _all_default_settings()
    sage, hgt = (plan_for(sizes, settings, target) for settings in (sage_settings, hgt_settings))
    num_sharing = most_sharing_pairs(graph, **hgt_settings.shared_neighbors)
    return {
        "graphsage": {"device": target.type, **_fit(sage, memory_budget)},
        "hgt": {
            "device": target.type,
            **_fit(replace(hgt, num_sharing=num_sharing), memory_budget),
        },
    }


def _fit(plan: Plan, memory_budget: str | int | None) -> dict[str, Any]:
    from ..training.memory_plan import fit_plan

    found: dict[str, Any]
    try:
        plan = fit_plan(plan, memory_budget, choose_chunk_size=True)
        found = {"predicted_memory_gib": round(plan.predicted_bytes / _GIB, 3), "fits": True}
    except DoesNotFitError as error:
        found = {"fits": False, "why": str(error)}
    return {**asdict(plan.settings), "chunk_size": plan.chunk_size, **found}


def _all_default_settings() -> tuple[SageSettings, HgtSettings]:
    """Return the default settings of GraphSAGE and HGT."""
    from ..training.settings import HgtSettings, SageSettings
    from .gnn_embeddings import generate_gnn_embeddings
    from .gnn_hgt import generate_hgt_embeddings

    return (
        _default_settings(SageSettings, generate_gnn_embeddings),
        _default_settings(HgtSettings, generate_hgt_embeddings),
    )


def _default_settings(
    kind: type[AnySettings], generate: Callable[..., dict[str, Any]]
) -> AnySettings:
    """Return the settings that a public function has by default."""
    parameters = inspect.signature(generate).parameters
    return kind(**{field.name: parameters[field.name].default for field in fields(kind)})
