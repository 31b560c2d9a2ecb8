"""The command line `cdd`: each command calls one function of `lib`.

The flags, defaults and help texts of a command are read from the source code of the function.
Parsing the source code takes milliseconds. Importing the function also imports torch, which takes
seconds, and happens only when the command runs. Results go to stdout (as JSON with --json);
progress and errors go to stderr. If the user made a mistake, the exit code is 2.
"""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import show, show_evaluation
from .flags import Flag, flag_of, read_flags
from .system.devices import check_device
from .system.errors import InputError
from .system.interrupts import Stopped, catch_signals, end_loading
from .system.log import log_to_stderr, part
from .system.untrusted.text import printable, printable_record

LOADING = "Loading the libraries"  #: the first line of each command
#: Model: module and name of the function that trains it, name of the dataclass of its settings.
_MODELS = {
    "graphsage": ("lib.gnn_embeddings", "generate_gnn_embeddings", "SageSettings"),
    "hgt": ("lib.gnn_hgt", "generate_hgt_embeddings", "HgtSettings"),
}
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
    "EdgesPath | None": list[Path] | None,
    "str | Path | None": Path | None,
    "Sequence[str] | None": list[str] | None,
}
ONLY_IN_PYTHON = ("EpochHook | None",)  #: annotations of parameters that do not have a flag


@dataclass(frozen=True)
class Command:
    """A command: its flags, its function, and the function that shows the result as text."""

    read: Callable[[], tuple[str, list[Flag]]]  #: returns the summary and the flags
    call: Callable[..., Any]
    show: Callable[[Any], None]
    trains: bool = False  #: True if the command trains a model; --device is then checked first


def _command(module: str, name: str, show: Callable[[Any], None], trains: bool = False) -> Command:
    """Return the command whose flags are the parameters of one function."""

    def call(**values: Any) -> Any:
        with part(LOADING, announce=True):
            function = getattr(import_module(f"{__package__}.{module}"), name)
        end_loading()
        with part(name.replace("_", " ").capitalize()):
            return function(**values)

    def read() -> tuple[str, list[Flag]]:
        summary, flags = read_flags(module, name)
        return summary, [flag for flag in flags if flag.annotation not in ONLY_IN_PYTHON]

    return Command(read, call, show, trains)


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
    """Return the settings of both models as optional flags, with the help texts of `cdd embed`."""
    found: dict[str, dict[str, Flag]] = {}
    for model, (module, function, settings) in _MODELS.items():
        fields = {field.name for field in read_flags("training.settings", settings)[1]}
        for flag in read_flags(module, function)[1]:
            if flag.name in fields:
                found.setdefault(flag.name, {})[model] = flag
    flags = []
    for by_model in found.values():
        flag = next(iter(by_model.values()))
        defaults = {model: one.default for model, one in by_model.items()}
        if len(by_model) < len(_MODELS):
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
    with part(LOADING, announce=True):
        from .graph.source import ReadSettings
        from .graph.vocabulary import VocabularyChoice
        from .lib.evaluate import EvaluationSettings, evaluate_model, evaluate_model_dir
    end_loading()

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
    ("embed", "graphsage"): _command(*_MODELS["graphsage"][:2], show.show_embedding, trains=True),
    ("embed", "hgt"): _command(*_MODELS["hgt"][:2], show.show_embedding, trains=True),
    ("fit-ranker",): _command("lib.fit_ranker", "fit_model_ranker", show.show_fit),
    ("similar",): _command("lib.similar", "similar_nodes", show.show_neighbors),
    ("rank",): _command("lib.rank", "rank_drugs", show.show_ranking),
    ("evaluate",): Command(_read_evaluate, _evaluate, show_evaluation.show, trains=True),
    ("synthesize",): _command("lib.synthesize", "synthesize_graph", show.show_record),
    ("demo",): _command("lib.demo", "run_demo", show.show_demo),
    ("cache",): _command("lib.cache", "manage_cache", show.show_cache),
    ("doctor",): _command("lib.doctor", "describe_machine", show.show_doctor),
}


def make_command(command: Command) -> Callable[..., None]:
    """Return a function for typer whose parameters are the flags of a command, and --json."""
    summary, flags = command.read()

    def run(**values: Any) -> None:
        as_json = values.pop("json")
        try:
            if command.trains and values["device"] is not None:
                check_device(values["device"])
            result = command.call(**values)
        except InputError as error:
            typer.echo(printable(f"error: {error}"), err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:  # polars catches Ctrl-C itself
            raise Stopped(signal.SIGINT) from None
        record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        if as_json:
            typer.echo(json.dumps(record, allow_nan=False))
        else:
            command.show(printable_record(record))
        if isinstance(record, dict) and record.get("try", {}).get("passed") is False:
            raise typer.Exit(1)

    as_json = typer.Option("--json", help="Print the result as JSON.")
    parameters = [
        _parameter(flag.name, TYPES[flag.annotation], flag.default, _option(flag)) for flag in flags
    ]
    parameters.append(_parameter("json", bool, False, as_json))
    run.__doc__ = summary
    # typer reads the flags from these two attributes.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(flag: Flag) -> Any:
    name = flag_of(flag.name)
    if flag.default is True:
        name += f"/--no-{flag.name.replace('_', '-')}"
    names = [name, "--output-dir"] if flag.name == "output_dir" else [name]
    return typer.Option(*names, help=flag.help)


def _parameter(name: str, type: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is ... else default,
        annotation=Annotated[type, option],
    )


class OrderedGroup(TyperGroup):
    """The commands in the order of `COMMANDS`, which is the order of the work."""

    def list_commands(self, context: Any) -> list[str]:
        """Return the names of the commands."""
        order = list(dict.fromkeys(names[0] for names in COMMANDS))
        return sorted(super().list_commands(context), key=order.index)


class OneValueCommand(TyperCommand):
    """A command that refuses a flag which is given twice, unless the flag takes several values.

    By default the last value counts, so a mistake in a long command line would not be noticed.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the flags, then parse them."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in given:
            if not parameter.multiple and given.count(parameter) > 1:
                ctx.fail(f"{parameter.opts[0]} is given twice, but takes one value")
        return super().parse_args(ctx, args)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("clinical-drug-discovery"))
        raise typer.Exit


def make_app() -> typer.Typer:
    """Return the typer app with all commands."""
    app = typer.Typer(
        cls=OrderedGroup,
        help="Node embeddings of biomedical knowledge graphs on one ordinary computer.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def start(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_print_version, is_eager=True, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """Node embeddings of biomedical knowledge graphs on one ordinary computer."""

    groups: dict[str, typer.Typer] = {}
    for (*group, name), command in COMMANDS.items():
        parent = app
        for word in group:
            if word not in groups:
                groups[word] = typer.Typer(no_args_is_help=True)
                app.add_typer(groups[word], name=word, help="Train a model and embed all nodes.")
            parent = groups[word]
        parent.command(name, cls=OneValueCommand)(make_command(command))
    return app


def main() -> None:
    """Run the command line; `__main__` is the entry point of the console script `cdd`."""
    catch_signals()
    log_to_stderr()
    try:
        make_app()()
    except Stopped as stop:
        typer.echo(stop.line(), err=True)
        raise SystemExit(stop.code) from None
