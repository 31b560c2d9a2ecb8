"""Entry point of the console script `cdd`: the command line, behind a look at --device.

Importing the command line takes half as long again as torch alone. A device that is not there is
said before that.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say why the named device cannot be had and end with 2."""
    device = _named_device(sys.argv[1:])
    if device is not None:
        from clinical_drug_discovery.system.devices import check_device
        from clinical_drug_discovery.system.errors import InputError

        try:
            check_device(device)
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)
    from clinical_drug_discovery import cli

    cli.main()


def _named_device(arguments: list[str]) -> str | None:
    """The value of --device of a run, if there is one and no help is asked for."""
    if arguments[:1] not in (["embed"], ["evaluate"]) or "--help" in arguments:
        return None
    for i, argument in enumerate(arguments):
        if argument.startswith("--device="):
            return argument.removeprefix("--device=")
        if argument == "--device" and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


if __name__ == "__main__":
    main()
