"""Describe this machine, predict memory, disk space and time of a run, and test the GPU."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.arguments import plain_arguments
from ..system.devices import available_devices, check_device, check_device_name, choose_device
from ..system.errors import DoesNotFitError, InputError, shown
from ..system.limits.memory import available_memory
from ..system.processes import alone

if TYPE_CHECKING:
    from ..graph.reading.room import ReadingMemory
    from ..models.kinds.interface import Settings
    from ..training.graph_sizes import GraphSizes
    from ..training.memory_plan import Plan

_PACKAGES = ("clinical-drug-discovery", "torch", "numpy", "numba", "polars", "safetensors")
_GIB = 2**30
_READING = 3.65 / 8.1  # seconds per million rows: benchmarks/README.md, "Reading and writing"
_MEASURED = (
    "times per edge on 2 cores of an Intel Xeon with AVX512_BF16, measured at PrimeKG's size (63 "
    "edges per node); without compiling kernels, checks and the drug ranker. Other machines took "
    "0.6 to 1.9 times as long; those without AVX512_BF16 are the slow ones"
)
_NOT_MEASURED = (
    "not measured: times are known for default sizes, full training and CPU kernels, in memory"
)
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
    num_nodes: int | None = None,
    num_edges: int | None = None,
    model: str | None = None,
    hidden_dim: int | None = None,
    embedding_dim: int | None = None,
    num_layers: int | None = None,
    num_epochs: int | None = None,
    training: str | None = None,
    memory_budget: str | int | None = None,
    scratch_dir: str | Path | None = None,
    device: str | None = None,
    try_device: str | None = None,
) -> dict[str, Any]:
    """Describe this machine: versions, devices, CPU, memory and threads.

    Args:
        plan: also predict memory, disk space and time of a training, for the graph of a file or
            for numbers of nodes and edges.
        edges_csv: only with --plan: the edges file of the graph.
        num_nodes: only with --plan: number of nodes of a graph that has PrimeKG's proportions of
            node types and relations.
        num_edges: only with --plan: its number of directed edges, two for each fact.
        model: only with --plan: graphsage or hgt (default: all models).
        hidden_dim: only with --plan: width of the layers (default: that of the model).
        embedding_dim: only with --plan: numbers per embedding (default: that of the model).
        num_layers: only with --plan: number of layers (default: that of the model).
        num_epochs: only with --plan: number of epochs (default: that of the model).
        training: only with --plan: full or sampled (default: full).
        memory_budget: only with --plan: largest peak memory of a run, such as 5.33GB (default: 70%
            of the free memory).
        scratch_dir: only with --plan: directory for large arrays, if they do not fit the budget; it
            need not exist.
        device: only with --plan: cuda, mps or cpu; it need not be available on this machine
            (default: the default device of a run).
        try_device: cuda or mps: train all models on this device for two epochs, and compare the
            results with those of the CPU. mps becomes the default device only after it passes.

    Returns:
        Versions, devices, CPU, memory and threads, each under a name such as "memory_total_gib".
        "planned_graph" and "plan" have the results of `plan_models`, and "try" that of
        `_run.device_trial.try_device`.

    Raises:
        InputError: a parameter or the file is invalid, or the device to try is not available.

    Example:
        >>> from clinical_drug_discovery.lib.doctor import describe_machine
        >>> describe_machine()["devices"]
        ['cpu']
    """
    chosen = {
        "hidden_dim": hidden_dim,
        "embedding_dim": embedding_dim,
        "num_layers": num_layers,
        "num_epochs": num_epochs,
        "training": training,
    }
    size = {"num_nodes": num_nodes, "num_edges": num_edges}
    _check_plan(plan, edges_csv, size, model, {**chosen, "scratch_dir": scratch_dir})
    trial = None
    if try_device is not None:
        if try_device == "cpu":
            raise InputError(
                "try (got 'cpu') must be cuda or mps: a GPU's results are compared with the CPU's"
            )
        check_device(try_device)  # before the slow imports
        from ._run import device_trial

        trial = device_trial.try_device(try_device, _all_default_settings())
    described = _describe()
    if plan:
        settings = _chosen_settings(model, chosen)
        described |= plan_models(edges_csv, size, settings, memory_budget, device, scratch_dir)
    if trial is not None:
        described["try"] = trial
    return described


def _check_plan(
    plan: bool,
    edges_csv: str | Path | None,
    size: Mapping[str, int | None],
    model: str | None,
    chosen: Mapping[str, Any],
) -> None:
    """Check which parameters of a plan are given together."""
    given = {"edges": edges_csv, **size, "model": model, **chosen}
    for name, value in given.items():
        if value is not None and not plan:
            raise InputError(f"{name} (got {shown(value)}) is allowed only with plan")
        if value is not None and name in size and edges_csv is not None:
            raise InputError(
                f"{name} (got {value}) must be left out: edges has a number of its own"
            )
    if plan and edges_csv is None and None in size.values():
        raise InputError(
            "plan (got True) needs edges, the edges file of a graph, or else num_nodes and "
            "num_edges"
        )


def _describe() -> dict[str, Any]:
    """Describe the machine and the versions."""
    import psutil
    import torch

    memory, room = psutil.virtual_memory(), available_memory()
    return {
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
    edges_csv: str | Path | None,
    size: Mapping[str, int | None],
    models: Sequence[Settings],
    memory_budget: str | int | None,
    device: str | None,
    scratch_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Predict memory, disk space and time of trainings, without the drug ranker.

    Args:
        edges_csv: the edges file, which is read from its cache if possible; None: use `size`.
        size: "num_nodes" and "num_edges" of a graph like PrimeKG; None for both: use `edges_csv`.
        models: the settings of each model.
        memory_budget: see `parse_memory`.
        device: "cuda", "mps" or "cpu", available or not; None: the default device of a run.
        scratch_dir: takes the large arrays of a model that does not fit without it.

    Returns:
        "planned_graph" with the sizes and the assumption about them, and "plan" with an entry for
        each model: "device", the settings, "fits" (True or False), and either
        "predicted_memory_gib" or, if the run does not fit the budget, the message "why";
        "disk_gib" (model directory, checkpoints and embeddings as Parquet, without the file and the
        cache of the graph); "scratch_gib" (largest size of the files in the scratch directory, 0 if
        it is not needed); "estimated_seconds" by part, None if nobody has measured such a run;
        and "estimated_from".

    Raises:
        InputError: a parameter or the file is invalid.
    """
    if device is not None:
        check_device_name(device)
    import torch

    from ..graph.reading.room import ReadingMemory
    from ..system.processes import use_threads
    from ..training.memory_plan import plan_for

    target = choose_device(None).device if device is None else torch.device(device)
    if scratch_dir is not None and target.type != "cpu":
        raise InputError(
            f"scratch_dir (got {scratch_dir}) needs the device cpu, and this plan is for "
            f"{target.type}"
        )
    use_threads()
    scratch = None if scratch_dir is None else Path(scratch_dir)
    memory = ReadingMemory(memory_budget, scratch)
    sizes, num_sharing, assumed = _sizes_of(edges_csv, size, memory)
    plans = {}
    for settings in models:
        plan = plan_for(sizes, settings, target)
        if settings.contrast is not None:
            plan = replace(plan, num_sharing=num_sharing)
        plan, found = _fit(plan, memory_budget, edges_csv is not None, scratch)
        plans[settings.model] = {"device": target.type, **found, **_disk_and_time(plan)}
    graph = {"num_nodes": sizes.num_nodes, "num_edges": sizes.num_edges, "assumed": assumed}
    return {"planned_graph": graph, "plan": plans}


