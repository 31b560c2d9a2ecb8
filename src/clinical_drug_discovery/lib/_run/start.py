"""The start of a run: check the files and the device, and read the graph."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ...graph.cache import cache_path, hashing, read_cached
from ...graph.knowledge_graph import KnowledgeGraph, with_vocabulary
from ...graph.read import read_graph
from ...graph.reading.room import ReadingMemory
from ...graph.source import ReadSettings, Source
from ...graph.vocabulary import VocabularyChoice
from ...models.embeddings_file import check_output, output_files
from ...models.kinds.interface import FULL, Settings
from ...system.devices import choose_device
from ...system.errors import InputError, counted
from ...system.files import check_writable
from ...system.group.interface import Group, first_here
from ...system.group.joined import current_group
from ...system.limits.scratch import check_scratch
from ...system.machine import PeakMemory, empty_cache, return_large_buffers
from ...system.processes import use_threads
from ...system.progress import Run
from ...system.run_directory import Places, check_unused, settle
from .model_dir import check_targets, model_dir_of
from .resume import check_start, continues

NOWHERE = Path("in_memory")  #: the output of a run that writes nothing


def start_run(
    source: Source,
    output_csv: str | Path | None,
    model_dir: str | Path | None,
    device: str | None,
    learning_rate: float,
    overwrite: bool,
    resume: bool = False,
    scratch_dir: str | Path | None = None,
) -> Run:
    """Start a run that writes embeddings: check parameters, paths and device; choose the device.

    Args:
        source: the files of the graph.
        output_csv: the embeddings file to write; None: write nothing.
        model_dir: directory to write the model to; None: `model_dir_of` the embeddings file.
        device: see `choose_device`.
        learning_rate: already checked; for error messages.
        overwrite: replace the files of an earlier run.
        resume: continue an earlier run.
        scratch_dir: directory for large arrays; None: keep them in memory.

    Raises:
        InputError: a parameter or a path is invalid, or the device is not available.
    """
    if output_csv is None:
        wrong = {
            "model_dir": model_dir, "overwrite": overwrite, "resume": resume,
            "scratch_dir": scratch_dir,
        }  # fmt: skip
        for name, value in wrong.items():
            if value:
                raise InputError(
                    f"{name} (got {value}) must be left out if output_csv is None, because nothing "
                    "is written"
                )
        return _begin(source, NOWHERE, NOWHERE, device, learning_rate)
    output, group = Path(output_csv), current_group()
    if scratch_dir is not None and group.size > 1:
        raise InputError(f"scratch_dir (got {scratch_dir}) needs one process, without torchrun")
    if group.rank:  # the first process checks the places, and writes
        return _begin(source, output, model_dir_of(output), device, learning_rate)
    check_output(output)
    directory = model_dir_of(output) if model_dir is None else Path(model_dir)
    check_writable("model_dir", directory)
    check_unused(directory, output, output_files(output))
    check_place(output, directory)
    settle(directory, to_write=True)
    warning = None
    if scratch_dir is not None:
        check_apart(Path(scratch_dir), output, directory)
        warning = check_scratch(Path(scratch_dir))
    run = begin_run(source, output, directory, device, learning_rate)
    if scratch_dir is not None and run.device.type != "cpu":
        raise InputError(
            f"scratch_dir (got {scratch_dir}) needs the device cpu, and this run is on {run.device}"
        )
    if warning is not None:
        run.warn(warning)
    check_start(output_files(output), directory, continues(directory, resume), overwrite)
    return run


def check_place(output: Path, model_dir: Path) -> None:
    """Check that a directory can be renamed at the end of a run, and where the embeddings lie.

    Raises:
        InputError: the model directory is the root of a file system or the working directory, or
            the embeddings lie in the directory of the unfinished run.
    """
    places = Places.of(model_dir)
    check_writable("model_dir", places.work.parent)
    if places.model_dir.is_mount() or places.model_dir in (Path.cwd(), *Path.cwd().parents):
        raise InputError(
            f"model_dir (got {model_dir}) must be a directory that can be renamed, not a mount "
            "point or the working directory: choose a directory in it"
        )
    if places.work in (output.resolve(), *output.resolve().parents):
        raise InputError(
            f"output (got {output}) must not lie in {places.work}, where the run works"
        )
    for path in (places.work, places.lock):
        if path.exists() and path.is_dir() != (path == places.work):
            raise InputError(f"model_dir (got {model_dir}) needs {path}, which is another file")


def check_apart(scratch_dir: Path, output: Path, model_dir: Path) -> None:
    """Check that a scratch directory does not take the place of a result.

    Raises:
        InputError: it is one of the outputs or a place of the run, or lies in one of them.
    """
    scratch = scratch_dir.resolve()
    for path in (*output_files(output), *Places.of(model_dir)):
        if path.resolve() in (scratch, *scratch.parents):
            raise InputError(
                f"scratch_dir (got {scratch_dir}) must not lie in {path}, which this run writes"
            )


def begin_run(
    source: Source, output: Path, model_dir: Path, device: str | None, learning_rate: float
) -> Run:
    """Start a run whose output paths were already checked; see `start_run`.

    Raises:
        InputError: the device is not available, or an output would overwrite
            an input file or another output.
    """
    check_targets(input_names(source), output_files(output), model_dir)
    return _begin(source, output, model_dir, device, learning_rate)


def _begin(
    source: Source, output: Path, model_dir: Path, device: str | None, learning_rate: float
) -> Run:
    use_threads()
    place, reason = choose_device(device)
    return_large_buffers()
    group = current_group()
    if group.size > 1 and place.type == "mps":
        raise InputError("device (got 'mps') must be cuda or cpu with several processes (torchrun)")
    peak = PeakMemory(place)
    run = Run(source.files, output, model_dir, place, learning_rate, peak, group=group)
    run.progress.milestone(f"Device: {run.device} ({reason})")
    return run


def divided_among(settings: Settings, group: Group) -> Settings:
    """Return the settings with the number of subgraphs in a step, which the processes divide.

    Raises:
        InputError: the training cannot be divided among so many processes.
    """
    if settings.training == FULL:
        if group.size > 1:
            raise InputError(
                f"training (got {FULL!r}) must be 'sampled' with several processes (torchrun has "
                f"started {group.size}): they divide the subgraphs of a step"
            )
        return settings
    number = settings.subgraphs_per_step or group.size
    if number % group.size:
        raise InputError(
            f"subgraphs_per_step (got {number}) must be a multiple of {group.size}, the number of "
            "processes that torchrun has started"
        )
    return replace(settings, subgraphs_per_step=number)


def input_names(source: Source) -> dict[str, Path]:
    """Return the files of a graph by their names in error messages."""
    names = {f"the edges file {path}": path for path in source.edges}
    return names if source.nodes is None else {**names, "the node table": source.nodes}


def read_edges(
    run: Run,
    source: Source,
    settings: ReadSettings,
    words: VocabularyChoice,
    cache: bool,
    cache_dir: str | Path | None,
    memory: ReadingMemory | None = None,
) -> KnowledgeGraph:
    """Read the graph from its files or from the cache.

    Args:
        run: receives the time and warnings.
        source: the files of the graph.
        settings: filters, and what to do about conflicts and missing fields.
        words: the node types and relations that the user has named.
        cache: True: read the cache, or write it after reading the files. The standard input is
            never cached.
        cache_dir: see `cache_path`.
        memory: see `read_graph`.

    Raises:
        InputError: a file, a setting or the cache directory is invalid.
    """
    if source.graph is not None:
        return _given(run, source.graph, settings, words, cache_dir)
    if cache_dir is not None and not cache:
        raise InputError(f"cache_dir (got {cache_dir}) must be left out if the cache is off")
    with run.timed("read"), first_here(run.group):
        if cache and not source.has_stdin:
            place = cache_path(source, settings, cache_dir)
            if run.output != NOWHERE:
                check_targets({"the cached graph": place}, output_files(run.output), run.model_dir)
            graph, outcome = read_cached(source, settings, cache_dir, memory)
            run.progress.milestone(outcome.message)
            for text in outcome.warnings:
                run.warn(text)
            run.edges_sha256.append(outcome.sha256)
        elif source.has_stdin:
            graph = read_graph(source, settings, memory)
        else:
            with hashing(source) as content:
                graph = read_graph(source, settings, memory)
                run.edges_sha256.append(None if content.exception() else content.result())
        for text in graph.report.warnings:
            run.warn(text)
        empty_cache(run.device)  # the training can then use the memory of the reader
    run.progress.milestone(
        f"Read {graph.num_nodes:,} nodes and {graph.num_edges:,} edges of "
        f"{counted(len(graph.relations), 'relation')} in {run.seconds['seconds_read']:.1f} s: "
        f"{graph.report.spelling}{_without_facts(graph)}; format: {', '.join(graph.report.formats)}"
    )
    graph = with_vocabulary(graph, words)
    present = {*graph.node_type_names, *graph.relations}
    run.progress.milestone(f"Vocabulary: {graph.vocabulary.describe(present)}")
    return graph


def _given(
    run: Run,
    graph: KnowledgeGraph,
    settings: ReadSettings,
    words: VocabularyChoice,
    cache_dir: str | Path | None,
) -> KnowledgeGraph:
    """Return the graph that the user has in memory, with the words that the user has named.

    Raises:
        InputError: a setting of reading is given, or a word is invalid.
    """
    for name, value in {**asdict(settings), "cache_dir": cache_dir}.items():
        if value != getattr(ReadSettings(), name, None):
            raise InputError(f"{name} (got {value}) must be left out: the graph is already read")
    with run.timed("read"):
        run.progress.milestone(f"Graph in memory: {graph!r}")
        if any(value is not None for value in asdict(words).values()):
            graph = with_vocabulary(graph, words)
    return graph.host


def _without_facts(graph: KnowledgeGraph) -> str:
    number = graph.report.num_nodes_without_facts
    return f"; {counted(number, 'node')} without facts" if number else ""
