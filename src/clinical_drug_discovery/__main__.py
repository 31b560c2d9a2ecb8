"""The entry point of the console script `cdd` and of `python -m clinical_drug_discovery`."""

from __future__ import annotations

import gc

from .system.interrupts import catch_signals
from .system.untrusted.panics import keep_stderr


def main() -> None:
    """Run the command line. Signals are caught before the command line is imported."""
    catch_signals()
    keep_stderr()
    gc.disable()  # the objects that an import makes stay, so a search for garbage finds none
    from .cli import main as run

    gc.enable()
    run()


if __name__ == "__main__":
    main()