def _sizes_of(
    edges_csv: str | Path | None, size: Mapping[str, int | None], memory: ReadingMemory
) -> tuple[GraphSizes, int, str]:
    """Return the sizes of a graph, `most_sharing_pairs`, and what is assumed."""
    if edges_csv is None:
        from ._synthetic.primekg_shape import sizes_like_primekg

        num_nodes, num_edges = size["num_nodes"], size["num_edges"]
        assert num_nodes is not None
        assert num_edges is not None
        sizes = sizes_like_primekg(num_nodes, num_edges)
        return *sizes, "PrimeKG's proportions of node types and relations"
    from ..graph.cache import read_cached
    from ..training.graph_sizes import GraphSizes
    from ..training.objective.disease_pairs import compared_by_genes, most_sharing_pairs

    graph, _ = read_cached(edges_csv, memory=memory)
    num_sharing = most_sharing_pairs(graph, **compared_by_genes(graph))
    return GraphSizes.of(graph), num_sharing, "nothing: the file was read"


def _fit(
    plan: Plan, memory_budget: str | int | None, is_read: bool, scratch_dir: Path | None
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan that fits, if any, and its record."""
    from ..training.memory_budget import fit_plan

    found: dict[str, Any]
    try:
        plan = fit_plan(
            plan, memory_budget, choose_chunk_size=True, is_read=is_read, scratch_dir=scratch_dir
        )
        found = {"predicted_memory_gib": round(plan.predicted_bytes / _GIB, 3), "fits": True}
    except DoesNotFitError as error:
        found = {"fits": False, "why": str(error)}
    return plan, {**asdict(plan.settings), "chunk_size": plan.chunk_size, **found}


def _disk_and_time(plan: Plan) -> dict[str, Any]:
    """Return the predicted disk space, and an estimate of the time from measured times per edge."""
    from ..models.kinds.table import kind_of
    from ._run.finish import result_bytes
    from .embed_model import settings_of

    graph, settings = plan.graph, plan.settings
    files = result_bytes(graph.num_nodes, graph.tensor_bytes, graph.names_bytes, settings)
    found: dict[str, Any] = {
        "disk_gib": round(sum(files) / _GIB, 3),
        "scratch_gib": round(plan.file_bytes / _GIB, 3),
    }
    times = kind_of(settings.model).times
    usual = settings_of(settings.model, {"num_epochs": settings.num_epochs})
    measured = settings == usual and plan.backend.device.type == "cpu" and not plan.is_small
    if times is None or not measured or plan.scratch_dir is not None:
        return found | {"estimated_seconds": None, "estimated_from": _NOT_MEASURED}
    millions = graph.num_edges / 1e6
    seconds = {
        "read": _READING * millions,
        "train": times.epoch * millions * settings.num_epochs,
        "inference": times.inference * millions,
    }
    rounded = {name: float(f"{value:.2g}") for name, value in seconds.items()}
    return found | {"estimated_seconds": rounded, "estimated_from": _MEASURED}


def _chosen_settings(model: str | None, chosen: Mapping[str, Any]) -> list[Settings]:
    """Return the settings of one model, or of each model, with defaults for those not chosen.

    Raises:
        InputError: the model does not exist, or a setting is invalid for it.
    """
    from ..models.kinds.table import MODELS, entry_of
    from .embed_model import settings_of

    if model is not None:
        entry_of(model)
    return [settings_of(name, chosen) for name in (MODELS if model is None else [model])]


def _all_default_settings() -> list[Settings]:
    """Return the default settings of each model."""
    return _chosen_settings(None, {})
