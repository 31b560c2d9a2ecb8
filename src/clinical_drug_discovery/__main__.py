"""The entry point of the console script `cdd` and of `python -m clinical_drug_discovery`."""

from __future__ import annotations

import gc

from .system.interrupts import catch_signals


def main() -> None:
    """Run the command line. Signals are caught before everything else is imported."""
    catch_signals()
    from .system.untrusted.panics import keep_stderr
    from .system.untrusted.streams import open_missing_streams

    open_missing_streams()
    keep_stderr()
    gc.disable()  # until all is imported: what an import makes stays, and none of it is garbage
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
