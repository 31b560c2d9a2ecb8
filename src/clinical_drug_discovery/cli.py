"""The command line `cdd`: each command calls one function of `lib`.

The flags, defaults and help texts of a command are read from the source code of the function.
Parsing the source code takes milliseconds. Importing the function also imports torch, which takes
seconds, and happens only when the command runs. Results go to stdout (as JSON with --json);
progress and errors go to stderr. If the user made a mistake, the exit code is 2.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import show
from .system.devices import check_device
from .system.errors import InputError
from .system.interrupts import Stopped, catch_signals, end_loading
from .system.log import log_to_stderr, part

LOADING = "Loading the libraries"  #: the first line of each command
#: Parameters whose flags have another name: name of the parameter, name of the flag.
FLAG_NAMES = {
    "edges_csv": "edges",
    "exclude_relations": "exclude_relation",
    "output_csv": "output",
    "output_dir": "output",
    "rankers": "ranker",
    "try_device": "try",
}
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
    "str | Path | None": Path | None,
    "Sequence[str] | None": list[str] | None,
}
#: Name, annotation and default of a parameter or a field.
_Given = tuple[str, ast.expr | None, ast.expr | None]


@dataclass(frozen=True)
class Flag:
    """A parameter of a function, or a field of a dataclass, as written in the source code."""

    name: str
    annotation: str
    default: Any  #: `...` for a required flag
    help: str


def read_flags(module: str, name: str) -> tuple[str, list[Flag]]:
    """Read the flags of a function or dataclass from the source code.

    Args:
        module: dotted name within the package, such as "lib.rank".
        name: name of the function or the dataclass.

    Returns:
        The summary (first paragraph of the docstring), and one flag for each parameter or field,
        with the help text from the docstring's section `Args` or `Attributes`.
    """
    path = files("clinical_drug_discovery") / f"{module.replace('.', '/')}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    (found,) = (node for node in body if isinstance(node, kinds) and node.name == name)
    docstring = ast.get_docstring(found) or ""
    helps = _argument_help(docstring)
    given = _fields(found) if isinstance(found, ast.ClassDef) else _parameters(found.args)
    flags = [
        Flag(
            name,
            "" if annotation is None else ast.unparse(annotation),
            ... if default is None else ast.literal_eval(default),
            helps.get(name, ""),
        )
        for name, annotation, default in given
    ]
    return docstring.split("\n\n")[0], flags


def _parameters(arguments: ast.arguments) -> Iterator[_Given]:
    required = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*required, *arguments.defaults, *arguments.kw_defaults]
    for one, default in zip([*arguments.args, *arguments.kwonlyargs], defaults, strict=True):
        yield one.arg, one.annotation, default


def _fields(dataclass: ast.ClassDef) -> Iterator[_Given]:
    for node in dataclass.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and not ast.unparse(node.annotation).startswith("ClassVar")
        ):
            yield node.target.id, node.annotation, node.value


def _argument_help(docstring: str) -> dict[str, str]:
    """Return the help text of each name in the section `Args` or `Attributes` of a docstring."""
    section = re.search(r"(?m)^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring)
    text = section[1] if section else ""
    entries = re.findall(r"(?m)^    (\w+): ((?:.|\n(?!    \w+: ))+)", text)
    return {name: " ".join(text.split()) for name, text in entries}


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

    return Command(partial(read_flags, module, name), call, show, trains)


def _read_evaluate() -> tuple[str, list[Flag]]:
    """Return the summary and flags of `evaluate_model`, with one flag for each setting."""
    summary, flags = read_flags("lib.evaluate", "evaluate_model")
    parts = {
        "settings": _evaluation_flags(),
        "model_settings": _model_flags(),
        "vocabulary": _vocabulary_flags(),
        "reading": _reading_flags(),
    }
    return summary, [one for flag in flags for one in parts.get(flag.name, [flag])]


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
    with part(LOADING, announce=True):
        from .graph.source import ReadSettings
        from .graph.vocabulary import VocabularyChoice
        from .lib.evaluate import EvaluationSettings, evaluate_model
    end_loading()

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


COMMANDS: dict[tuple[str, ...], Command] = {
    ("embed", "graphsage"): _command(*_MODELS["graphsage"][:2], show.show_embedding, trains=True),
    ("embed", "hgt"): _command(*_MODELS["hgt"][:2], show.show_embedding, trains=True),
    ("similar",): _command("lib.similar", "similar_nodes", show.show_neighbors),
    ("rank",): _command("lib.rank", "rank_drugs", show.show_ranking),
    ("evaluate",): Command(_read_evaluate, _evaluate, show.show_evaluation, trains=True),
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
        except KeyboardInterrupt:  # polars catches Ctrl-C itself
            raise Stopped(signal.SIGINT) from None
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
    # typer reads the flags from these two attributes.
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
