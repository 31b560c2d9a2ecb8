"""Describe this machine, and what a run on it would need."""

from __future__ import annotations

import inspect
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from clinical_drug_discovery.graph.cache import read_cached
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.system.devices import available_devices, check_device_name
from clinical_drug_discovery.system.errors import DoesNotFitError, InputError
from clinical_drug_discovery.system.machine import GIB
from clinical_drug_discovery.training.disease_pairs import most_sharing_pairs
from clinical_drug_discovery.training.memory_plan import (
    CHUNK_SIZES,
    AnyPlan,
    GraphSizes,
    HgtPlan,
    Plan,
    SagePlan,
    fit_plan,
    plan_for,
)

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
    sage, hgt = _defaults(generate_gnn_embeddings), _defaults(generate_hgt_embeddings)
    alike = {
        "node_type": hgt["disease_type"],
        "neighbor_type": hgt["gene_type"],
        "relation": hgt["disease_gene_relation"],
    }
    sage_plan = SagePlan(graph=sizes, chunk_size=CHUNK_SIZES[0], **_of(SagePlan, sage))
    hgt_plan = HgtPlan(
        graph=sizes,
        num_sharing=most_sharing_pairs(graph, **alike),
        num_diseases=sizes.node_type_counts.get(hgt["disease_type"], 0),
        chunk_size=CHUNK_SIZES[0],
        **_of(HgtPlan, hgt),
    )
    return {
        "graphsage": {"device": name, **_fit(plan_for(sage_plan, place), memory_budget)},
        "hgt": {"device": name, **_fit(plan_for(hgt_plan, place), memory_budget)},
    }


def _fit(plan: AnyPlan, memory_budget: str | int | None) -> dict[str, Any]:
    names = [
        name for name in plan.__dataclass_fields__ if name not in ("graph", "stored", "edge_chunk")
    ]
    try:
        fitted, peak = fit_plan(plan, memory_budget, choose_chunk_size=True)
    except DoesNotFitError as error:
        return {name: getattr(plan, name) for name in names} | {"fits": False, "why": str(error)}
    found = {name: getattr(fitted, name) for name in names}
    return found | {"predicted_memory_gib": round(peak / GIB, 3), "fits": True}


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


def _of(plan: type[Plan], defaults: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a plan shares with a recipe."""
    given = plan.__dataclass_fields__.keys() & defaults.keys() - {"chunk_size"}
    return {name: defaults[name] for name in given}
