"""The check that the process can take the memory for reading a graph.

Under the limit of a control group, the system would end the process without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...system.errors import InputError
from ...system.limits.memory import available_memory

_MIB, _GIB = 2**20, 2**30
# Bytes that reading takes: the first bytes of a file wait in buffers, and later a quarter of its
# size is kept. 14 MB of PrimeKG-shaped rows took 0.07 GiB, 202 MB 0.26 GiB, and 1 GB 0.46 GiB.
_LEAST, _BUFFERS, _KEPT = 64 * _MIB, 220 * _MIB, 0.25


def check_room(files: Sequence[Path]) -> None:
    """Check that there is memory for reading files of a graph.

    Compressed files take more memory than their size tells, so they may pass and still not fit.

    Raises:
        InputError: the files need more memory than is free or than a limit leaves.
    """
    size = 0
    for path in files:
        with suppress(OSError):  # a file that is missing has a message of its own
            size += path.stat().st_size
    needed = min(_LEAST + size, _BUFFERS + _KEPT * size)
    room = available_memory()
    if room.num_bytes < needed:
        raise InputError(
            f"{', '.join(map(str, files))}: reading needs about {needed / _GIB:.2f} GiB, but "
            f"{room.limit} has {room.num_bytes / _GIB:.2f} GiB: allow the process more memory"
        )
