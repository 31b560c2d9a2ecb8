"""Describe this machine, and what a run on it would need."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from clinical_drug_discovery.graph.cache import read_cached
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.devices import available_devices, check_device_name
from clinical_drug_discovery.system.errors import DoesNotFitError, InputError
from clinical_drug_discovery.system.machine import GIB
from clinical_drug_discovery.training.disease_pairs import most_sharing_pairs
from clinical_drug_discovery.training.memory_plan import GraphSizes, Plan, fit_plan, plan_for
from clinical_drug_discovery.training.settings import HgtSettings, SageSettings

AnySettings = TypeVar("AnySettings", SageSettings, HgtSettings)
_PACKAGES = ("clinical-drug-discovery", "torch", "numpy", "numba", "polars", "safetensors")


def describe_machine(
    plan: bool = False,
    edges_csv: str | Path | None = None,
    memory_budget: str | int | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Describe what a run would find here.

    Args:
        plan: also predict what both models take of memory, at their defaults, for the graph of
            --edges, which is read or taken from its cache.
        edges_csv: the graph of --plan.
        memory_budget: of --plan, such as 5.33GB; 70% of what is free if left out.
        device: of --plan, mps, cuda or cpu, here or not; the best that is here if left out.

    Returns:
        Versions, devices (the first is the default), memory in GiB, numbers of threads; "plan" as
        `plan_models` gives it.

    Raises:
        InputError: a parameter or the file breaks a rule.
    """
    if plan != (edges_csv is not None):
        raise InputError(f"plan (got {plan}) and edges (got {edges_csv}) need each other")
    memory = psutil.virtual_memory()
    described: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _PACKAGES},
        "devices": available_devices(),
        "memory_total_gib": round(memory.total / GIB, 2),
        "memory_available_gib": round(memory.available / GIB, 2),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }
    if edges_csv is not None:
        described["plan"] = plan_models(edges_csv, memory_budget, device)
    return described


def plan_models(
    edges_csv: str | Path, memory_budget: str | int | None, device: str | None
) -> dict[str, dict[str, Any]]:
    """What training and embedding a graph takes, with each model at its defaults.

    Args:
        edges_csv: the graph's file.
        memory_budget: see `memory.parse_memory`.
        device: what to plan for; it need not be here.

    Returns:
        For each model the parameters that decide, the predicted peak in GiB and whether it fits;
        where it does not, what would.

    Raises:
        InputError: a parameter or the file breaks a rule.
    """
    name = device or available_devices()[0]
    check_device_name(name)
    place = torch.device(name)
    graph, _ = read_cached(edges_csv)
    sizes = GraphSizes.of(graph)
    hgt_settings = _default_settings(HgtSettings, generate_hgt_embeddings)
    hgt = plan_for(sizes, hgt_settings, place)
    num_sharing = most_sharing_pairs(graph, **hgt_settings.shared_neighbors)
    sage_settings = _default_settings(SageSettings, generate_gnn_embeddings)
    return {
        "graphsage": {"device": name, **_fit(plan_for(sizes, sage_settings, place), memory_budget)},
        "hgt": {"device": name, **_fit(replace(hgt, num_sharing=num_sharing), memory_budget)},
    }


def _fit(plan: Plan, memory_budget: str | int | None) -> dict[str, Any]:
    found: dict[str, Any]
    try:
        plan = fit_plan(plan, memory_budget, choose_chunk_size=True)
        found = {"predicted_memory_gib": round(plan.predicted_bytes / GIB, 3), "fits": True}
    except DoesNotFitError as error:
        found = {"fits": False, "why": str(error)}
    return {**asdict(plan.settings), "chunk_size": plan.chunk_size, **found}


def _default_settings(
    kind: type[AnySettings], generate: Callable[..., dict[str, Any]]
) -> AnySettings:
    """Return the settings that a recipe has by default."""
    parameters = inspect.signature(generate).parameters
    return kind(**{field.name: parameters[field.name].default for field in fields(kind)})
