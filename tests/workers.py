"""The share of each worker of pytest-xdist: whole files, and all tests of kernels together."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

#: Files and folders whose tests compile the CPU kernels, or run them in other processes.
COMPILING = {
    "ops", "test_empty_edge_types.py", "test_hgt.py", "test_inference.py", "test_plain_models.py",
    "test_sage.py", "test_threads.py", "test_torchrun.py",
}  # fmt: skip
KERNELS = "kernels"  #: the unit of all these files
#: Files with tests of minutes that share nothing: both workers run some of them.
LONG = {"test_memory_plan.py"}


class WholeFiles(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types for it
    """Send all tests of a file to one worker, so that its fixtures are made once.

    All tests of kernels share a worker: each kernel is compiled once, while the other worker runs
    the rest. `--dist loadgroup` of pytest-xdist 3.8 does nothing with pytest 9.2, and `loadfile`
    cannot join files.
    """

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False  # in the order of `place`
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """Return the name of what one worker runs: a file, the tests of kernels, or one long test."""
    path = nodeid.split("::")[0]
    if path.split("/")[-1] in LONG:
        return nodeid
    return KERNELS if not COMPILING.isdisjoint(path.split("/")) else path


#: The units that take longest, in the order in which they start. The first of them need no kernels
#: while those are compiled.
FIRST = (
    KERNELS, "test_map.py", "test_cli.py", "test_public_contract.py", "test_memory_plan.py",
    "test_planted.py", "test_compile_kernels.py", "test_examples.py", "test_finish.py",
    "test_read_mutations.py",
)  # fmt: skip


def place(nodeid: str) -> tuple[int, str]:
    """Return where a test comes in the order: the longest units first, then by path."""
    path = nodeid.split("::")[0]
    name = unit(nodeid).split("::")[0].split("/")[-1]
    return FIRST.index(name) if name in FIRST else len(FIRST), path
