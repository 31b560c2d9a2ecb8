"""Fuzz one kind of file for some minutes: `python tests/fuzz/fuzz.py graph --minutes 20`.

With atheris (the extra `fuzz`), the coverage of the Python code guides the mutations. Without it,
they are random. An input with an unexpected outcome ends the run and is kept in tests/fuzz/finds;
add it to the tests there before the fault is repaired.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import sys
import time
from pathlib import Path

FINDS = Path(__file__).parent / "finds"
_PIECES = (b"", b"\0", b"\xff" * 8, b'"', b"\n", b"\r", b",", b"\t", b"-1", b"1e999", b"nan")


def mutated(seeds: list[bytes], chosen: random.Random) -> bytes:
    """Return one of some inputs with a few changes: bytes, pieces, cuts, repeats."""
    data = bytearray(chosen.choice(seeds))
    for _ in range(chosen.choice((1, 1, 2, 4, 16))):
        at = chosen.randrange(len(data) + 1)
        stop = min(len(data), at + chosen.choice((1, 1, 4, 64)))
        kind = chosen.random()
        if kind < 0.4:
            data[at:stop] = chosen.randbytes(stop - at)
        elif kind < 0.7:
            data[at:stop] = chosen.choice(_PIECES)
        elif kind < 0.8:
            del data[at:]
        elif kind < 0.9:
            data[at:at] = data[at:stop] * chosen.choice((2, 100))
        else:
            other = chosen.choice(seeds)
            data[at:] = other[min(at, len(other)) :]
    return bytes(data)


def main() -> int:
    """Run one fuzzer; the exit code is 1 if an outcome was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=("graph", "embeddings", "model", "checkpoint"))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="do not use atheris")
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None or arguments.random:
        return with_random(arguments.target, arguments.minutes, arguments.seed)
    return with_atheris(arguments.target, arguments.minutes, arguments.seed)


def with_random(target: str, minutes: float, seed: int) -> int:
    """Try random mutations of valid inputs."""
    from targets import TARGETS, seeds

    inputs, chosen, count = seeds(target), random.Random(seed), 0
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        data = mutated(inputs, chosen)
        (FINDS.parent / f".last-{target}").write_bytes(data)  # for a crash of the process
        if not tried(TARGETS[target], target, data):
            return 1
        count += 1
    print(f"{target}: {count:,} random inputs, all as expected")
    (FINDS.parent / f".last-{target}").unlink()
    return 0


def tried(run: object, target: str, data: bytes) -> bool:
    """Return False, and keep the input, if the outcome was unexpected."""
    assert callable(run)
    try:
        run(data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        FINDS.mkdir(exist_ok=True)
        path = FINDS / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"unexpected {type(error).__name__}: {error}; the input is {path}")
        import traceback

        traceback.print_exc()
        return False
    return True


def with_atheris(target: str, minutes: float, seed: int) -> int:
    """Try mutations that atheris finds by coverage."""
    import atheris

    with atheris.instrument_imports(include=["clinical_drug_discovery"]):
        from targets import TARGETS, seeds, work
    corpus = work() / f"corpus-{target}"
    corpus.mkdir()
    for number, data in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(data)
    FINDS.mkdir(exist_ok=True)
    flags = [
        f"-max_total_time={int(60 * minutes)}", f"-seed={seed + 1}", "-rss_limit_mb=6000",
        "-max_len=100000", "-timeout=120", f"-artifact_prefix={FINDS}/{target}-",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(corpus)], TARGETS[target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
