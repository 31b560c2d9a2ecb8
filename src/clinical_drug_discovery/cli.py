"""The command line `cdd`: each command calls one function of `lib`.

Results go to stdout (as JSON with --json); progress and errors go to stderr. If the user made a
mistake, the exit code is 2. `commands.py` has the table of the commands.
"""

from __future__ import annotations

import gc
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .commands import COMMANDS, TYPES, Command
from .config import Config, read_config
from .flags import Flag, flag_of
from .models.kinds.table import MODELS, entry_of
from .system.devices import check_device
from .system.errors import InputError, shown
from .system.group import launch
from .system.group.interface import LostProcessError
from .system.group.voice import let_first_speak, say_last
from .system.interrupts import (
    Stopped,
    catch_signals,
    end_stopped,
    how_to_resume,
    ignore_signals,
    signals_first,
)
from .system.log import log_to_stderr, milestone
from .system.processes import be_nice, set_library_defaults
from .system.untrusted.streams import drop_full_stderr, printing
from .system.untrusted.text import printable, printable_record

_CONFIG_HELP = (
    "File of parameters, .toml or .json, such as config.json of a model directory. Flags on the "
    "command line replace its values."
)
_NICE_HELP = (
    "For a computer in use: run at a low priority (10), and leave one core to other programs."
)


def make_command(command: Command) -> Callable[..., None]:
    """Return a function for typer whose parameters are the flags of a command, and --json."""
    summary, flags = command.read()

    def run(**values: Any) -> None:
        as_json = values.pop("json")
        values.pop("config", None)  # `OneValueCommand` has read it
        if values.pop("nice", False):
            milestone(be_nice())
        with _refusing(), signals_first():
            _check_place(command, values)
            result = command.call(**values)
        if launch.rank() == 0:  # it has the result
            _show(command, result, as_json)

    nice = typer.Option("--nice", help=_NICE_HELP)
    as_json = typer.Option("--json", help="Print the result as JSON.")
    parameters = [
        _parameter(flag.name, TYPES[flag.annotation], flag.default, _option(flag)) for flag in flags
    ]
    if command.has_config:
        parameters.append(_parameter("config", Path | None, None, typer.Option(help=_CONFIG_HELP)))
    if command.has_nice:
        parameters.append(_parameter("nice", bool, False, nice))
    parameters.append(_parameter("json", bool, False, as_json))
    run.__doc__ = summary
    # typer reads the flags from these two attributes.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _check_place(command: Command, values: Mapping[str, Any]) -> None:
    """Check that a command runs in so many processes, and on the device that it names."""
    if launch.num_processes() > 1 and not command.has_config:
        raise InputError(
            "torchrun is for cdd embed: run this command without it (cdd rank --shard divides a "
            "ranking)"
        )
    if command.trains and values["device"] is not None:
        check_device(values["device"])


def _show(command: Command, result: Any, as_json: bool) -> None:
    """Print the result of a command, and serve it if the command does so."""
    record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    with _refusing(), printing():
        if as_json:
            typer.echo(json.dumps(record, allow_nan=False))
        else:
            command.show(printable_record(record))
    if command.serves:
        result.wait()
    if isinstance(record, dict) and record.get("try", {}).get("passed") is False:
        raise typer.Exit(1)


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


class PrintingGroup(TyperGroup):
    """A group of commands whose help, if it cannot be printed, ends in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the flags, which may print the help or the version."""
        with _refusing(), printing():
            return super().parse_args(ctx, args)


class OrderedGroup(PrintingGroup):
    """The commands in the order of `COMMANDS`, which is the order of the work."""

    def list_commands(self, context: Any) -> list[str]:
        """Return the names of the commands."""
        order = list(dict.fromkeys(names[0] for names in COMMANDS))
        return sorted(super().list_commands(context), key=order.index)


