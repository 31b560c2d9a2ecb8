"""Describe this machine, predict the memory of a run, and test the GPU."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.arguments import plain_arguments
from ..system.devices import available_devices, check_device, check_device_name, choose_device
from ..system.errors import DoesNotFitError, InputError
from ..system.limits.memory import available_memory
from ..system.processes import alone

if TYPE_CHECKING:
    from ..models.kinds.interface import Settings
    from ..training.memory_plan import Plan

_PACKAGES = ("clinical-drug-discovery", "torch", "numpy", "numba", "polars", "safetensors")
_GIB = 2**30
#: Usual name of an instruction set: name of the feature in LLVM.
_INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_BF16": "avx512bf16",
    "AMX": "amx-bf16",
    "NEON": "neon",
}


@plain_arguments
@alone()
def describe_machine(
    plan: bool = False,
    edges_csv: str | Path | None = None,
    memory_budget: str | int | None = None,
    device: str | None = None,
    try_device: str | None = None,
) -> dict[str, Any]:
    """Describe this machine: versions, devices, CPU, memory and threads.

    Args:
        plan: also predict the peak memory of all models with default settings for the graph of
            --edges.
        edges_csv: only with --plan: the edges file of the graph.
        memory_budget: only with --plan: largest peak memory of a run, such as 5.33GB (default: 70%
            of the free memory).
        device: only with --plan: cuda, mps or cpu; it need not be available on this machine
            (default: the default device of a run).
        try_device: cuda or mps: train all models on this device for two epochs, and compare the
            results with those of the CPU. mps becomes the default device only after it passes.

    Returns:
        Versions, devices, CPU, memory and threads, each under a name such as "memory_total_gib".
        "plan" has the result of `plan_models`, and "try" that of `_run.device_trial.try_device`.

    Raises:
        InputError: a parameter or the file is invalid, or the device to try is not available.

    Example:
        >>> from clinical_drug_discovery.lib.doctor import describe_machine
        >>> describe_machine()["devices"]
        ['cpu']
    """
    if plan and edges_csv is None:
        raise InputError("plan (got True) needs edges, the edges file of a graph")
    if edges_csv is not None and not plan:
        raise InputError(f"edges (got {edges_csv}) is allowed only with plan")
    trial = None
    if try_device is not None:
        if try_device == "cpu":
            raise InputError(
                "try (got 'cpu') must be cuda or mps: a GPU's results are compared with the CPU's"
            )
        check_device(try_device)  # before the slow imports
        from ._run import device_trial

        trial = device_trial.try_device(try_device, _all_default_settings())
    import psutil
    import torch

    memory, room = psutil.virtual_memory(), available_memory()
    described: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _PACKAGES},
        "devices": available_devices(),
        "default_device": _default_device(),
        "memory_total_gib": round(memory.total / _GIB, 2),
        "memory_available_gib": round(room.num_bytes / _GIB, 2),
        "memory_limit": room.limit,
        "cpu": _cpu_name(),
        "instruction_sets": _instruction_sets(),
        "kernels": _kernels(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
    }
    if edges_csv is not None:
        described["plan"] = plan_models(edges_csv, memory_budget, device)
    if trial is not None:
        described["try"] = trial
    return described


def _cpu_name() -> str:
    """Return the model of the CPU, such as "AMD EPYC 9B14", or at least its architecture."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"(?m)^(?:model name|Model|Hardware)\s*:\s*(.+)$", text)
    return found[1] if found else platform.processor() or platform.machine()


def _instruction_sets() -> list[str]:
    """Return the vector instruction sets of the CPU, by their usual names."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return [name for name, feature in _INSTRUCTION_SETS.items() if features.get(feature)]


def _kernels() -> str:
    """Return which CPU kernels a run uses, and the number type of its matrix products."""
    import torch

    from ..ops.backend import MIN_KERNEL_EDGES, has_bfloat16_products

    capability = torch.backends.cpu.get_cpu_capability()
    products = "bfloat16" if has_bfloat16_products() else "float32 (no AVX512_BF16 or AMX in use)"
    return (
        f"compiled kernels for graphs with at least {MIN_KERNEL_EDGES:,} edges, with matrix "
        f"products in {products}; torch uses {capability}"
    )


def _default_device() -> str:
    """Return the default device of a run, and the reason for this choice."""
    try:
        choice = choose_device(None)
    except InputError as error:
        return f"none: {error}"
    return f"{choice.device} ({choice.reason})"


def plan_models(
    edges_csv: str | Path, memory_budget: str | int | None, device: str | None
) -> dict[str, dict[str, Any]]:
    """Predict the peak memory of all models with default settings, without the drug ranker.

    Args:
        edges_csv: the edges file, which is read from its cache if possible.
        memory_budget: see `parse_memory`.
        device: "cuda", "mps" or "cpu", available or not; None: the default device of a run.

    Returns:
        One entry for each model: "device", the settings, "fits" (True or False), and either
        "predicted_memory_gib" or, if the run does not fit the budget, the message "why".

    Raises:
        InputError: a parameter or the file is invalid.
    """
    if device is not None:
        check_device_name(device)
    import torch

    from ..graph.cache import read_cached
    from ..system.processes import use_threads
    from ..training.graph_sizes import GraphSizes
    from ..training.memory_plan import plan_for
    from ..training.objective.disease_pairs import compared_by_genes, most_sharing_pairs

    target = choose_device(None).device if device is None else torch.device(device)
    use_threads()
    graph, _ = read_cached(edges_csv)
    sizes = GraphSizes.of(graph)
    num_sharing = most_sharing_pairs(graph, **compared_by_genes(graph))
    plans = {}
    for settings in _all_default_settings():
        plan = plan_for(sizes, settings, target)
        if settings.contrast is not None:
            plan = replace(plan, num_sharing=num_sharing)
        plans[settings.model] = {"device": target.type, **_fit(plan, memory_budget)}
    return plans


def _fit(plan: Plan, memory_budget: str | int | None) -> dict[str, Any]:
    from ..training.memory_plan import fit_plan

    found: dict[str, Any]
    try:
        plan = fit_plan(plan, memory_budget, choose_chunk_size=True)
        found = {"predicted_memory_gib": round(plan.predicted_bytes / _GIB, 3), "fits": True}
    except DoesNotFitError as error:
        found = {"fits": False, "why": str(error)}
    return {**asdict(plan.settings), "chunk_size": plan.chunk_size, **found}


def _all_default_settings() -> list[Settings]:
    """Return the default settings of each model."""
    from ..models.kinds.table import MODELS
    from .embed_model import settings_of

    return [settings_of(model, {}) for model in MODELS]
