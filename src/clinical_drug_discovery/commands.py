"""The commands: the flags and the function of each, and how its result is shown.

The flags, defaults and help texts of a command are read from the source code of the function.
Parsing the source code takes milliseconds. Importing the function also imports torch, which takes
seconds, and happens only when the command runs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from .flags import Flag, flag_of, read_flags
from .models.kinds.table import MODELS, Entry
from .show.terminal import commands as show
from .show.terminal.console import show_record
from .show.terminal.evaluation import show_evaluation
from .show.terminal.ranked_lists import show_neighbors, show_ranking
from .system.errors import InputError
from .system.interrupts import end_loading
from .system.log import part

LOADING = "Loading the libraries"  #: the first line of each command
#: Annotation of a parameter: type that typer uses for the flag.
TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "int | None": int | None,
    "float": float,
    "float | None": float | None,
    "str": str,
    "str | None": str | None,
    "str | int | None": str | None,
    "str | Path": Path,
    "EdgesPath": list[Path],
    "EdgesPath | KnowledgeGraph": list[Path],
    "EdgesPath | None": list[Path] | None,
    "str | Path | None": Path | None,
    "Sequence[str] | None": list[str] | None,
    "str | Path | Model": Path,
    "str | Path | Model | None": Path | None,
}
ONLY_IN_PYTHON = ("EpochHook | None",)  #: annotations of parameters that do not have a flag


@dataclass(frozen=True)
class Command:
    """A command: its flags, its function, and the function that shows the result as text."""

    read: Callable[[], tuple[str, list[Flag]]]  #: returns the summary and the flags
    call: Callable[..., Any]
    show: Callable[[Any], None]
    trains: bool = False  #: True if the command trains a model; --device is then checked first
    has_config: bool = False  #: True if the command takes --config
    has_nice: bool = False  #: True if the command takes --nice
    serves: bool = False  #: True if the result has a method `wait`, which serves until Ctrl-C


@contextmanager
def _loading() -> Iterator[None]:
    """Show that the `with` block imports the libraries, and make no search for garbage in it.

    Almost all objects that an import makes stay, so that each search would find nothing. All
    searches together take 0.03 s.
    """
    gc.disable()
    try:
        with part(LOADING, announce=True):
            yield
    finally:
        gc.freeze()  # later searches skip what is there
        gc.enable()
    end_loading()


def _command(
    module: str,
    name: str,
    show: Callable[[Any], None],
    embeds: bool = False,
    serves: bool = False,
    has_nice: bool = False,
) -> Command:
    """Return the command whose flags are the parameters of one function."""

    def call(**values: Any) -> Any:
        with _loading():
            function = getattr(import_module(f"{__package__}.{module}"), name)
        with part(name.replace("_", " ").capitalize()):
            return function(**values)

    def read() -> tuple[str, list[Flag]]:
        summary, flags = read_flags(module, name)
        return summary, _for_command_line(flags)

    return Command(
        read,
        call,
        show,
        trains=embeds,
        has_config=embeds,
        has_nice=embeds or has_nice,
        serves=serves,
    )


def settings_flags(entry: Entry) -> list[Flag]:
    """Return the settings of a model as flags, from its own function or from its settings."""
    fields = read_flags(entry.module, entry.settings)[1]
    if entry.function is None:
        return fields
    names = {field.name for field in fields}
    return [flag for flag in read_flags(*entry.function)[1] if flag.name in names]


def embed_command(model: str) -> Command:
    """Return the command that embeds a graph with a model of the table."""
    entry = MODELS[model]
    if entry.function is not None:
        return _command(*entry.function, show.show_embedding, embeds=True)

    def read() -> tuple[str, list[Flag]]:
        parts = {
            "model": [],
            "model_settings": settings_flags(entry),
            "vocabulary": _vocabulary_flags(),
            "reading": _reading_flags(),
        }
        flags = _for_command_line(read_flags("lib.embed_model", "embed_model")[1])
        flags = [one for flag in flags for one in parts.get(flag.name, [flag])]
        return f"Embed all nodes of a knowledge graph with {entry.title}.", flags

    def call(**values: Any) -> Any:
        with _loading():
            from .graph.source import ReadSettings
            from .graph.vocabulary import VocabularyChoice
            from .lib.embed_model import embed_model
        settings = {flag.name: values.pop(flag.name) for flag in settings_flags(entry)}
        words = {flag.name: values.pop(flag.name) for flag in _vocabulary_flags()}
        reading = {flag.name: values.pop(flag.name) for flag in _reading_flags()}
        return embed_model(
            model,
            **values,
            model_settings=settings,
            vocabulary=VocabularyChoice(**words),
            reading=ReadSettings(**reading),
        )

    return Command(read, call, show.show_embedding, trains=True, has_config=True, has_nice=True)


def _for_command_line(flags: list[Flag]) -> list[Flag]:
    return [flag for flag in flags if flag.annotation not in ONLY_IN_PYTHON]


def _read_evaluate() -> tuple[str, list[Flag]]:
    """Return the summary and flags of `evaluate_model`, with one flag for each setting.

    The flags of `evaluate_model_dir` are among them. So no flag but the output is required.
    """
    summary, flags = read_flags("lib.evaluate", "evaluate_model")
    parts = {
        "settings": _evaluation_flags(),
        "model_settings": _model_flags(),
        "vocabulary": _vocabulary_flags(),
        "reading": _reading_flags(),
    }
    flags = [one for flag in flags for one in parts.get(flag.name, [flag])]
    names = {flag.name for flag in flags}
    more = [flag for flag in _gold_flags() if flag.name not in names]
    one_of_two = [(flag, "without an outside list") for flag in flags]
    one_of_two += [(flag, "with an outside list") for flag in more]
    return summary, [
        _optional(flag, when) if flag.default is ... and flag.name != "output_dir" else flag
        for flag, when in one_of_two
    ]


def _optional(flag: Flag, when: str) -> Flag:
    """Return a required flag as an optional one whose help says when it is required."""
    text = f"{flag.help.removesuffix('.')} (required {when})."
    return replace(flag, annotation=f"{flag.annotation} | None", default=None, help=text)


def _gold_flags() -> list[Flag]:
    return read_flags("lib.evaluate", "evaluate_model_dir")[1]


def _evaluation_flags() -> list[Flag]:
    return read_flags("lib.evaluate", "EvaluationSettings")[1]


def _vocabulary_flags() -> list[Flag]:
    return read_flags("graph.vocabulary", "VocabularyChoice")[1]


def _reading_flags() -> list[Flag]:
    return read_flags("graph.source", "ReadSettings")[1]


def _model_flags() -> list[Flag]:
    """Return the settings of all models as optional flags, with the help texts of `cdd embed`."""
    found: dict[str, dict[str, Flag]] = {}
    for model, entry in MODELS.items():
        for flag in settings_flags(entry):
            found.setdefault(flag.name, {})[model] = flag
    flags = []
    for by_model in found.values():
        flag = next(iter(by_model.values()))
        defaults = {model: one.default for model, one in by_model.items()}
        if len(by_model) < len(MODELS):
            note = f"only {', '.join(by_model)}; default {flag.default}"
        elif len(set(defaults.values())) == 1:
            note = f"default {flag.default}"
        else:
            note = "default " + ", ".join(f"{value} for {m}" for m, value in defaults.items())
        text = flag.help if flag.default is None else f"{flag.help.removesuffix('.')} ({note})."
        annotation = f"{flag.annotation.removesuffix(' | None')} | None"
        flags.append(replace(flag, annotation=annotation, default=None, help=text))
    return flags


def _evaluate(**values: Any) -> Any:
    gold = _split_by_gold(values)
    with _loading():
        from .graph.source import ReadSettings
        from .graph.vocabulary import VocabularyChoice
        from .lib.evaluate import EvaluationSettings, evaluate_model, evaluate_model_dir
    if gold:
        with part("Evaluate model"):
            return evaluate_model_dir(**values)
    settings = {flag.name: values.pop(flag.name) for flag in _evaluation_flags()}
    model_settings = {flag.name: values.pop(flag.name) for flag in _model_flags()}
    words = {flag.name: values.pop(flag.name) for flag in _vocabulary_flags()}
    reading = {flag.name: values.pop(flag.name) for flag in _reading_flags()}
    with part("Evaluate model"):
        return evaluate_model(
            **values,
            settings=EvaluationSettings(**settings),
            model_settings=model_settings,
            vocabulary=VocabularyChoice(**words),
            reading=ReadSettings(**reading),
        )


def _split_by_gold(values: dict[str, Any]) -> bool:
    """Keep the flags of the form with --gold or of the form without; return if --gold is given.

    Raises:
        InputError: a flag is missing, or belongs to the other form.
    """
    flags = {flag.name: flag for flag in _read_evaluate()[1]}
    given = [name for name, value in values.items() if value not in (None, [], flags[name].default)]
    of_gold = {flag.name for flag in _gold_flags()}
    both = {flag.name for flag in read_flags("lib.evaluate", "evaluate_model")[1]} & of_gold
    gold = not (of_gold - both).isdisjoint(given)
    needed = ("gold", "model_dir") if gold else ("edges_csv", "model", "split")
    for name in needed:
        if name not in given:
            raise InputError(
                f"{flag_of(name)} is missing: give {', '.join(map(flag_of, needed))}, or else "
                + ("none of the flags of an outside list" if gold else "--gold and --model-dir")
            )
    for name in given:
        if name not in (of_gold if gold else flags.keys() - (of_gold - both)):
            raise InputError(
                f"{flag_of(name)} (got {values[name]}) must be left out with --gold: the model "
                "directory has the graph and the trained model"
            )
    for name in list(values):
        if name not in of_gold if gold else name in of_gold - both:
            del values[name]
    return gold


COMMANDS: dict[tuple[str, ...], Command] = {
    **{("embed", model): embed_command(model) for model in MODELS},
    ("fit-ranker",): _command("lib.fit_ranker", "fit_model_ranker", show.show_fit),
    ("similar",): _command("lib.similar", "similar_nodes", show_neighbors),
    ("rank",): _command("lib.rank", "rank_drugs", show_ranking, has_nice=True),
    ("explore",): _command("show.explore.serve", "explore", show.show_address, serves=True),
    ("evaluate",): Command(_read_evaluate, _evaluate, show_evaluation, trains=True, has_nice=True),
    ("report",): _command("show.report.write", "write_report", show.show_report),
    ("map",): _command("show.map.draw_map", "draw_map", show.show_map),
    ("synthesize",): _command("lib.synthesize", "synthesize_graph", show_record),
    ("demo",): _command("lib.demo", "run_demo", show.show_demo),
    ("cache",): _command("lib.cache", "manage_cache", show.show_cache),
    ("fetch", "primekg"): _command("lib.fetch", "fetch_primekg", show.show_fetch),
    ("fetch", "optimuskg"): _command("lib.fetch", "fetch_optimuskg", show.show_fetch),
    ("doctor",): _command("lib.doctor", "describe_machine", show.show_doctor),
}