class OneValueCommand(TyperCommand):
    """A command that refuses a flag which is given twice, unless the flag takes several values.

    By default the last value counts, so a mistake in a long command line would not be noticed.
    Parameters in the file of --config replace the defaults, and flags replace these parameters.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the flags, read the file of --config, then parse the flags."""
        values, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in given:
            if not parameter.multiple and given.count(parameter) > 1:
                ctx.fail(f"{parameter.opts[0]} is given twice, but takes one value")
        if values.get("config"):
            with _refusing():
                config = read_config(Path(values["config"]))
                flags = COMMANDS["embed", ctx.info_name].read()[1]
                ctx.default_map = config.checked(flags, ctx.info_name)
        try:
            with _refusing(), printing():  # the help
                rest = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            value = values.get(error.param.name) if error.param else None
            if value is not None and str(value) not in error.message:
                error.message += f" (got {shown(value)})"
            raise
        if values.get("config"):
            chosen = {parameter.name: ctx.params[parameter.name] for parameter in given}
            milestone(config.describe(ctx.default_map, chosen))
        return rest


class EmbedGroup(PrintingGroup):
    """The models of `cdd embed`; without a model, the file of --config names it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the model of the file before the flags."""
        if args and args[0].startswith("-"):
            for word, following in pairwise([*args, ""]):
                name, _, value = word.partition("=")
                if name == "--config":
                    with _refusing():
                        args = [_model_of(read_config(Path(value or following))), *args]
                    break
            else:
                if "--help" not in args:
                    ctx.fail(f"The model must come before {args[0]}; it is {' or '.join(MODELS)}.")
        return super().parse_args(ctx, args)


def _model_of(config: Config) -> str:
    if config.model is None:
        raise InputError(f"{config.path}: model is missing, and the command does not name one")
    try:
        entry_of(config.model)
    except InputError as error:
        raise InputError(f"{config.path}: {error}") from None
    return config.model


@contextmanager
def _refusing() -> Iterator[None]:
    """Print an `InputError` of the `with` block as one line, and exit with 2."""
    try:
        yield
    except InputError as error:
        say_last(printable(f"error: {error}"))
        raise typer.Exit(2) from None


#: Group of commands: its class and its help text.
_GROUPS: dict[str, tuple[type[PrintingGroup], str]] = {
    "embed": (
        EmbedGroup,
        "Train a model and embed all nodes. With --config FILE, the file names the model.",
    ),
    "fetch": (PrintingGroup, "Download a public knowledge graph."),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # its import takes 15 ms

        typer.echo(version("clinical-drug-discovery"))
        raise typer.Exit


def make_app(words: Sequence[str] = ()) -> typer.Typer:
    """Return the typer app.

    Args:
        words: of the command line. If they begin with a command or a group of commands, the app
            has only these, because the flags of all commands take 0.05 s to read. Otherwise, such
            as for `cdd --help`, it has all commands.
    """
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
    chosen = {names: command for names, command in COMMANDS.items() if [names[0]] == [*words[:1]]}
    for (*group, name), command in (chosen or COMMANDS).items():
        parent = app
        for word in group:
            if word not in groups:
                kind, text = _GROUPS[word]
                groups[word] = typer.Typer(cls=kind, no_args_is_help=True)
                app.add_typer(groups[word], name=word, help=text)
            parent = groups[word]
        parent.command(name, cls=OneValueCommand)(make_command(command))
    return app


def _stop_of(app: typer.Typer) -> Stopped | None:
    """Run the app; return the `Stopped` that has ended it, or None.

    A signal at the moment when a context manager is about to clean up keeps it from doing so. Its
    generator then cleans up when it is freed, so nothing may refer to the frames any more.
    """
    try:
        app()
    except Stopped as stop:
        stop.__traceback__ = stop.__context__ = None
        found = stop
    else:
        return None
    gc.collect()
    return found


def main() -> None:
    """Run the command line; `__main__` is the entry point of the console script `cdd`."""
    catch_signals()
    let_first_speak()
    log_to_stderr()
    set_library_defaults()
    app = make_app(sys.argv[1:])
    gc.freeze()
    gc.enable()
    try:
        stop = _stop_of(app)
        if stop is not None:
            say_last(stop.line())
            end_stopped(128 + stop.number)
    except LostProcessError as error:
        say_last(f"error: {error}, so all processes end; {how_to_resume()}", is_lost=True)
        raise SystemExit(1) from None
    except OSError as error:
        code = getattr(error.__context__, "exit_code", None)
        if code is None:
            raise
        raise SystemExit(code) from None  # a wrong flag, which stderr cannot say
    finally:
        ignore_signals()
        drop_full_stderr()
