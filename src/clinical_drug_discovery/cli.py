"""The command line `cdd`: a table from each command to its function in `lib`.

A command's flags, defaults and help texts are read from the source of its function, which is
imported only when the command runs. Results go to stdout (as JSON with --json), progress and errors
to stderr. A mistake of the user ends with exit code 2.
"""

from __future__ import annotations

import inspect
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer

from clinical_drug_discovery import show
from clinical_drug_discovery.flags import TYPES, Flag, read_flags
from clinical_drug_discovery.system.devices import check_device
from clinical_drug_discovery.system.errors import InputError

#: Flags whose names differ from those of their parameters.
FLAG_NAMES = {
    "edges_csv": "edges",
    "output_csv": "output",
    "output_dir": "output",
    "try_device": "try",
}
#: For each model, the function that trains it and the dataclass of its settings.
_MODELS = {
    "graphsage": ("lib.gnn_embeddings", "generate_gnn_embeddings", "SageSettings"),
    "hgt": ("lib.gnn_hgt", "generate_hgt_embeddings", "HgtSettings"),
}


@dataclass(frozen=True)
class Command:
    """How a command reads its flags, what it calls, and how its result is shown without --json."""

    read: Callable[[], tuple[str, list[Flag]]]  #: returns a summary and the flags
    call: Callable[..., Any]
    show: Callable[[Any], None]
    trains: bool = False  #: on --device, which is checked before torch is imported


def _call(module: str, function: str, **values: Any) -> Any:
    return getattr(import_module(f"{__package__}.{module}"), function)(**values)


def _command(
    module: str, function: str, show: Callable[[Any], None], trains: bool = False
) -> Command:
    """Return the command whose flags are the parameters of one function."""
    return Command(
        partial(read_flags, module, function), partial(_call, module, function), show, trains
    )


def _read_evaluate() -> tuple[str, list[Flag]]:
    """Read the flags of `evaluate_model`, with its settings and those of the model as flags."""
    summary, flags = read_flags("lib.evaluate", "evaluate_model")
    parts = {"settings": _evaluation_flags(), "model_settings": _model_flags()}
    return summary, [one for flag in flags for one in parts.get(flag.name, [flag])]


def _evaluation_flags() -> list[Flag]:
    return read_flags("lib.evaluate", "EvaluationSettings")[1]


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
    from clinical_drug_discovery.lib.evaluate import EvaluationSettings, evaluate_model

    settings = {flag.name: values.pop(flag.name) for flag in _evaluation_flags()}
    model_settings = {flag.name: values.pop(flag.name) for flag in _model_flags()}
    return evaluate_model(
        **values, settings=EvaluationSettings(**settings), model_settings=model_settings
    )


COMMANDS: dict[tuple[str, ...], Command] = {
    ("embed", "graphsage"): _command(*_MODELS["graphsage"][:2], show.show_record, trains=True),
    ("embed", "hgt"): _command(*_MODELS["hgt"][:2], show.show_record, trains=True),
    ("evaluate",): Command(_read_evaluate, _evaluate, show.show_evaluation, trains=True),
    ("similar",): _command("lib.similar", "similar_nodes", show.show_neighbors),
    ("rank",): _command("lib.rank", "rank_drugs", show.show_ranking),
    ("synthesize",): _command("lib.synthesize", "synthesize_graph", show.show_record),
    ("demo",): _command("lib.demo", "run_demo", show.show_demo),
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
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        if as_json:
            typer.echo(json.dumps(record, allow_nan=False))
        else:
            command.show(record)
        if isinstance(record, dict) and record.get("try", {}).get("passed") is False:
            raise typer.Exit(1)

    as_json = typer.Option("--json", help="Print the result as JSON.")
    parameters = [
        _parameter(flag.name, TYPES[flag.annotation], flag.default, _option(flag)) for flag in flags
    ]
    parameters.append(_parameter("json", bool, False, as_json))
    run.__doc__ = summary
    # typer reads the flags from these two.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(flag: Flag) -> Any:
    name = f"--{FLAG_NAMES.get(flag.name, flag.name).replace('_', '-')}"
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


def make_app() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        help="Node embeddings of biomedical knowledge graphs on one ordinary computer.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    groups: dict[str, typer.Typer] = {}
    for (*group, name), command in COMMANDS.items():
        parent = app
        for word in group:
            if word not in groups:
                groups[word] = typer.Typer(no_args_is_help=True)
                app.add_typer(groups[word], name=word, help="Train a model and embed all nodes.")
            parent = groups[word]
        parent.command(name)(make_command(command))
    return app


def main() -> None:
    """Run the command line; the entry point of the console script `cdd`."""
    # A run that is asked to end removes its unfinished files, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    make_app()()
